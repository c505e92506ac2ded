"""Signals that ask a command to end."""

import os
import signal
import subprocess
import sys
import time

import pytest

from redditgen.runtime.signals import deferred_signals, signals_raise_keyboard_interrupt

ENDINGS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)


@pytest.mark.parametrize("number", ENDINGS)
def test_a_signal_is_a_question_between_two_steps(hangup: None, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with deferred_signals() as interrupted:
        assert not interrupted()
        send(number)
        assert interrupted()
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", ENDINGS)
def test_every_signal_ends_like_ctrl_c(hangup: None, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), signals_raise_keyboard_interrupt():
        send(number)
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_ends_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), deferred_signals():
        send(signal.SIGINT)
        send(signal.SIGINT)


def test_under_nohup_a_terminal_may_go() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_raise_keyboard_interrupt(), deferred_signals() as interrupted:
            send(signal.SIGHUP)
            assert not interrupted()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("ending", ["exit_on_second_ctrl_c", "exit_immediately_on_ctrl_c"])
def test_ctrl_c_ends_at_once_what_is_ending(ending: str) -> None:
    """Also where the interpreter waits for a thread, which else ends with the signal or aborts."""
    program = f"""
import threading, time
from redditgen.runtime.signals import {ending}
{ending}(130)
threading.Thread(target=time.sleep, args=(60,)).start()
try:
    print("there", flush=True)
    "{ending}" == "exit_immediately_on_ctrl_c" or time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout and process.stdout.readline() == "there\n"
        if ending == "exit_on_second_ctrl_c":
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "interrupted\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
