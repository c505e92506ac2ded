"""The options of `redditgen export`."""

from pathlib import Path

from redditgen.settings import shared
from redditgen.settings.options import command_settings, option, require, require_choice, require_name, require_step


@command_settings
class ExportSettings:
    run: str | None = option(None, "Name of the run, a folder in --checkpoint-dir.  [default: run1]")
    step: str | None = shared.step()
    model: str | None = option(None, "Instead of a run: a base model, by its name in --model-dir or its folder's path.")
    to: str = option(
        "hf",
        "hf: Hugging Face's layout, for transformers; ct2: CTranslate2's; tf: a base model in OpenAI's, for "
        "gpt-2-simple and for finetune --model.",
    )
    out: Path | None = option(None, "Folder to write.  [default: exports/RUN-TO]")
    checkpoint_dir: Path = shared.checkpoint_dir()
    model_dir: Path = shared.model_dir()
    skip_existing: bool = shared.skip_existing()
    overwrite: bool = option(False, "Replace an export that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        require_step(self.step)
        require_choice("--to", self.to, "hf", "ct2", "tf")
        require(self.model is None or self.run is None, "--model: is exported instead of a run; leave out it or --run")
        require(self.model is None or self.step is None, "--step: base models have none; leave it out with --model")
        require(self.out is None or self.out.name not in ("", ".."), f"--out must name a folder, not {self.out}")
        require_name("--run", self.run_name)

    @property
    def run_name(self) -> str:
        return "run1" if self.run is None else self.run

    @property
    def name(self) -> str:
        """The name of the exported run or model."""
        return self.run_name if self.model is None else Path(self.model).resolve().name

    @property
    def output(self) -> Path:
        return self.out or Path("exports") / f"{self.name}-{self.to}"
