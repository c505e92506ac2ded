"""Signals that ask a command to end."""

import os
import signal
import subprocess
import sys
import time

import pytest

from redditgen.interrupts import ended_like_ctrl_c, held_back

ENDINGS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)


@pytest.mark.parametrize("number", ENDINGS)
def test_a_signal_is_a_question_between_two_steps(hangup: None, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with held_back() as interrupted:
        assert not interrupted()
        send(number)
        assert interrupted()
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", ENDINGS)
def test_every_signal_ends_like_ctrl_c(hangup: None, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), ended_like_ctrl_c():
        send(number)
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_ends_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), held_back():
        send(signal.SIGINT)
        send(signal.SIGINT)


def test_under_nohup_a_terminal_may_go() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_like_ctrl_c(), held_back() as interrupted:
            send(signal.SIGHUP)
            assert not interrupted()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("ending", ["let_a_second_ctrl_c_end_at_once", "let_ctrl_c_only_hasten"])
def test_ctrl_c_ends_at_once_what_is_ending(ending: str) -> None:
    """Also where the interpreter waits for a thread, which else ends with the signal or aborts."""
    program = f"""
import threading, time
from redditgen.interrupts import {ending}
{ending}(130)
threading.Thread(target=time.sleep, args=(60,)).start()
try:
    print("there", flush=True)
    "{ending}" == "let_ctrl_c_only_hasten" or time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout and process.stdout.readline() == "there\n"
        if ending == "let_a_second_ctrl_c_end_at_once":
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "interrupted\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
