"""One way to show that long work goes on: a bar on a terminal, a plain line every 30 s anywhere else."""

import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

from tqdm import tqdm

LINE_INTERVAL = 30.0  # seconds
_AT_ONCE = 1000  # of what takes microseconds each

_Item = TypeVar("_Item")

_log = logging.getLogger(__name__)


class Progress:
    """Counts units of work under a name; use it in a `with` block and call `update`."""

    def __init__(self, name: str, *, unit: str, total: int | None = None, done: int = 0) -> None:
        self._name, self._unit, self._total, self._done = name, unit, total, done
        self._started = self._last_line = time.monotonic()
        self._at_start = done
        on_terminal = sys.stderr.isatty()
        self._bar = tqdm(desc=name, unit=f" {unit}", total=total, initial=done, disable=not on_terminal, leave=False)

    def update(self, count: int, note: str = "") -> None:
        """Say that `count` more units are done; `note` stands behind the numbers."""
        self._done += count
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(count)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= LINE_INTERVAL:
            self._last_line = now
            _log.info("%s", self._line(now, note))

    def _line(self, now: float, note: str) -> str:
        rate = (self._done - self._at_start) / (now - self._started)
        share = f" of {self._total}" if self._total else ""
        return f"{self._name}: {self._done}{share} {self._unit}, {rate:.1f} a second" + (f", {note}" if note else "")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


def track(
    items: Iterable[_Item], name: str, *, unit: str, total: int | None = None, at_once: int = _AT_ONCE
) -> Iterator[_Item]:
    """The items as they come, while it is shown how many there were, after every `at_once`."""
    with Progress(name, unit=unit, total=total) as progress:
        for number, item in enumerate(items, start=1):
            yield item
            if number % at_once == 0:
                progress.update(at_once)


@contextmanager
def heartbeat(name: str) -> Iterator[None]:
    """Say every 30 s that the block goes on, where nothing in it can be counted; on a terminal too."""
    started, ended = time.monotonic(), threading.Event()

    def tell() -> None:
        while not ended.wait(LINE_INTERVAL):
            _log.info("%s goes on, %.0f s", name, time.monotonic() - started)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
