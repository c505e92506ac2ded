"""The options of `redditgen generate`."""

import math
from pathlib import Path

from redditgen.settings import shared
from redditgen.settings.options import (
    command_settings,
    option,
    require,
    require_at_least,
    require_auto_or_count,
    require_choice,
    require_name,
    require_step,
)
from redditgen.titles.record import END_TOKEN


@command_settings
class GenerateSettings:
    run: str = shared.run()
    step: str | None = shared.step()
    engine: str = shared.engine()
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
    truncate: str = option(END_TOKEN, "With --prefix: cut each text where this stands; '' for the whole.")
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
    novel_threshold: float = shared.novel_threshold()
    unique: bool = option(True, "No title twice in an output.", "--unique/--no-unique")
    sfw: bool = option(True, "Leave out what fetch --sfw does, by words and categories.", "--sfw/--no-sfw")
    words: Path | None = option(None, "List of words for --sfw.  [default: data/nsfw_words.txt, which explains itself]")
    min_words: int | None = option(None, "Only titles of this many words or more.")
    max_words: int | None = option(None, "Only titles of this many words or fewer.")
    max_tries: int = option(200, "The most texts drawn a title, to find one that is wanted.")
    temperature: float = shared.temperature()
    top_k: int = shared.top_k()
    top_p: float = shared.top_p()
    repetition_penalty: float = option(1.0, "Above 1 makes tokens that a title has already less likely.")
    length: int = shared.length()
    precision: str = option(
        "auto", "What the weights are computed in: float32, or int8, about twice as fast and hardly worse; auto: int8."
    )
    batch_size: str = option(
        "auto",
        "Titles written at once; auto: by the size of the model. Another size gives other titles for the same seed.",
    )
    ray_address: str | None = option(
        None,
        "Write on a ray cluster that is there: auto, host:port or ray://host:port. At most 8 workers are busy at once, "
        "with a --batch-size each.  [default: write here]",
    )
    seed: int | None = option(None, "Seed of the draws; the same seed gives the same titles.  [default: a new one]")
    out: Path | None = option(None, "File to write: .txt, .csv or .jsonl.  [default: the terminal]")
    checkpoint_dir: Path = shared.checkpoint_dir()
    tf1_python: Path | None = shared.tf1_python()
    # Without effect: the same command continues an interrupted output anyway. Scripts of earlier versions pass it.
    resume: bool = option(False, "Has no effect; an interrupted output is continued anyway.", "--resume", hidden=True)
    skip_existing: bool = shared.skip_existing()
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
        require(self.out is not None or not self.skip_existing, "--skip-existing: is about a file; name one with --out")
        require_auto_or_count(self, "batch_size")
        require_step(self.step)
        require_choice("--engine", self.engine, *shared.ENGINES)
        require_choice("--precision", self.precision, "auto", "float32", "int8")
        require_name("--run", self.run)
        self._check_prompt_options()
        self._check_engine_options()

    @property
    def title_count(self) -> int:
        """The number of titles for each prompt given on the command line."""
        return 10 if self.n is None else self.n

    def _check_prompt_options(self) -> None:
        """Raise UsageError where prompts are given in several ways that exclude each other."""
        prompt_options = {
            "--category": self.category,
            "--keywords": self.keywords,
            "--keywords-from": self.keywords_from,
        }
        given = [option for option, value in prompt_options.items() if value is not None]
        for mode, is_chosen in {
            "--prefix": self.prefix is not None,
            "--prompts": self.prompts is not None,
            "--interactive": self.interactive,
        }.items():
            others = " and ".join(given)
            require(not (is_chosen and given), f"{mode}: stands for itself; leave out {others}, or {mode}")
            given += [mode] if is_chosen else []
        require(
            self.keywords is None or self.keywords_from is None,
            "--keywords-from: gives the keywords; leave out it or --keywords",
        )
        require(not self.interactive or self.out is None, "--interactive: writes to the terminal; leave out --out")
        has_no_keywords = self.prefix is not None or not (
            self.keywords or self.keywords_from is not None or self.prompts or self.interactive
        )
        require(
            not (self.require_keywords and has_no_keywords),
            "--require-keywords: needs keywords; give --keywords, --keywords-from or --prompts",
        )

    def _check_engine_options(self) -> None:
        """Raise UsageError where an option is set that gpt-2-simple lacks."""
        is_gpt2_simple = self.engine == "gpt-2-simple"
        require(
            not is_gpt2_simple or self.ray_address is None, "--ray-address: is for --engine torch alone; leave it out"
        )
        require(
            not is_gpt2_simple or self.precision != "int8", "--precision int8: gpt-2-simple computes in float32 alone"
        )
        require(
            not is_gpt2_simple or self.repetition_penalty == 1,
            "--repetition-penalty: gpt-2-simple has none; leave it out",
        )
