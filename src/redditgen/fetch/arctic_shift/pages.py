"""The pages of posts that have come so far, in a file that only grows, so that a fetch that ends anywhere can go on.

The file has a line a post and, behind each page, a line in brackets that says how far the page goes. What stands behind
the last of these is a page that did not come whole.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Position:
    """How far the pages go, and what was in them."""

    cursor: int
    """The latest created_utc; other posts of the same second may be missing yet."""
    posts: int = 0
    skipped: int = 0
    known: dict[str, int] = field(default_factory=dict)
    """What tells a post from others, and its created_utc, for the posts of the last two seconds."""
    crowded: tuple[int, ...] = ()
    """Seconds with more posts than a page holds."""


class PageFile:
    """The file of one subreddit's pages; a page that did not come whole is cut off when it is opened."""

    def __init__(self, path: Path, start: int) -> None:
        self._path = path
        self.reached = Position(start)
        if path.exists():
            self._cut()

    def add(self, posts: Iterable[Mapping[str, Any]], reached: Position) -> None:
        lines = [json.dumps(post, ensure_ascii=False) for post in posts]
        lines.append(json.dumps([asdict(reached)]))
        with self._path.open("ab") as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
        self.reached = reached

    def copy_posts(self, path: Path) -> None:
        """Write the posts alone."""
        with self._path.open("rb") as pages, path.open("wb") as file:
            file.writelines(line for line in pages if not line.startswith(b"["))

    def delete(self) -> None:
        self._path.unlink(missing_ok=True)

    def _cut(self) -> None:
        place = end = 0
        with self._path.open("rb+") as file:
            for line in file:
                place += len(line)
                if line.startswith(b"[") and (reached := _parsed(line)):
                    end, self.reached = place, reached
            file.truncate(end)


def _parsed(line: bytes) -> Position | None:
    if not line.endswith(b"\n"):
        return None
    try:
        content = json.loads(line)[0]
        return Position(**content | {"crowded": tuple(content["crowded"])})
    except (ValueError, TypeError, LookupError):
        return None
