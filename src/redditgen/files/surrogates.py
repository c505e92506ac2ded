"""Replaces lone surrogates, halves of UTF-16 surrogate pairs, by U+FFFD.

JSON can hold them, written as \\ud83d for example, but they are no characters: they can't be written to a UTF-8 file or
tokenized.
"""

import gzip
import re
from pathlib import Path

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# Matches escaped backslashes and surrogate pairs first, so that those are skipped; the last group is the escape of a
# lone surrogate.
_SURROGATE_ESCAPE = re.compile(
    rb"\\\\|(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)


def replace_surrogates(text: str) -> str:
    """Return a text with every lone surrogate replaced by U+FFFD."""
    return _LONE_SURROGATE.sub("\ufffd", text)


def copy_without_surrogates(path: Path, copy: Path) -> None:
    """Write an uncompressed copy of an NDJSON file, which may be gzipped, with the escapes of lone surrogates replaced.

    DuckDB refuses lone surrogates.
    """
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rb") as lines, copy.open("wb") as target:
        for line in lines:
            target.write(_SURROGATE_ESCAPE.sub(_replace_lone, line) if b"\\u" in line else line)


def _replace_lone(match: "re.Match[bytes]") -> bytes:
    return rb"\ufffd" if match[2] else match[0]
