"""The options of `redditgen encode`."""

import re
from pathlib import Path

from redditgen.settings import shared
from redditgen.settings.options import (
    argument,
    command_settings,
    option,
    require,
    require_at_least,
    require_auto_or_count,
    require_choice,
)
from redditgen.titles.spacy_keywords import DEFAULT_MODEL, DEFAULT_PHRASE_LENGTH_MAX


@command_settings
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
    keyword_length_max: int = option(
        DEFAULT_PHRASE_LENGTH_MAX, "A noun phrase must be shorter than this many characters to be a keyword."
    )
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
    spacy_model: str = option(DEFAULT_MODEL, "spaCy model that tags and parses.")
    workers: str = option(
        "auto", "Processes that run spaCy, through ray if more than one; auto: by the size of the input."
    )
    ray_address: str | None = option(
        None, "Run on a ray cluster that is there: auto, host:port or ray://host:port.  [default: start ray here]"
    )
    seed: int = option(0, "Seed of the draws, of the order and of the split: same seed, same file.")
    skip_existing: bool = shared.skip_existing()
    overwrite: bool = option(False, "Replace an output that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        require_at_least(1, self, "repeat")
        require_at_least(0, self, "min_keywords")
        require(self.max_keywords >= self.min_keywords, "--max-keywords must not be below --min-keywords")
        require_auto_or_count(self, "workers")
        require(self.keyword_sep != "", "--keyword-sep must not be empty")
        require(self.text_field != "", "--title-field and --body-field are both empty: there is nothing to learn from")
        require_choice("--compat", self.compat, None, "listing")
        require(not self.dynamic or self.output.suffix == ".jsonl", "--out must end in .jsonl with --dynamic")
        require(self.dynamic or self.output.suffix != ".jsonl", "--out: a .jsonl is written with --dynamic")
        require(len(self.shares) == self.split.count("="), f"--split {self.split}: names a part twice")
        require(0 < sum(self.shares.values()) < 1 or not self.split, f"--split {self.split}: must leave some titles")

    @property
    def text_field(self) -> str:
        """The column that a row must have text in to become a record: the title, else the body."""
        return self.title_field or self.body_field

    @property
    def output(self) -> Path:
        return self.out or self.input.with_name(f"{self.input.stem}_encoded{'.jsonl' if self.dynamic else '.txt'}")

    @property
    def outputs(self) -> list[Path]:
        """The main output, then the output of each part of `--split`."""
        path = self.output
        return [path, *(path.with_name(f"{path.stem}.{name}{path.suffix}") for name in self.shares)]

    @property
    def shares(self) -> dict[str, float]:
        """The parts of `--split`: the name of each, and its share of the titles, from 0 to 1."""
        return dict(_parse_share(text) for text in self.split.split(",")) if self.split else {}

    @property
    def records_per_title(self) -> int:
        """The number of records written for each title."""
        return 1 if self.dynamic else self.repeat


def _parse_share(text: str) -> tuple[str, float]:
    match = re.fullmatch(r"\s*([\w-]+)\s*=\s*([0-9]*\.?[0-9]+)\s*", text)
    require(match is not None, f"--split must be like val=0.02 or val=0.02,test=0.05, not {text!r}")
    assert match is not None
    return match[1], float(match[2])
