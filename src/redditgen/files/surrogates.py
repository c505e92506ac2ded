"""Half a surrogate pair, which JSON can hold, as \\ud83d, and which is no character: no file or tokenizer takes it."""

import gzip
import re
from pathlib import Path

_HALF = re.compile("[\ud800-\udfff]")
# An escape, not the second half of an escaped backslash; a whole pair is matched, and so passed over, before a half.
_ESCAPES = re.compile(
    rb"\\\\|(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)


def replace_surrogates(text: str) -> str:
    """The text with U+FFFD in the place of every half."""
    return _HALF.sub("\ufffd", text)


def copy_without_surrogates(path: Path, copy: Path) -> None:
    """Write a copy of NDJSON, not packed, with U+FFFD's escape in the place of every half's, which DuckDB refuses."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rb") as lines, copy.open("wb") as mended:
        for line in lines:
            mended.write(_ESCAPES.sub(_whole, line) if b"\\u" in line else line)


def _whole(found: "re.Match[bytes]") -> bytes:
    return rb"\ufffd" if found[2] else found[0]
