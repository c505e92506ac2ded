import logging
import re
import threading
import time
from collections.abc import Iterator

import pytest

from redditgen.runtime import progress


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "redditgen")
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0)
    return caplog


def test_where_there_is_no_terminal_a_line_is_said_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "redditgen")
    with progress.Progress("bake", unit="cakes", total=3) as bar:
        bar.update(1)
        assert caplog.messages == []
        monkeypatch.setattr(progress, "LINE_INTERVAL", 0)
        bar.update(1, "with jam")
    [line] = caplog.messages
    assert re.fullmatch(r"bake: 2 of 3 cakes, [\d.]+ a second, with jam", line)


def test_what_is_counted_comes_as_it_is_made(said: pytest.LogCaptureFixture) -> None:
    made = []

    def cakes() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number

    counted = progress.track(cakes(), "bake", unit="cakes", at_once=2)
    assert next(counted) == 0
    assert made == [0]
    assert list(counted) == [1, 2, 3, 4]
    assert [line.partition(",")[0] for line in said.messages] == ["bake: 2 cakes", "bake: 4 cakes"]


def test_what_can_not_be_counted_says_that_it_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "redditgen")
    before = threading.active_count()
    with progress.heartbeat("bake"):
        pass
    with progress.heartbeat("bake"):  # in less than 30 s
        time.sleep(0.1)
    assert caplog.messages == []
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0.01)
    with pytest.raises(ZeroDivisionError), progress.heartbeat("bake"):
        while len(caplog.messages) < 2:
            time.sleep(0.01)
        raise ZeroDivisionError
    assert all(re.fullmatch(r"bake goes on, \d+ s", line) for line in caplog.messages)
    assert threading.active_count() == before
