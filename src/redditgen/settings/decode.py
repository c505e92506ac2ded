"""The options of `redditgen decode`."""

from pathlib import Path

from redditgen.settings import shared
from redditgen.settings.options import argument, command_settings, option, require
from redditgen.titles.record import SECTIONS


@command_settings
class DecodeSettings:
    input: Path = argument("Encoded or generated text.")
    out: Path | None = option(None, "File to write: .txt, .csv or .jsonl.  [default: the terminal]")
    sections: str = option("title", f"Sections to write, names between commas, of: {', '.join(SECTIONS)}.")
    partial: bool = option(
        False, "Decode also records without an end token, as far as they go; otherwise they are counted.", "--partial"
    )
    skip_existing: bool = shared.skip_existing()
    overwrite: bool = option(False, "Replace an output that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        require(self.out is not None or not self.skip_existing, "--skip-existing: is about a file; name one with --out")
        unknown = [name for name in self.names if name not in SECTIONS]
        require(not unknown, f"--sections: no section {', '.join(map(repr, unknown))}; there are {', '.join(SECTIONS)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The sections to write, in the order given, without duplicates."""
        return tuple(dict.fromkeys(name.strip() for name in self.sections.split(",")))
