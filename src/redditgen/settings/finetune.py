"""The options of `redditgen finetune`."""

from pathlib import Path

from redditgen.settings import shared
from redditgen.settings.options import (
    argument,
    command_settings,
    option,
    parse_byte_count,
    parse_duration,
    require,
    require_at_least,
    require_choice,
    require_name,
)


@command_settings
class FinetuneSettings:
    dataset: Path = argument(
        "Encoded text or JSONL, as encode writes it; or a CSV of one column, a .npz of tokens, or plain text; "
        "or a folder or a quoted glob of such files."
    )
    engine: str = shared.engine()
    model: str | None = option(
        None,
        "Base model: a folder in --model-dir, mini, which comes with redditgen, or the path of a folder of OpenAI's or "
        "Hugging Face's layout.  [default: the run's; mini for a new one]",
    )
    run: str = shared.run()
    steps: int = option(500, "Step at which the run ends; a run that has got there does nothing.")
    more: int | None = option(None, "Go on for this many steps from where the run stands, instead of --steps.")
    batch_size: int | None = option(
        None, "Records at once, or windows of plain text.  [default: 32; 1 window with gpt-2-simple]"
    )
    accumulate_gradients: int | None = option(None, "Batches a step.  [default: 1; 5 with gpt-2-simple]")
    window: int = option(
        256, "Tokens of a window: of plain text, and of anything with gpt-2-simple, which itself takes 1024."
    )
    optimizer: str = option("adam", "adam, or sgd: plain gradient descent at an even rate, unclipped.")
    learning_rate: float | None = option(
        None, "Step size.  [default: 1e-4 for 124M, more for narrower models, less for wider ones]"
    )
    train: str = option(
        "auto",
        "What learns: full, all of the model; layers, all but the embeddings and the last norm; head, the last layer "
        "and the norm behind it; lora, adapters, small matrices beside the frozen ones; auto: full, or lora where "
        "that does not fit into --memory, or where the run has adapters.",
    )
    only_train_transformer_layers: bool = option(
        False, "The same as --train layers, by the name it has in gpt-2-simple.", "--only-train-transformer-layers"
    )
    lora_rank: int | None = option(None, "With --train lora: rank of the adapters.  [default: the run's; 16]")
    memory: str | None = option(
        None, "Memory to do with, as 4GB: a plan is made that fits.  [default: what the GPU, or the machine, has free]"
    )
    weight_bits: int | None = option(
        None,
        "With --train lora: bits of the frozen weights, 32, 16, 8 or 4; the latter two need bitsandbytes.  "
        "[default: as many as fit]",
    )
    memory_saving_gradients: bool = option(
        False, "Compute the layers twice and keep less in memory.", "--memory-saving-gradients"
    )
    combine: int = option(50_000, "Join files of plain text until they have this many characters.")
    seed: int = option(0, "Seed of the order of the records and of which titles are held out.")
    loss_on: str | None = option(
        None,
        "What the loss is made of: record, all of each; title, its title and end, given what stands before them.  "
        "[default: the run's; title for a new one, but record with gpt-2-simple, or if no record is without keywords "
        "or one without a title]",
    )
    min_keywords: int | None = option(
        None,
        "With what encode --dynamic writes: draw at least this many keywords a title, anew every epoch.  [default: 0]",
    )
    max_keywords: int | None = option(
        None, "With what encode --dynamic writes: draw at most this many keywords a title.  [default: 3]"
    )
    val: Path | None = option(
        None, "File of records to measure the run on, as encode --split writes it, instead of --val-fraction."
    )
    val_fraction: float = option(0.02, "Share of the titles that is held out to measure the run on.")
    val_every: int = option(100, "Measure the held-out loss every so many steps, besides at both ends; 0: only there.")
    print_every: int = option(10, "Print the loss every so many steps; 0: never.")
    sample_every: int = option(50, "Write samples every so many steps; 0: never.")
    sample_num: int = option(1, "How many samples.")
    sample_length: int = option(100, "The most tokens of a sample.")
    save_every: int = option(500, "Save every so many steps, besides at the end; 0: only there.")
    max_checkpoints: int = option(1, "Keep this many checkpoints, the newest; 0: all.")
    keep_best: bool = option(
        False,
        "Save also whenever the held-out loss is the lowest so far, and keep that checkpoint besides (--step best).",
        "--keep-best",
    )
    early_stop: int | None = option(
        None, "End when this many measurements of the held-out loss in a row were not lower than the lowest so far."
    )
    time_limit: str | None = option(
        None, "Save and end after this time, as 8h, 90m or 1h30m; the same command goes on from there."
    )
    plot: bool = option(False, "Draw the losses into loss.png in the run's folder, at each save.", "--plot")
    record_tokens: str | None = option(
        None,
        "compact: start and end of a record are one token each; literal: they are spelled out, as gpt-2-simple does.  "
        "[default: what the run has; compact for a new one, literal with gpt-2-simple]",
    )
    restore_from: str = option(
        "latest",
        "latest: go on with the run if it is there; fresh: start from the base model; or the path of another run or "
        "model, to start from its weights.",
    )
    precision: str = option(
        "auto",
        "float32, bfloat16 or float16; auto: bfloat16 where the processor computes in it, else float16 on a GPU.",
    )
    num_workers: int | None = option(
        None,
        "Train with this many workers of ray, each with --batch-size records of its own and a GPU, or a share of the "
        "CPUs.  [default: none; with --ray-address one a GPU, or else one a machine]",
    )
    ray_address: str | None = option(
        None, "Ray cluster to train on, as host:port; its machines must share the folder of the runs.", "--ray-address"
    )
    model_dir: Path = shared.model_dir()
    checkpoint_dir: Path = shared.checkpoint_dir()
    sample_dir: Path = option(Path("samples"), "Folder of the samples.")
    tf1_python: Path | None = shared.tf1_python()
    skip_existing: bool = shared.skip_existing()
    overwrite: bool = option(False, "With --restore-from fresh: replace a run that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        for name in ("steps", "sample_num", "sample_length", "combine"):
            require_at_least(1, self, name)
        for name in ("more", "batch_size", "accumulate_gradients"):
            require_at_least(1, self, name)
        for name in ("seed", "val_every", "print_every", "sample_every", "save_every", "max_checkpoints"):
            require_at_least(0, self, name)
        require_at_least(0, self, "min_keywords")
        require(self.keyword_range[0] <= self.keyword_range[1], "--max-keywords must not be below --min-keywords")
        require_at_least(2, self, "window")
        require(self.learning_rate is None or self.learning_rate > 0, "--learning-rate must be above 0")
        require(0 <= self.val_fraction < 1, f"--val-fraction must be from 0 to below 1, not {self.val_fraction}")
        require_choice("--engine", self.engine, *shared.ENGINES)
        self._check_stopping()
        require_choice("--optimizer", self.optimizer, "adam", "sgd")
        require_choice("--record-tokens", self.record_tokens, None, "compact", "literal")
        require_choice("--precision", self.precision, "auto", "float32", "bfloat16", "float16")
        self._check_trained_weights()
        require_choice("--loss-on", self.loss_on, None, "record", "title")
        takes_titles = self.engine == "torch" or self.loss_on != "title"
        require(takes_titles, "--loss-on title: gpt-2-simple learns all of each record; leave it out")
        require_name("--run", self.run)
        require_at_least(1, self, "num_workers")
        require(
            self.engine == "torch" or not self.has_workers,
            "--num-workers and --ray-address: are for --engine torch alone",
        )

    @property
    def has_workers(self) -> bool:
        """Whether ray workers train the run."""
        return self.num_workers is not None or self.ray_address is not None

    def _check_trained_weights(self) -> None:
        """Raise UsageError where the options of trained weights and memory are invalid or contradictory."""
        require_choice("--train", self.train, "auto", "full", "layers", "head", "lora")
        is_bit_count = self.weight_bits in (None, 4, 8, 16, 32)
        require(is_bit_count, f"--weight-bits must be 4, 8, 16 or 32, not {self.weight_bits}")
        require_at_least(1, self, "lora_rank")
        if self.memory is not None:
            parse_byte_count("--memory", self.memory)
        is_consistent = not self.only_train_transformer_layers or self.train in ("auto", "layers")
        require(is_consistent, f"--only-train-transformer-layers is --train layers; leave out --train {self.train}")
        for name in ("lora_rank", "weight_bits"):
            has_effect = getattr(self, name) is None or self.train in ("auto", "lora")
            require(has_effect, f"--{name.replace('_', '-')} is for --train lora")
        if self.engine != "torch":
            is_torch_only = self.memory is not None or self.train not in ("auto", "full", "layers")
            require(not is_torch_only, "--train and --memory: gpt-2-simple trains full or layers, in what that takes")

    @property
    def train_mode(self) -> str | None:
        """The weights to train: full, layers, head or lora; None where --train is auto and no option implies lora."""
        if self.only_train_transformer_layers:
            return "layers"
        implies_lora = self.lora_rank is not None or self.weight_bits is not None
        return {"auto": "lora" if implies_lora else None}.get(self.train, self.train)

    def _check_stopping(self) -> None:
        """Raise UsageError where --keep-best or --early-stop has no held-out loss, or the engine lacks an option."""
        require_at_least(1, self, "early_stop")
        measures = self.val_every > 0 and (self.val is not None or self.val_fraction > 0)
        for flag, is_given in (("--keep-best", self.keep_best), ("--early-stop", self.early_stop is not None)):
            require(measures or not is_given, f"{flag}: needs held-out titles, measured by --val-every")
            require(self.engine == "torch" or not is_given, f"{flag}: is for --engine torch alone; leave it out")
        has_limit = self.time_limit_seconds is not None
        require(self.engine == "torch" or not has_limit, "--time-limit: is for --engine torch alone; leave it out")

    @property
    def time_limit_seconds(self) -> int | None:
        """The time limit in seconds, or None."""
        return None if self.time_limit is None else parse_duration("--time-limit", self.time_limit)

    @property
    def keyword_range(self) -> tuple[int, int]:
        """The smallest and the largest number of keywords drawn for a title."""
        return self.min_keywords or 0, 3 if self.max_keywords is None else self.max_keywords
