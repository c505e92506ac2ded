"""Shows the progress of long work: a tqdm bar on a terminal, a log line every 30 s elsewhere."""

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
_ITEMS_PER_UPDATE = 1000  # items between updates, for items that take microseconds each

_Item = TypeVar("_Item")

_log = logging.getLogger(__name__)


class Progress:
    """A progress display that counts units of work. Use it in a `with` block and call `update`.

    `total` is the number of units where it is known; `done` is how many were done before.
    """

    def __init__(self, name: str, *, unit: str, total: int | None = None, done: int = 0) -> None:
        self._name, self._unit, self._total, self._done = name, unit, total, done
        self._started = self._last_line = time.monotonic()
        self._initial = done
        on_terminal = sys.stderr.isatty()
        self._bar = tqdm(desc=name, unit=f" {unit}", total=total, initial=done, disable=not on_terminal, leave=False)

    def update(self, count: int, note: str = "") -> None:
        """Add `count` to the units that are done; `note` is shown after the numbers."""
        self._done += count
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(count)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= LINE_INTERVAL:
            self._last_line = now
            _log.info("%s", self._line(now, note))

    def _line(self, now: float, note: str) -> str:
        rate = (self._done - self._initial) / (now - self._started)
        of_total = f" of {self._total}" if self._total else ""
        return f"{self._name}: {self._done}{of_total} {self._unit}, {rate:.1f} a second" + (f", {note}" if note else "")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


def track(
    items: Iterable[_Item], name: str, *, unit: str, total: int | None = None, at_once: int = _ITEMS_PER_UPDATE
) -> Iterator[_Item]:
    """Yield the items, and show how many there have been; updates the display after every `at_once` items."""
    with Progress(name, unit=unit, total=total) as progress:
        for number, item in enumerate(items, start=1):
            yield item
            if number % at_once == 0:
                progress.update(at_once)


@contextmanager
def heartbeat(name: str) -> Iterator[None]:
    """Log every 30 s that the block is still running, also on a terminal. For work that has nothing to count."""
    started, ended = time.monotonic(), threading.Event()

    def log_until_ended() -> None:
        while not ended.wait(LINE_INTERVAL):
            _log.info("%s goes on, %.0f s", name, time.monotonic() - started)

    thread = threading.Thread(target=log_until_ended, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
