"""The options of `redditgen evaluate`."""

from pathlib import Path

from redditgen.settings import shared
from redditgen.settings.finetune import FinetuneSettings
from redditgen.settings.generate import GenerateSettings
from redditgen.settings.options import command_settings, option, require, require_at_least


@command_settings
class EvaluateSettings:
    run: str = shared.run()
    step: str | None = shared.step()
    against: Path | None = option(
        None, "What the run was finetuned on: the titles are measured that finetune held out, with the same options."
    )
    val: Path | None = option(None, "Instead of --against: the file of records that was finetune's --val.")
    val_fraction: float = option(0.02, "Share of the titles that finetune held out.")
    seed: int = option(0, "Finetune's --seed, by which titles are held out.")
    min_keywords: int | None = option(None, "With what encode --dynamic writes: as finetune had it.  [default: 0]")
    max_keywords: int | None = option(None, "With what encode --dynamic writes: as finetune had it.  [default: 3]")
    n: int = option(1000, "How many texts to sample, for categories and keywords of held-out titles.", "--n", "-n")
    sample_seed: int = option(0, "Seed of the samples and of the intervals; the same seed gives the same figures.")
    temperature: float = shared.temperature()
    top_k: int = shared.top_k()
    top_p: float = shared.top_p()
    length: int = shared.length()
    precision: str = option(
        "auto", "What the weights are sampled in: float32 or int8; auto: int8. Losses are always measured in float32."
    )
    batch_size: str = option("auto", "Titles sampled at once; auto: by the size of the model.")
    novel_threshold: float = shared.novel_threshold()
    words: Path | None = option(
        None, "List of words that are not safe for work.  [default: data/nsfw_words.txt, which explains itself]"
    )
    out: Path | None = option(
        None, "Folder for evaluation.json and evaluation.html.  [default: evaluation in the run's folder]"
    )
    checkpoint_dir: Path = shared.checkpoint_dir()
    skip_existing: bool = shared.skip_existing()
    overwrite: bool = option(False, "Replace an evaluation that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        require(self.n > 0, f"-n must be 1 or more, not {self.n}")
        require_at_least(0, self, "sample_seed")
        require(
            self.against is not None or self.val is not None,
            f"--against: is needed: the dataset that run {self.run} was finetuned on, or --val FILE of held-out titles",
        )
        require(self.against is None or self.val is None, "--val: is measured instead of --against; leave out one")
        _ = self.generate_settings, self.finetune_settings  # constructing them checks the fields that they share

    @property
    def output(self) -> Path:
        return self.out or self.checkpoint_dir / self.run / "evaluation"

    @property
    def generate_settings(self) -> GenerateSettings:
        """The settings to sample texts with: every text of the model counts, so no filter is on."""
        names = ("run", "step", "temperature", "top_k", "top_p", "length", "precision", "batch_size", "novel_threshold")
        shared_values = {name: getattr(self, name) for name in (*names, "checkpoint_dir")}
        return GenerateSettings(**shared_values, seed=self.sample_seed, unique=False, novel=False, sfw=False)

    @property
    def finetune_settings(self) -> FinetuneSettings:
        """The settings of finetune that determine which titles it held out."""
        names = ("run", "val", "val_fraction", "seed", "min_keywords", "max_keywords", "checkpoint_dir")
        dataset = self.against or self.val
        assert dataset is not None
        return FinetuneSettings(dataset=dataset, **{name: getattr(self, name) for name in names})
