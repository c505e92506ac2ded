"""Stores the pages of posts downloaded so far in an append-only file, so that an interrupted download can continue.

The file has one line, a JSON object, per post. After the posts of each page comes a line with a JSON array that holds
the position reached. Lines after the last position are of an incomplete page; they are cut off when the file is opened.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Position:
    """How far the downloaded pages reach, and counts of their posts."""

    cursor: int
    """The latest created_utc, in Unix seconds; further posts of this second may still be missing."""
    posts: int = 0
    skipped: int = 0
    known: dict[str, int] = field(default_factory=dict)
    """The identifying key and the created_utc of each post of the last two seconds."""
    crowded: tuple[int, ...] = ()
    """Seconds (Unix) with more posts than a page holds, of which some are missing."""


class PageFile:
    """The file of one subreddit's pages; opening it cuts off an incomplete page."""

    def __init__(self, path: Path, start: int) -> None:
        self._path = path
        self.reached = Position(start)
        if path.exists():
            self._truncate_incomplete_page()

    def add(self, posts: Iterable[Mapping[str, Any]], reached: Position) -> None:
        """Append a page's posts and the position after it, and sync the file to disk."""
        lines = [json.dumps(post, ensure_ascii=False) for post in posts]
        lines.append(json.dumps([asdict(reached)]))
        with self._path.open("ab") as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
        self.reached = reached

    def copy_posts(self, path: Path) -> None:
        """Write the posts to `path`, without the positions."""
        with self._path.open("rb") as pages, path.open("wb") as file:
            file.writelines(line for line in pages if not line.startswith(b"["))

    def delete(self) -> None:
        self._path.unlink(missing_ok=True)

    def _truncate_incomplete_page(self) -> None:
        offset = end = 0
        with self._path.open("rb+") as file:
            for line in file:
                offset += len(line)
                if line.startswith(b"[") and (reached := _parse_position(line)):
                    end, self.reached = offset, reached
            file.truncate(end)


def _parse_position(line: bytes) -> Position | None:
    if not line.endswith(b"\n"):
        return None
    try:
        content = json.loads(line)[0]
        return Position(**content | {"crowded": tuple(content["crowded"])})
    except (ValueError, TypeError, LookupError):
        return None
