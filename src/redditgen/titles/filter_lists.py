"""The lists behind the filters: subreddits to leave out, and words that are made one regular expression."""

import re
from collections import defaultdict
from pathlib import Path

from redditgen.errors import InputError, UsageError
from redditgen.files import bundled, user_folders
from redditgen.files.text import open_text

NSFW_SUBREDDITS = "data/nsfw_subreddits.txt"
NSFW_WORDS = "data/nsfw_words.txt"

_ENTRY = re.compile(r"=?\*?([a-z0-9]+(?:[ '_-][a-z0-9]+)*)\*?", re.IGNORECASE)

# What may stand around a whole word: no letter or digit of any script. RE2's \b knows only ASCII's, and would find
# "anal" in "Analía".
_BEFORE, _BEHIND = r"(^|[^\p{L}\p{N}_])", r"([^\p{L}\p{N}_]|$)"
_NOTHING = r"[^\x00-\x{10FFFF}]"


def blocked_subreddits(block: str, *, sfw: bool) -> list[str]:
    """The lower-case names of --block, which are names between commas or a file's lines; with `sfw` also our own list.

    Raises UsageError where a name can only be a file that is not there, InputError where the file can't be read.
    """
    path = user_folders.expand_home(Path(block))
    names = list(map(_name, _entries(path) if path.is_file() else block.split(",")))
    for name in names:
        if "/" in name or Path(name).suffix not in ("", ".com"):  # r/reddit.com is a subreddit
            raise UsageError(f"--block: {name}: neither a subreddit's name nor a file that is there")
    ours = map(_name, _entries(bundled.path(NSFW_SUBREDDITS))) if sfw else ()
    return list(dict.fromkeys(filter(None, (*names, *ours))))


def word_list_pattern(path: Path | None) -> str:
    """A list of words, by default our own, as one regular expression in RE2's syntax.

    Its three groups hold what stands around a hit. Raises InputError if the file is no such list, or an empty one.
    """
    path = path or bundled.path(NSFW_WORDS)
    entries = [entry.strip() for line in _entries(path) for entry in line.split(",") if entry.strip()]
    if not entries:
        raise InputError(f"{path}: no words in it; give another file with --words, or --no-sfw")
    kinds: dict[tuple[bool, bool], list[str]] = defaultdict(list)
    for entry in entries:
        kinds[entry.lstrip("=").startswith("*"), entry.endswith("*")].append(_expression(entry, path))
    # To match further letters only to be done with them, as [a-z]* would, makes RE2 a hundred times slower.
    whole, begins, ends, within = (
        "|".join(kinds[any_before, any_behind]) or _NOTHING
        for any_before in (False, True)
        for any_behind in (False, True)
    )
    return f"(?i){_BEFORE}(?:{begins}|(?:{whole}){_BEHIND})|{within}|(?:{ends}){_BEHIND}"


def _expression(entry: str, path: Path) -> str:
    """An entry without what makes it whole."""
    written = _ENTRY.fullmatch(entry)
    if written is None:
        raise InputError(
            f"{path}: {entry!r} is no word: letters a to z and digits, with a * at either end, a = before it, or "
            "blanks within; mend it"
        )
    expression = written[1].lower().replace(" ", "[ _-]?")
    return f"(?-i:{expression})" if entry.startswith("=") else expression


def _name(written: str) -> str:
    return written.strip().lower().removeprefix("/").removeprefix("r/")


def _entries(path: Path) -> list[str]:
    """The lines of a list, without comments."""
    with open_text(path, made_by="--words needs a list, an entry a line") as file:  # that of --block is there
        return [entry for line in file.read().splitlines() if (entry := line.partition("#")[0].strip())]
