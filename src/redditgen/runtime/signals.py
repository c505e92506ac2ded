"""Handlers for the signals that ask a command to end: SIGINT (Ctrl-C), SIGTERM, and SIGHUP (the terminal is closed).

Long work can either defer a signal and ask between two steps whether one has arrived, or be interrupted by it.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether a signal has arrived; the first signal does not interrupt the block.

    A Ctrl-C after that raises KeyboardInterrupt. Outside the main thread no handlers can be set, so the function always
    returns false.
    """
    has_arrived = False

    def record_signal(number: int, frame: FrameType | None) -> None:
        nonlocal has_arrived
        if has_arrived and number == signal.SIGINT:
            raise KeyboardInterrupt
        has_arrived = True

    try:
        previous = {number: signal.signal(number, record_signal) for number in (signal.SIGINT, *_termination_signals())}
    except ValueError:
        previous = {}
    try:
        yield lambda: has_arrived
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def signals_raise_keyboard_interrupt() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise KeyboardInterrupt in the block, as Ctrl-C does, so that child processes end too.

    Has no effect outside the main thread.
    """
    try:
        previous = {number: signal.signal(number, signal.default_int_handler) for number in _termination_signals()}
    except ValueError:  # outside the main thread, which gets no signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def exit_on_second_ctrl_c(code: int) -> None:
    """From now on, let the first Ctrl-C raise KeyboardInterrupt and the next one end the process with exit code `code`.

    The next one ends it without any clean-up: it arrives while the interpreter waits for the threads of libraries,
    which abort when they are interrupted.
    """
    has_arrived = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal has_arrived
        if has_arrived:
            os._exit(code)
        has_arrived = True
        raise KeyboardInterrupt

    _handle_ctrl_c(interrupt)


def exit_immediately_on_ctrl_c(code: int) -> None:
    """From now on, let Ctrl-C end the process with exit code `code`, without any clean-up.

    To be called when the command is done and only the interpreter has to end.
    """
    _handle_ctrl_c(lambda number, frame: os._exit(code))


def _handle_ctrl_c(handler: Callable[[int, FrameType | None], None]) -> None:
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # shells ignore it for background jobs
        signal.signal(signal.SIGINT, handler)


def _termination_signals() -> list[signal.Signals]:
    """Return SIGTERM and SIGHUP where they exist and are not ignored.

    SIGHUP arrives when an SSH session is closed; nohup makes its child ignore it.
    """
    existing = (number for number in signal.Signals if number.name in ("SIGTERM", "SIGHUP"))  # Windows has no SIGHUP
    return [number for number in existing if signal.getsignal(number) != signal.SIG_IGN]
