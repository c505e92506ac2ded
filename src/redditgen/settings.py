"""The settings of every command: one frozen dataclass each, with its defaults, help texts and checks.

The command line makes its options from these fields (`min_score` is `--min-score`), so each is described once.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redditgen.errors import UsageError
from redditgen.markup import SECTIONS

# The report's own list: subreddits whose titles are all the same.
REPORT_BLOCKLIST = "me_irl,2meirl4meirl,anime_irl,furry_irl,cursedimages"


def option(default: Any, help: str, *flags: str) -> Any:
    """A field that is an option; `flags` replaces the name made from the field's."""
    return field(default=default, metadata={"help": help, "flags": flags})


def argument(help: str) -> Any:
    """A field that is a positional argument."""
    return field(metadata={"help": help, "positional": True})


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise UsageError(message)


def _choose(name: str, value: str | None, *choices: str | None) -> None:
    _require(value in choices, f"{name} must be {' or '.join(filter(None, choices))}, not {value!r}")


def _require_name(name: str, value: str) -> None:
    """Runs and models are folders in a folder, so their names must not lead out of it."""
    _require(
        value not in ("", ".", "..") and Path(value).name == value, f"{name} must be a plain folder name, not {value!r}"
    )


@dataclass(frozen=True, kw_only=True)
class FetchSettings:
    source: tuple[str, ...] = option(
        ("sample",),
        "Where posts come from: 'sample' (synthetic posts that come with redditgen), or a Parquet, CSV or NDJSON file, "
        "or a quoted glob of them. Repeatable.",
        "--from",
    )
    out: Path = option(Path("data/reddit_titles.csv"), "CSV to write: subreddit,title.")
    min_score: int = option(5, "Only posts with this score or more decide which subreddits are the top ones.")
    top_subreddits: int = option(1000, "Keep this many subreddits, those with the most distinct authors.")
    per_subreddit: int = option(18, "Keep this many titles of each, those with the highest score.")
    block: str = option(
        REPORT_BLOCKLIST, "Subreddits to leave out: names between commas, or a file with a name a line."
    )
    sfw: bool = option(True, "Leave out posts marked over 18.", "--sfw/--no-sfw")
    overwrite: bool = option(False, "Replace an output that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        _require(self.top_subreddits > 0, f"--top-subreddits must be 1 or more, not {self.top_subreddits}")
        _require(self.per_subreddit > 0, f"--per-subreddit must be 1 or more, not {self.per_subreddit}")


@dataclass(frozen=True, kw_only=True)
class EncodeSettings:
    input: Path = argument("CSV with a header line, as fetch writes it.")
    out: Path | None = option(None, "Encoded text to write.  [default: INPUT's name with _encoded.txt]")
    category_field: str = option("subreddit", "Column of the category; '' for none.")
    title_field: str = option("title", "Column of the title; '' for none.")
    body_field: str = option("", "Column of the body; '' for none.")
    keywords_field: str = option("", "Column of ready keywords, instead of finding them with spaCy.")
    keyword_gen: str | None = option(
        None, "Column in which spaCy looks for keywords.  [default: the title's, or the body's if there is no title]"
    )
    keyword_sep: str = option(",", "What stands between the keywords of --keywords-field.")
    repeat: int = option(3, "Write each title this many times, each with another draw of its keywords.")
    max_keywords: int = option(3, "A draw holds at most this many keywords.")
    keyword_length_max: int = option(20, "A noun phrase must be shorter than this many characters to be a keyword.")
    spacy_model: str = option("en_core_web_sm", "spaCy model that tags and parses.")
    workers: int = option(
        0, "Processes that run spaCy, through ray if more than one; 0 picks by the size of the input."
    )
    seed: int = option(0, "Seed of the draws and of the order: same seed, same file.")
    overwrite: bool = option(False, "Replace an output that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        _require(self.repeat > 0, f"--repeat must be 1 or more, not {self.repeat}")
        _require(self.max_keywords >= 0, f"--max-keywords must be 0 or more, not {self.max_keywords}")
        _require(self.workers >= 0, f"--workers must be 0 (automatic) or more, not {self.workers}")
        _require(self.keyword_sep != "", "--keyword-sep must not be empty")
        _require(self.text_field != "", "--title-field and --body-field are both empty: there is nothing to learn from")

    @property
    def text_field(self) -> str:
        """The column without whose text a row is not worth a record."""
        return self.title_field or self.body_field

    @property
    def output(self) -> Path:
        return self.out or self.input.with_name(self.input.stem + "_encoded.txt")


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    input: Path = argument("Encoded or generated text.")
    out: Path | None = option(None, "File to write: .txt, .csv or .jsonl.  [default: the terminal]")
    sections: str = option("title", f"Sections to write, names between commas, of: {', '.join(SECTIONS)}.")
    overwrite: bool = option(False, "Replace an output that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        unknown = [name for name in self.names if name not in SECTIONS]
        _require(
            not unknown, f"--sections: no section {', '.join(map(repr, unknown))}; there are {', '.join(SECTIONS)}"
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The asked sections in the order asked, each once."""
        return tuple(dict.fromkeys(name.strip() for name in self.sections.split(",")))


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    dataset: Path = argument("Encoded text, as encode writes it.")
    model: str | None = option(
        None,
        "Base model: a folder in --model-dir, or mini, which comes with redditgen.  "
        "[default: the run's; mini for a new one]",
    )
    run: str = option("run1", "Name of the run, a folder in --checkpoint-dir.")
    steps: int = option(500, "Step at which the run ends; a run that has got there does nothing.")
    more: int | None = option(None, "Go on for this many steps from where the run stands, instead of --steps.")
    batch_size: int = option(32, "Records a step.")
    learning_rate: float | None = option(
        None, "Step size of AdamW.  [default: 1e-4 for 124M, more for narrower models, less for wider ones]"
    )
    seed: int = option(0, "Seed of the order of the records and of which titles are held out.")
    val_fraction: float = option(0.02, "Share of the titles that is held out to measure the run on.")
    val_every: int = option(100, "Measure the held-out loss every so many steps, besides at both ends; 0: only there.")
    print_every: int = option(10, "Print the loss every so many steps; 0: never.")
    sample_every: int = option(50, "Write samples every so many steps; 0: never.")
    sample_num: int = option(1, "How many samples.")
    sample_length: int = option(100, "The most tokens of a sample.")
    save_every: int = option(500, "Save every so many steps, besides at the end; 0: only there.")
    record_tokens: str | None = option(
        None,
        "compact: start and end of a record are one token each; literal: they are spelled out, as gpt-2-simple does.  "
        "[default: what the run has; compact for a new one]",
    )
    restore_from: str = option("latest", "latest: go on with the run if it is there; fresh: start from the base model.")
    precision: str = option(
        "auto", "float32, or bfloat16 where the processor computes in it; auto: the faster of them."
    )
    model_dir: Path = option(Path("models"), "Folder of the base models.")
    checkpoint_dir: Path = option(Path("checkpoint"), "Folder of the runs.")
    sample_dir: Path = option(Path("samples"), "Folder of the samples.")
    overwrite: bool = option(False, "With --restore-from fresh: replace a run that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        _require(self.steps > 0, f"--steps must be 1 or more, not {self.steps}")
        _require(self.more is None or self.more > 0, f"--more must be 1 or more, not {self.more}")
        _require(self.batch_size > 0, f"--batch-size must be 1 or more, not {self.batch_size}")
        _require(self.learning_rate is None or self.learning_rate > 0, "--learning-rate must be above 0")
        _require(0 <= self.val_fraction < 1, f"--val-fraction must be from 0 to below 1, not {self.val_fraction}")
        _require(self.sample_num > 0, f"--sample-num must be 1 or more, not {self.sample_num}")
        _require(self.sample_length > 0, f"--sample-length must be 1 or more, not {self.sample_length}")
        for name in ("seed", "val_every", "print_every", "sample_every", "save_every"):
            _require(getattr(self, name) >= 0, f"--{name.replace('_', '-')} must be 0 or more")
        _choose("--record-tokens", self.record_tokens, None, "compact", "literal")
        _choose("--restore-from", self.restore_from, "latest", "fresh")
        _choose("--precision", self.precision, "auto", "float32", "bfloat16")
        _require_name("--run", self.run)
        _require_name("--model", self.model or "mini")


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    run: str = option("run1", "Name of the run, a folder in --checkpoint-dir.")
    category: str | None = option(None, "Category of the titles, as a subreddit.  [default: the model chooses]")
    keywords: str | None = option(None, "Keywords of the titles, between blanks or commas.  [default: none]")
    n: int = option(10, "How many titles.", "--n", "-n")
    temperature: float = option(0.7, "Below 1 makes likely words likelier; 0 takes the likeliest always.")
    top_k: int = option(40, "Draw each token from this many likeliest ones; 0: from all.")
    top_p: float = option(0.0, "Draw each token from the likeliest ones that make up this probability; 0: from all.")
    length: int = option(100, "The most tokens of a title.")
    batch_size: int = option(64, "Titles written at once. Another size gives other titles for the same seed.")
    seed: int | None = option(None, "Seed of the draws; the same seed gives the same titles.  [default: a new one]")
    out: Path | None = option(None, "File to write: .txt, .csv or .jsonl.  [default: the terminal]")
    checkpoint_dir: Path = option(Path("checkpoint"), "Folder of the runs.")
    overwrite: bool = option(False, "Replace an output that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        _require(self.n > 0, f"-n must be 1 or more, not {self.n}")
        _require(self.temperature >= 0, f"--temperature must be 0 or more, not {self.temperature}")
        _require(self.top_k >= 0, f"--top-k must be 0 or more, not {self.top_k}")
        _require(0 <= self.top_p <= 1, f"--top-p must be from 0 to 1, not {self.top_p}")
        _require(self.length > 0, f"--length must be 1 or more, not {self.length}")
        _require(self.batch_size > 0, f"--batch-size must be 1 or more, not {self.batch_size}")
        _require_name("--run", self.run)
