"""What asks a command to end, alike or as a question between two steps: Ctrl-C, SIGTERM, a terminal that is gone."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_signals() -> Iterator[Callable[[], bool]]:
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
def signals_raise_keyboard_interrupt() -> Iterator[None]:
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


def exit_on_second_ctrl_c(code: int) -> None:
    """From here on Ctrl-C interrupts once; the next one ends the process with `code`, as a kill would.

    It comes while the first one waits for libraries' threads, which abort where they are interrupted.
    """
    came = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came:
            os._exit(code)
        came = True
        raise KeyboardInterrupt

    _handle_ctrl_c(interrupt)


def exit_immediately_on_ctrl_c(code: int) -> None:
    """From here on, when all is done but for the interpreter's own end, Ctrl-C is the end, with the same code."""
    _handle_ctrl_c(lambda number, frame: os._exit(code))


def _handle_ctrl_c(handler: Callable[[int, FrameType | None], None]) -> None:
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as in the background of a shell
        signal.signal(signal.SIGINT, handler)


def _endings() -> list[signal.Signals]:
    """Signals that end a process; of them SIGHUP comes when an SSH session drops, but to nohup's child."""
    there = (number for number in signal.Signals if number.name in ("SIGTERM", "SIGHUP"))  # Windows lacks the latter
    return [number for number in there if signal.getsignal(number) != signal.SIG_IGN]
