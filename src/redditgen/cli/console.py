"""Standard output and error, whatever is at their other ends, and the messages that go to the latter."""

import contextlib
import datetime
import errno
import io
import itertools
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO, cast

from tqdm import tqdm

from redditgen.errors import InputError, OutputClosed, RedditgenError
from redditgen.files.atomic import make_folder, write_errors
from redditgen.runtime.http import redact_url
from redditgen.settings import GeneralSettings


class _Raw(io.RawIOBase):
    """What bytes of a standard stream pass through."""

    def __init__(self, stream: TextIO) -> None:
        """`stream` is used from here on for its file alone."""
        self._stream, buffer = stream, cast(Any, stream.buffer)  # kept, for a stream that is let go closes its file
        self._raw: io.RawIOBase = getattr(buffer, "raw", buffer)  # `python -u` has no buffer between
        self._is_lost = False

    def write(self, data: Any) -> int | None:
        if self._is_lost:
            return len(data)
        try:
            return self._raw.write(data)
        except OSError as error:
            self._is_lost = True  # What is still in the buffers is of no use either.
            self.lose(error)
            return len(data)

    def lose(self, error: OSError) -> None:
        """Bear what was not written; the rest is thrown away."""

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()

    def writable(self) -> bool:
        return True


class _Results(_Raw):
    """Standard output: results that can't be written end the work."""

    def lose(self, error: OSError) -> None:
        # Windows calls a broken pipe an invalid argument.
        if isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == errno.EINVAL):
            raise OutputClosed("standard output: nobody reads it any more") from error
        why = "it is closed" if error.errno == errno.EBADF else error.strerror
        raise InputError(f"standard output: can't be written: {why}") from error


def open_streams() -> None:
    """Standard output and error in UTF-8, for titles hold any character, in any locale.

    Messages that can't be written, as to a terminal that is gone, are lost and the work goes on; results are not: see
    ReaderGone and InputError. Streams that were closed at the start are like that from the beginning.
    """
    sys.stdin = sys.stdin or _opened(0, os.O_RDONLY)
    results = _Results(sys.stdout or _opened(1, os.O_RDONLY))
    sys.stdout = _text(results, by_line=results.isatty())
    sys.stderr = _text(_Raw(sys.stderr or _opened(2, os.O_WRONLY)), by_line=True)


def _opened(handle: int, flags: int) -> TextIO:
    """The null device in a closed stream's place, lest the next file that is opened gets its number.

    What is opened to be read alone can't be written to, so that results are not lost without a word.
    """
    taken = os.open(os.devnull, flags)
    os.set_inheritable(taken, True)
    return open(taken, "w" if handle else "r", closefd=False)


def _text(raw: _Raw, *, by_line: bool) -> "_Text":
    return _Text(io.BufferedWriter(raw), "utf8", "backslashreplace", line_buffering=by_line)


class _Text(io.TextIOWrapper):
    """A stream that --quiet makes one that nobody watches, so that no bar is shown on it."""

    is_watched = True

    def isatty(self) -> bool:
        return self.is_watched and super().isatty()


class _AboveTheBar(logging.Handler):
    """Messages on standard error, each on a line of its own, above a progress bar if there is one."""

    def __init__(self, settings: GeneralSettings) -> None:
        super().__init__(logging.WARNING if settings.quiet else logging.NOTSET)
        self._is_verbose = settings.verbose

    def emit(self, record: logging.LogRecord) -> None:
        text = _message(record)
        if record.levelno >= logging.ERROR and _is_ours(record):
            text = f"redditgen: {text}"
        elif self._is_verbose:
            text = f"{record.relativeCreated / 1000:8.3f} s  {text}"
        tqdm.write(text, file=sys.stderr)


class _JsonLines(logging.FileHandler):
    """A JSON object a line; what can't be written, as on a full disk, ends no work, but is said once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, mode="a", encoding="utf8", errors="backslashreplace")
        self._has_failed = False

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        return json.dumps(line, ensure_ascii=False)

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._has_failed:
            self._has_failed = True
            logging.getLogger(__name__).warning(
                "--log-json %s: can't be written: %s", self.baseFilename, sys.exception()
            )


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] == "redditgen"


def _message(record: logging.LogRecord) -> str:
    """A record's text; another library's in one line, with its name, and no secret in the addresses of httpx."""
    text = record.getMessage()
    if _is_ours(record):
        return text
    words = " ".join(redact_url(word) if "://" in word else word for word in text.split())
    return f"{record.name}: {words}"


def set_up_logging(settings: GeneralSettings) -> None:
    """Messages to standard error, and to a file if one is asked for; of other libraries warnings alone, or more."""
    root, ours = logging.getLogger(), logging.getLogger("redditgen")
    root.handlers = [_AboveTheBar(settings)]
    if settings.log_json:
        _log_to(settings.log_json)
    root.setLevel(logging.INFO if settings.verbose else logging.WARNING)
    ours.setLevel(logging.DEBUG if settings.verbose else logging.INFO)
    logging.captureWarnings(True)
    if isinstance(sys.stderr, _Text):
        sys.stderr.is_watched = not settings.quiet


def open_log_of_command_line(line: Sequence[str]) -> None:
    """Open the file that --log-json names in a command line that is wrong, if that was not yet done."""
    words = list(itertools.takewhile(lambda word: word != "--", line))
    named = [following for word, following in itertools.pairwise(words) if word == "--log-json"]
    named += [word.removeprefix("--log-json=") for word in words if word.startswith("--log-json=")]
    if named and not any(isinstance(handler, _JsonLines) for handler in logging.getLogger().handlers):
        with contextlib.suppress(RedditgenError):
            _log_to(Path(named[-1]))


def _log_to(path: Path) -> None:
    make_folder(path.parent)
    with write_errors(path):
        logging.getLogger().addHandler(_JsonLines(path))
