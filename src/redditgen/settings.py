"""The settings of every command: one frozen dataclass each, with its defaults, help texts and checks.

The command line makes its options from these fields (`min_score` is `--min-score`), so each is described once.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from redditgen.markup import END, SECTIONS
from redditgen.options import (
    argument,
    byte_count,
    choose,
    duration,
    option,
    require,
    require_at_least,
    require_name,
    require_step,
)

# Where gpt-2-simple 0.8 finds them.
OPENAI_URL = "https://openaipublic.blob.core.windows.net/gpt-2"
ARCTIC_SHIFT_URL = "https://arctic-shift.photon-reddit.com"
OPENAI_MODELS = ("124M", "355M", "774M", "1558M")

# The report's own list: subreddits whose titles are all the same.
REPORT_BLOCKLIST = "me_irl,2meirl4meirl,anime_irl,furry_irl,cursedimages"


ENGINES = ("torch", "gpt-2-simple")
ENGINE_HELP = "torch, or gpt-2-simple: the report's own, on TensorFlow 1.15 (redditgen doctor --install tf1)."
TF1_PYTHON_HELP = (
    "Python 3.7 that has TensorFlow 1.15.  [default: $REDDITGEN_TF1_PYTHON, else what doctor --install tf1 made]"
)

# Those that do not go with others, and the fields that say something to them alone.
_ONE_SOURCES = {
    "bigquery": ("project", "location", "table", "max_bytes", "dry_run", "job"),
    "arctic-shift": ("subreddit", "after", "before", "limit", "base_url", "refresh"),
}


@dataclass(frozen=True, kw_only=True)
class FetchSettings:
    source: tuple[str, ...] = option(
        ("sample",),
        "Where posts come from: 'sample' (synthetic posts that come with redditgen); a file of posts, .parquet, .csv "
        "or .ndjson (.jsonl, .json), the latter two also .gz, or a monthly dump, .zst; a folder or a quoted glob of "
        "them; 'bigquery'; or 'arctic-shift'. Repeatable.",
        "--from",
    )
    months: str | None = option(
        None, "Only files named for these months, as RS_2019-08.parquet: 2017_01:2019_02, or a single month."
    )
    mapping: tuple[str, ...] = option(
        (), "Column of a file that has another name: title=headline reads titles from headline. Repeatable.", "--map"
    )
    out: Path = option(
        Path("data/reddit_titles.csv"), "File to write: .csv, .parquet or .ndjson (.jsonl), with a row a title."
    )
    columns: str = option(
        "subreddit,title", "Columns to write, names between commas, as score, created_utc, id, author, num_comments."
    )
    min_score: int = option(5, "Only posts with this score or more decide which subreddits are the top ones.")
    top_subreddits: int = option(1000, "Keep this many subreddits, those with the most distinct authors.")
    per_subreddit: int = option(18, "Keep this many titles of each, those with the highest score.")
    min_length: int = option(8, "Leave out titles of fewer characters.")
    block: str = option(
        REPORT_BLOCKLIST, "Subreddits to leave out: names between commas, or a file with a name a line."
    )
    sfw: bool = option(
        True,
        "Leave out posts marked over 18, quarantined ones, a list of subreddits, and titles with words of a list.",
        "--sfw/--no-sfw",
    )
    words: Path | None = option(None, "List of words for --sfw.  [default: data/nsfw_words.txt, which explains itself]")
    review: bool = option(
        False,
        "Write nothing; print how many titles of each subreddit the word list hits, to find more for --block.",
        "--review",
    )
    sql: Path | None = option(
        None, "File with a query of your own, one SELECT in BigQuery Standard SQL; it is run as it is, without filters."
    )
    cache: Path | None = option(
        None, "Folder for what is imported from dumps and fetched from Arctic Shift.  [default: beside the dump; data/]"
    )
    project: str | None = option(
        None, "BigQuery: the Google Cloud project that pays.  [default: $GOOGLE_CLOUD_PROJECT, else the login's]"
    )
    location: str = option("US", "BigQuery: where the tables are kept.")
    table: str = option(
        "fh-bigquery.reddit_posts.2019_08", "BigQuery: table to read; with --months, any table of the dataset."
    )
    max_bytes: str = option("50GB", "BigQuery: refuse a query that would be billed for more, as 50GB or 1.5TiB.")
    dry_run: bool = option(False, "BigQuery: say what the query would cost, and stop.", "--dry-run")
    job: str | None = option(
        None, "BigQuery: id of a job that fetch ran before, to read its result again without paying."
    )
    subreddit: tuple[str, ...] = option((), "Arctic Shift: subreddits, names between commas. Repeatable.")
    after: str = option("", "Arctic Shift: posts since this date, as 2024-01-31, in UTC.")
    before: str = option("", "Arctic Shift: posts before this date.  [default: now]")
    limit: int = option(1000, "Arctic Shift: the first so many posts of each subreddit since --after.")
    base_url: str = option(ARCTIC_SHIFT_URL, "Arctic Shift: address of the server, or of one that answers alike.")
    refresh: bool = option(False, "Arctic Shift: ask anew for what was fetched before.", "--refresh")
    overwrite: bool = option(False, "Replace an output that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        for name in ("top_subreddits", "per_subreddit", "min_length"):
            require_at_least(1, self, name)
        for source in _ONE_SOURCES:
            require(
                source not in self.source or len(self.source) == 1, f"--from {source} does not go with other sources"
            )
        for useless, names, why in self._idle():
            if useless:
                self._refuse(names, why)
        require(
            self.source != ("arctic-shift",) or bool(self.subreddit and self.after),
            "--from arctic-shift needs --subreddit and --after",
        )

    def _idle(self) -> Iterator[tuple[bool, tuple[str, ...], str]]:
        """Fields that would do nothing: whether that is so here, which ones, and why, as it follows the option."""
        for source, names in _ONE_SOURCES.items():
            yield self.source != (source,), names, f"is for --from {source} alone"
        is_bigquery, is_own = self.source == ("bigquery",), self.sql is not None
        yield is_bigquery, ("mapping", "cache"), "is for files of posts; leave it out with --from bigquery"
        yield self.source == ("arctic-shift",), ("months",), "is for names of files; Arctic Shift has --after, --before"
        yield is_bigquery and is_own, ("table", "months"), "does not go with --sql: the query names its tables itself"
        yield is_own, ("columns", "review"), "does not go with --sql: the query names its columns and filters itself"
        yield self.review, ("out", "columns"), "does not go with --review, which writes no file"
        yield self.review, ("min_score", "top_subreddits", "per_subreddit"), "is not for --review: all titles count"
        yield not self.sfw, ("review", "words"), "is about what --sfw leaves out; leave out --no-sfw"
        yield self.job is not None, ("dry_run",), "does not go with --job, which reads a result and costs nothing"

    def _refuse(self, names: tuple[str, ...], why: str) -> None:
        for field in fields(self):
            flag, *_ = field.metadata["flags"] or (f"--{field.name.replace('_', '-')}",)
            require(field.name not in names or getattr(self, field.name) == field.default, f"{flag} {why}")


@dataclass(frozen=True, kw_only=True)
class EncodeSettings:
    input: Path = argument("File of titles: CSV with a header line, as fetch writes it, .parquet or .ndjson (.jsonl).")
    out: Path | None = option(
        None, "Encoded text to write.  [default: INPUT's name with _encoded.txt, or _encoded.jsonl with --dynamic]"
    )
    category_field: str = option("subreddit", "Column of the category; '' for none.")
    title_field: str = option("title", "Column of the title; '' for none.")
    body_field: str = option("", "Column of the body; '' for none.")
    keywords_field: str = option("", "Column of ready keywords, instead of finding them with spaCy.")
    keyword_gen: str | None = option(
        None, "Column in which spaCy looks for keywords.  [default: the title's, or the body's if there is no title]"
    )
    keyword_sep: str = option(",", "What stands between the keywords of --keywords-field.")
    keywords_list: Path | None = option(None, "File with a keyword a line: only these are keywords.")
    repeat: int = option(3, "Write each title this many times, each with another draw of its keywords.")
    min_keywords: int = option(0, "A draw holds at least this many keywords, where the title has them.")
    max_keywords: int = option(3, "A draw holds at most this many keywords.")
    keyword_length_max: int = option(20, "A noun phrase must be shorter than this many characters to be a keyword.")
    dynamic: bool = option(
        False,
        "Write each title once with all its keywords, as JSON a line; finetune draws from them anew every epoch.",
        "--dynamic",
    )
    split: str = option(
        "",
        "Write a share of the titles to another file, no title to both: val=0.02 makes NAME.val.txt beside NAME.txt.",
    )
    compat: str | None = option(
        None, "listing: find keywords as the report's script does, not as its text says (docs/encoding.md)."
    )
    spacy_model: str = option("en_core_web_sm", "spaCy model that tags and parses.")
    workers: str = option(
        "auto", "Processes that run spaCy, through ray if more than one; auto: by the size of the input."
    )
    ray_address: str | None = option(
        None, "Run on a ray cluster that is there: auto, host:port or ray://host:port.  [default: start ray here]"
    )
    seed: int = option(0, "Seed of the draws, of the order and of the split: same seed, same file.")
    overwrite: bool = option(False, "Replace an output that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        require_at_least(1, self, "repeat")
        require_at_least(0, self, "min_keywords")
        require(self.max_keywords >= self.min_keywords, "--max-keywords must not be below --min-keywords")
        require(
            re.fullmatch("auto|[1-9][0-9]*", self.workers) is not None,
            f"--workers must be auto or a number from 1, not {self.workers!r}",
        )
        require(self.keyword_sep != "", "--keyword-sep must not be empty")
        require(self.text_field != "", "--title-field and --body-field are both empty: there is nothing to learn from")
        choose("--compat", self.compat, None, "listing")
        require(not self.dynamic or self.output.suffix == ".jsonl", "--out must end in .jsonl with --dynamic")
        require(self.dynamic or self.output.suffix != ".jsonl", "--out: a .jsonl is written with --dynamic")
        require(0 < sum(self.shares.values()) < 1 or not self.split, f"--split {self.split}: must leave some titles")

    @property
    def text_field(self) -> str:
        """The column without whose text a row is not worth a record."""
        return self.title_field or self.body_field

    @property
    def output(self) -> Path:
        return self.out or self.input.with_name(f"{self.input.stem}_encoded{'.jsonl' if self.dynamic else '.txt'}")

    @property
    def outputs(self) -> list[Path]:
        """The output, then that of each share of `--split`."""
        path = self.output
        return [path, *(path.with_name(f"{path.stem}.{name}{path.suffix}") for name in self.shares)]

    @property
    def shares(self) -> dict[str, float]:
        """What `--split` says: names and their shares of the titles."""
        return dict(_share(text) for text in self.split.split(",")) if self.split else {}

    @property
    def copies(self) -> int:
        """How many records a title makes."""
        return 1 if self.dynamic else self.repeat


def _share(text: str) -> tuple[str, float]:
    found = re.fullmatch(r"\s*([\w-]+)\s*=\s*([0-9]*\.?[0-9]+)\s*", text)
    require(found is not None, f"--split must be like val=0.02 or val=0.02,test=0.05, not {text!r}")
    assert found is not None
    return found[1], float(found[2])


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    input: Path = argument("Encoded or generated text.")
    out: Path | None = option(None, "File to write: .txt, .csv or .jsonl.  [default: the terminal]")
    sections: str = option("title", f"Sections to write, names between commas, of: {', '.join(SECTIONS)}.")
    partial: bool = option(
        False, "Decode also records without an end token, as far as they go; otherwise they are counted.", "--partial"
    )
    overwrite: bool = option(False, "Replace an output that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        unknown = [name for name in self.names if name not in SECTIONS]
        require(not unknown, f"--sections: no section {', '.join(map(repr, unknown))}; there are {', '.join(SECTIONS)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The asked sections in the order asked, each once."""
        return tuple(dict.fromkeys(name.strip() for name in self.sections.split(",")))


