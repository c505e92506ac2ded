"""What asks a command to end, alike or as a question between two steps: Ctrl-C, SIGTERM, a terminal that is gone."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """Inside the block the first signal only makes the given function true; a second Ctrl-C ends at once.

    Outside the main thread, where no handler can be set, the function stays false.
    """
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came = True

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, *_endings())}
    except ValueError:
        before = {}
    try:
        yield lambda: came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """Inside the block SIGTERM interrupts as Ctrl-C does, so that processes that are waited for are ended too."""
    try:
        before = {number: signal.signal(number, signal.default_int_handler) for number in _endings()}
    except ValueError:  # outside the main thread, where signals don't arrive
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _endings() -> list[signal.Signals]:
    """Signals that end a process; of them SIGHUP comes when an SSH session drops, but to nohup's child."""
    there = (number for number in signal.Signals if number.name in ("SIGTERM", "SIGHUP"))  # Windows lacks the latter
    return [number for number in there if signal.getsignal(number) != signal.SIG_IGN]
