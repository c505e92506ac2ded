"""NDJSON in which half a surrogate pair stands, as \\ud83d, which is no character and which DuckDB refuses."""

import gzip
import re
from pathlib import Path

# An escape, not the second half of an escaped backslash; a whole pair is matched, and so passed over, before a half.
_ESCAPES = re.compile(
    rb"\\\\|(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)


def mend(path: Path, copy: Path) -> None:
    """Write a copy, not packed, with U+FFFD in the place of every half."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rb") as lines, copy.open("wb") as mended:
        for line in lines:
            mended.write(_ESCAPES.sub(_whole, line) if b"\\u" in line else line)


def _whole(found: "re.Match[bytes]") -> bytes:
    return rb"\ufffd" if found[2] else found[0]