@dataclass(frozen=True, kw_only=True)
class TokenizeSettings:
    dataset: Path = argument("Encoded text, a CSV of one column, or plain text; or a folder or a quoted glob of them.")
    out: Path | None = option(None, ".npz to write.  [default: DATASET's name with .npz]")
    model: str = option("mini", "Model whose tokens to write: a folder in --model-dir, mini, or the path of a folder.")
    record_tokens: str = option(
        "literal", "literal, as gpt-2-simple reads them; compact: start and end of a record are one token each."
    )
    combine: int = option(50_000, "Join files until they have this many characters.")
    model_dir: Path = option(Path("models"), "Folder of the base models.")
    overwrite: bool = option(False, "Replace an output that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        require_at_least(1, self, "combine")
        choose("--record-tokens", self.record_tokens, "literal", "compact")
        has_name = self.dataset.name not in ("", "..") and not set("*?") & set(self.dataset.name)
        require(self.out is not None or has_name, f"--out: is needed, since {self.dataset} is no name for a file")
        require(self.output.suffix == ".npz", f"--out must end in .npz, not {self.output}")

    @property
    def output(self) -> Path:
        return self.out or self.dataset.with_suffix(".npz")


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    dataset: Path = argument(
        "Encoded text or JSONL, as encode writes it; or a CSV of one column, a .npz of tokens, or plain text; "
        "or a folder or a quoted glob of such files."
    )
    engine: str = option("torch", ENGINE_HELP)
    model: str | None = option(
        None,
        "Base model: a folder in --model-dir, mini, which comes with redditgen, or the path of a folder of OpenAI's or "
        "Hugging Face's layout.  [default: the run's; mini for a new one]",
    )
    run: str = option("run1", "Name of the run, a folder in --checkpoint-dir.")
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
    loss_on: str = option(
        "record", "What the loss is made of: record, all of each; title, its title and end, given the rest of it."
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
    model_dir: Path = option(Path("models"), "Folder of the base models.")
    checkpoint_dir: Path = option(Path("checkpoint"), "Folder of the runs.")
    sample_dir: Path = option(Path("samples"), "Folder of the samples.")
    tf1_python: Path | None = option(None, TF1_PYTHON_HELP)
    overwrite: bool = option(False, "With --restore-from fresh: replace a run that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        for name in ("steps", "sample_num", "sample_length", "combine"):
            require_at_least(1, self, name)
        for name in ("more", "batch_size", "accumulate_gradients"):
            require_at_least(1, self, name)
        for name in ("seed", "val_every", "print_every", "sample_every", "save_every", "max_checkpoints"):
            require_at_least(0, self, name)
        require_at_least(0, self, "min_keywords")
        require(self.draws[0] <= self.draws[1], "--max-keywords must not be below --min-keywords")
        require_at_least(2, self, "window")
        require(self.learning_rate is None or self.learning_rate > 0, "--learning-rate must be above 0")
        require(0 <= self.val_fraction < 1, f"--val-fraction must be from 0 to below 1, not {self.val_fraction}")
        choose("--engine", self.engine, *ENGINES)
        self._check_ends()
        choose("--optimizer", self.optimizer, "adam", "sgd")
        choose("--record-tokens", self.record_tokens, None, "compact", "literal")
        choose("--precision", self.precision, "auto", "float32", "bfloat16", "float16")
        self._check_plan()
        choose("--loss-on", self.loss_on, "record", "title")
        takes_titles = self.engine == "torch" or self.loss_on == "record"
        require(takes_titles, "--loss-on title: gpt-2-simple learns all of each record; leave it out")
        require_name("--run", self.run)

    def _check_plan(self) -> None:
        """What learns, and in how much memory."""
        choose("--train", self.train, "auto", "full", "layers", "head", "lora")
        has_bits = self.weight_bits in (None, 4, 8, 16, 32)
        require(has_bits, f"--weight-bits must be 4, 8, 16 or 32, not {self.weight_bits}")
        require_at_least(1, self, "lora_rank")
        if self.memory is not None:
            byte_count("--memory", self.memory)
        one_of_both = not self.only_train_transformer_layers or self.train in ("auto", "layers")
        require(one_of_both, f"--only-train-transformer-layers is --train layers; leave out --train {self.train}")
        for name in ("lora_rank", "weight_bits"):
            is_of_use = getattr(self, name) is None or self.train in ("auto", "lora")
            require(is_of_use, f"--{name.replace('_', '-')} is for --train lora")
        if self.engine != "torch":
            has_more = self.memory is not None or self.train not in ("auto", "full", "layers")
            require(not has_more, "--train and --memory: gpt-2-simple trains full or layers, in what that takes")

    @property
    def trained(self) -> str | None:
        """What --train says to learn, None for auto."""
        if self.only_train_transformer_layers:
            return "layers"
        asks_for_lora = self.lora_rank is not None or self.weight_bits is not None
        return {"auto": "lora" if asks_for_lora else None}.get(self.train, self.train)

    def _check_ends(self) -> None:
        """What is asked of the held-out loss and of the time."""
        require_at_least(1, self, "early_stop")
        measures = self.val_every > 0 and (self.val is not None or self.val_fraction > 0)
        for flag, is_given in (("--keep-best", self.keep_best), ("--early-stop", self.early_stop is not None)):
            require(measures or not is_given, f"{flag}: needs held-out titles, measured by --val-every")
            require(self.engine == "torch" or not is_given, f"{flag}: is for --engine torch alone; leave it out")
        has_limit = self.seconds is not None
        require(self.engine == "torch" or not has_limit, "--time-limit: is for --engine torch alone; leave it out")

    @property
    def seconds(self) -> int | None:
        """What --time-limit says."""
        return None if self.time_limit is None else duration("--time-limit", self.time_limit)

    @property
    def draws(self) -> tuple[int, int]:
        """The fewest and the most keywords that are drawn for a title."""
        return self.min_keywords or 0, 3 if self.max_keywords is None else self.max_keywords


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    run: str = option("run1", "Name of the run, a folder in --checkpoint-dir.")
    step: str | None = option(
        None,
        "Step of the run, of those kept, or best: that of the lowest held-out loss (finetune --keep-best).  "
        "[default: the newest]",
    )
    engine: str = option("torch", ENGINE_HELP)
    category: str | None = option(None, "Category of the titles, as a subreddit.  [default: the model chooses]")
    keywords: str | None = option(None, "Keywords of the titles, between blanks or commas.  [default: none]")
    keywords_from: str | None = option(
        None, "Instead of keywords a title, whose keywords encode finds; each new title gets three of them at most."
    )
    prompts: Path | None = option(
        None, "File of prompts, .csv or .jsonl: columns category, keywords and n, of which each may be absent or empty."
    )
    interactive: bool = option(
        False, "Ask at the terminal for category and keywords, again and again.", "--interactive"
    )
    prefix: str | None = option(
        None,
        "Raw text to go on from, instead of category and keywords; texts are then kept as they come, but for --sfw.",
    )
    truncate: str = option(END, "With --prefix: cut each text where this stands; '' for the whole.")
    include_prefix: bool = option(False, "With --prefix: write it too.", "--include-prefix")
    sample_delim: str = option("", "Text to write behind each title's line, in .txt and on the terminal.")
    label: bool = option(
        False, "Mark each title as synthetic, in .txt and on the terminal; tables say so anyway.", "--label"
    )
    n: int | None = option(None, "How many titles.  [default: 10; with --prompts 1 a row that says no n]", "--n", "-n")
    require_keywords: bool = option(
        False, "Only titles that hold all the keywords asked for, as spaCy's lemmas tell.", "--require-keywords"
    )
    novel: bool | None = option(
        None,
        "Leave out copies of titles that the run has learned from.  [default: where the run has a list of them]",
        "--novel/--no-novel",
    )
    novel_threshold: float = option(
        0.8, "How alike a title and one learned from must be for a near copy: 1 for the same three-letter runs."
    )
    unique: bool = option(True, "No title twice in an output.", "--unique/--no-unique")
    sfw: bool = option(True, "Leave out what fetch --sfw does, by words and categories.", "--sfw/--no-sfw")
    words: Path | None = option(None, "List of words for --sfw.  [default: data/nsfw_words.txt, which explains itself]")
    min_words: int | None = option(None, "Only titles of this many words or more.")
    max_words: int | None = option(None, "Only titles of this many words or fewer.")
    max_tries: int = option(200, "The most texts drawn a title, to find one that is wanted.")
    temperature: float = option(0.7, "Below 1 makes likely words likelier; 0 takes the likeliest always.")
    top_k: int = option(40, "Draw each token from this many likeliest ones; 0: from all.")
    top_p: float = option(0.0, "Draw each token from the likeliest ones that make up this probability; 0: from all.")
    repetition_penalty: float = option(1.0, "Above 1 makes tokens that a title has already less likely.")
    length: int = option(100, "The most tokens of a title.")
    precision: str = option(
        "auto", "What the weights are computed in: float32, or int8, about twice as fast and hardly worse; auto: int8."
    )
    batch_size: str = option(
        "auto",
        "Titles written at once; auto: by the size of the model. Another size gives other titles for the same seed.",
    )
    seed: int | None = option(None, "Seed of the draws; the same seed gives the same titles.  [default: a new one]")
    out: Path | None = option(None, "File to write: .txt, .csv or .jsonl.  [default: the terminal]")
    checkpoint_dir: Path = option(Path("checkpoint"), "Folder of the runs.")
    tf1_python: Path | None = option(None, TF1_PYTHON_HELP)
    resume: bool = option(
        False, "Go on with an output that a kill cut short, as the same command does without it.", "--resume"
    )
    overwrite: bool = option(False, "Replace an output that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        require(self.n is None or self.n > 0, f"-n must be 1 or more, not {self.n}")
        require(self.temperature >= 0, f"--temperature must be 0 or more, not {self.temperature}")
        require(self.top_k >= 0, f"--top-k must be 0 or more, not {self.top_k}")
        require(0 <= self.top_p <= 1, f"--top-p must be from 0 to 1, not {self.top_p}")
        require(self.repetition_penalty > 0, f"--repetition-penalty must be above 0, not {self.repetition_penalty}")
        for name in ("length", "max_tries", "min_words", "max_words"):
            require_at_least(1, self, name)
        require((self.max_words or math.inf) >= (self.min_words or 0), "--max-words must not be below --min-words")
        require(self.sfw or self.words is None, "--words is about what --sfw leaves out; leave out --no-sfw")
        require(0 < self.novel_threshold <= 1, f"--novel-threshold must be above 0, to 1, not {self.novel_threshold}")
        require(
            re.fullmatch("auto|[1-9][0-9]*", self.batch_size) is not None,
            f"--batch-size must be auto or a number from 1, not {self.batch_size!r}",
        )
        require_step(self.step)
        choose("--engine", self.engine, *ENGINES)
        choose("--precision", self.precision, "auto", "float32", "int8")
        require_name("--run", self.run)
        self._require_one_way_to_ask()
        self._require_of_engine()

    @property
    def number(self) -> int:
        """How many titles of each prompt of the command line."""
        return 10 if self.n is None else self.n

    def _require_one_way_to_ask(self) -> None:
        asked = {"--category": self.category, "--keywords": self.keywords, "--keywords-from": self.keywords_from}
        given = [option for option, value in asked.items() if value is not None]
        for way, is_taken in {
            "--prefix": self.prefix is not None,
            "--prompts": self.prompts is not None,
            "--interactive": self.interactive,
        }.items():
            others = " and ".join(given)
            require(not (is_taken and given), f"{way}: stands for itself; leave out {others}, or {way}")
            given += [way] if is_taken else []
        require(
            self.keywords is None or self.keywords_from is None,
            "--keywords-from: gives the keywords; leave out it or --keywords",
        )
        require(not self.interactive or self.out is None, "--interactive: writes to the terminal; leave out --out")
        is_without = self.prefix is not None or not (
            self.keywords or self.keywords_from is not None or self.prompts or self.interactive
        )
        require(
            not (self.require_keywords and is_without),
            "--require-keywords: needs keywords; give --keywords, --keywords-from or --prompts",
        )

    def _require_of_engine(self) -> None:
        is_upstream = self.engine == "gpt-2-simple"
        require(not is_upstream or self.precision != "int8", "--precision int8: gpt-2-simple computes in float32 alone")
        require(
            not is_upstream or self.repetition_penalty == 1, "--repetition-penalty: gpt-2-simple has none; leave it out"
        )


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    run: str = option("run1", "Name of the run, a folder in --checkpoint-dir.")
    step: str | None = option(
        None,
        "Step of the run, of those kept, or best: that of the lowest held-out loss (finetune --keep-best).  "
        "[default: the newest]",
    )
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
    temperature: float = option(0.7, "Below 1 makes likely words likelier; 0 takes the likeliest always.")
    top_k: int = option(40, "Draw each token from this many likeliest ones; 0: from all.")
    top_p: float = option(0.0, "Draw each token from the likeliest ones that make up this probability; 0: from all.")
    length: int = option(100, "The most tokens of a title.")
    precision: str = option(
        "auto", "What the weights are sampled in: float32 or int8; auto: int8. Losses are always measured in float32."
    )
    batch_size: str = option("auto", "Titles sampled at once; auto: by the size of the model.")
    novel_threshold: float = option(
        0.8, "How alike a title and one learned from must be for a near copy: 1 for the same three-letter runs."
    )
    words: Path | None = option(
        None, "List of words that are not safe for work.  [default: data/nsfw_words.txt, which explains itself]"
    )
    out: Path | None = option(
        None, "Folder for evaluation.json and evaluation.html.  [default: evaluation in the run's folder]"
    )
    checkpoint_dir: Path = option(Path("checkpoint"), "Folder of the runs.")
    overwrite: bool = option(False, "Replace an evaluation that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        require(self.n > 0, f"-n must be 1 or more, not {self.n}")
        require_at_least(0, self, "sample_seed")
        require(
            self.against is not None or self.val is not None,
            f"--against: is needed: the dataset that run {self.run} was finetuned on, or --val FILE of held-out titles",
        )
        require(self.against is None or self.val is None, "--val: is measured instead of --against; leave out one")
        _ = self.generating, self.finetuned  # which check what they take over

    @property
    def output(self) -> Path:
        return self.out or self.checkpoint_dir / self.run / "evaluation"

    @property
    def generating(self) -> GenerateSettings:
        """How the texts are sampled: whatever the model writes, without a filter."""
        names = ("run", "step", "temperature", "top_k", "top_p", "length", "precision", "batch_size", "novel_threshold")
        taken = {name: getattr(self, name) for name in (*names, "checkpoint_dir")}
        return GenerateSettings(**taken, seed=self.sample_seed, unique=False, novel=False, sfw=False)

    @property
    def finetuned(self) -> FinetuneSettings:
        """What says which titles finetune held out."""
        names = ("run", "val", "val_fraction", "seed", "min_keywords", "max_keywords", "checkpoint_dir")
        dataset = self.against or self.val
        assert dataset is not None
        return FinetuneSettings(dataset=dataset, **{name: getattr(self, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    run: str | None = option(None, "Name of the run, a folder in --checkpoint-dir.  [default: run1]")
    step: str | None = option(
        None,
        "Step of the run, of those kept, or best: that of the lowest held-out loss (finetune --keep-best).  "
        "[default: the newest]",
    )
    model: str | None = option(None, "Instead of a run: a base model, by its name in --model-dir or its folder's path.")
    to: str = option(
        "hf",
        "hf: Hugging Face's layout, for transformers; ct2: CTranslate2's; tf: a base model in OpenAI's, for "
        "gpt-2-simple and for finetune --model.",
    )
    out: Path | None = option(None, "Folder to write.  [default: exports/RUN-TO]")
    checkpoint_dir: Path = option(Path("checkpoint"), "Folder of the runs.")
    model_dir: Path = option(Path("models"), "Folder of the base models.")
    overwrite: bool = option(False, "Replace an export that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        require_step(self.step)
        choose("--to", self.to, "hf", "ct2", "tf")
        require(self.model is None or self.run is None, "--model: is exported instead of a run; leave out it or --run")
        require(self.model is None or self.step is None, "--step: base models have none; leave it out with --model")
        require(self.out is None or self.out.name not in ("", ".."), f"--out must name a folder, not {self.out}")
        require_name("--run", self.run_name)

    @property
    def run_name(self) -> str:
        return "run1" if self.run is None else self.run

    @property
    def name(self) -> str:
        """The name of what is exported, run or model."""
        return self.run_name if self.model is None else Path(self.model).resolve().name

    @property
    def output(self) -> Path:
        return self.out or Path("exports") / f"{self.name}-{self.to}"


@dataclass(frozen=True, kw_only=True)
class DownloadSettings:
    model: str = argument(f"One of OpenAI's models: {', '.join(OPENAI_MODELS)}.")
    base_url: str = option(OPENAI_URL, "Where to download from; the files lie below it as models/NAME/FILE.")
    model_dir: Path = option(Path("models"), "Folder of the base models.")
    overwrite: bool = option(False, "Download anew and replace a model that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        choose("MODEL", self.model, *OPENAI_MODELS)
        # Not shown: there may be a password in it.
        is_web = re.match(r"https?://[^/?#]", self.base_url, re.IGNORECASE)
        require(is_web is not None, "--base-url must begin with https:// or http:// and name a server")


@dataclass(frozen=True, kw_only=True)
class DoctorSettings:
    install: str | None = option(
        None, "tf1: make the Python 3.7 environment with TensorFlow 1.15 for --engine gpt-2-simple, instead of looking."
    )
    python: Path | None = option(
        None, "With --install: the Python 3.7 to make it with.  [default: from PATH, pyenv or uv]"
    )
    tf1_python: Path | None = option(None, TF1_PYTHON_HELP)
    model_dir: Path = option(Path("models"), "Folder of the base models.")

    def __post_init__(self) -> None:
        choose("--install", self.install, None, "tf1")
        require(self.python is None or self.install is not None, "--python needs --install tf1")
