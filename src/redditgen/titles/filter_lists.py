"""Lists that the filters use: subreddits to leave out, and words that are compiled into one regular expression.

A list is a text file with entries on lines and comments after `#`. In a word list, commas also separate entries; a `*`
at an end of an entry stands for any further letters and digits on that side, a blank for a blank, hyphen, underscore or
nothing, and `=` before an entry restricts it to lower case.
"""

import re
from collections import defaultdict
from pathlib import Path

from redditgen.errors import InputError, UsageError
from redditgen.files import bundled, user_folders
from redditgen.files.text import open_text

NSFW_SUBREDDITS = "data/nsfw_subreddits.txt"
NSFW_WORDS = "data/nsfw_words.txt"

_ENTRY = re.compile(r"=?\*?([a-z0-9]+(?:[ '_-][a-z0-9]+)*)\*?", re.IGNORECASE)

# The characters before and after a whole word: none, or one that is no letter or digit of any script. RE2's \b knows
# only ASCII letters and would match "anal" in "Analía".
_WORD_START, _WORD_END = r"(^|[^\p{L}\p{N}_])", r"([^\p{L}\p{N}_]|$)"
_NEVER_MATCHES = r"[^\x00-\x{10FFFF}]"


def blocked_subreddits(block: str, *, sfw: bool) -> list[str]:
    """Return the subreddits to leave out, in lower case and each once.

    `block` is the value of --block: names separated by commas, or a file with a name a line. `sfw` adds the bundled
    list of subreddits that are not safe for work. Raises UsageError where a name looks like a file that does not exist,
    InputError where the file can't be read.
    """
    path = user_folders.expand_home(Path(block))
    names = list(map(_subreddit_name, _read_entries(path) if path.is_file() else block.split(",")))
    for name in names:
        if "/" in name or Path(name).suffix not in ("", ".com"):  # r/reddit.com is a subreddit
            raise UsageError(f"--block: {name}: neither a subreddit's name nor a file that is there")
    bundled_names = map(_subreddit_name, _read_entries(bundled.path(NSFW_SUBREDDITS))) if sfw else ()
    return list(dict.fromkeys(filter(None, (*names, *bundled_names))))


def word_list_pattern(path: Path | None) -> str:
    """Return a list of words as one regular expression in RE2's syntax.

    `path` is a word list; None means the bundled one. The expression's three groups capture the character before or
    after a match, where there is one. Raises MissingError or InputError where the file can't be read, has no entry, or
    has an entry of another form.
    """
    path = path or bundled.path(NSFW_WORDS)
    entries = [entry.strip() for line in _read_entries(path) for entry in line.split(",") if entry.strip()]
    if not entries:
        raise InputError(f"{path}: no words in it; give another file with --words, or --no-sfw")
    patterns: dict[tuple[bool, bool], list[str]] = defaultdict(list)
    for entry in entries:
        patterns[entry.lstrip("=").startswith("*"), entry.endswith("*")].append(_entry_pattern(entry, path))
    # An open end of an entry adds nothing to the expression: to match the further letters with [a-z]* would make RE2 a
    # hundred times slower.
    whole, begins, ends, within = (
        "|".join(patterns[open_start, open_end]) or _NEVER_MATCHES
        for open_start in (False, True)
        for open_end in (False, True)
    )
    return f"(?i){_WORD_START}(?:{begins}|(?:{whole}){_WORD_END})|{within}|(?:{ends}){_WORD_END}"


def _entry_pattern(entry: str, path: Path) -> str:
    """Return the expression of one entry, without the boundaries of a whole word."""
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise InputError(
            f"{path}: {entry!r} is no word: letters a to z and digits, with a * at either end, a = before it, or "
            "blanks within; mend it"
        )
    pattern = match[1].lower().replace(" ", "[ _-]?")
    return f"(?-i:{pattern})" if entry.startswith("=") else pattern


def _subreddit_name(text: str) -> str:
    return text.strip().lower().removeprefix("/").removeprefix("r/")


def _read_entries(path: Path) -> list[str]:
    """Return the lines of a list that are not empty once comments are removed."""
    with open_text(path, made_by="--words needs a list, an entry a line") as file:  # a file of --block exists
        return [entry for line in file.read().splitlines() if (entry := line.partition("#")[0].strip())]
