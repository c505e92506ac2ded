"""Standard output for results; standard error and log files for messages.

Results that can't be written end the work. Messages that can't be written, as to a closed terminal, are dropped.
"""

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


class _RawStream(io.RawIOBase):
    """The unbuffered bytes of a standard stream. After the first write error, all further data is discarded."""

    def __init__(self, stream: TextIO) -> None:
        """Write to the file of `stream`, which itself must not be written to any more."""
        self._stream, buffer = stream, cast(Any, stream.buffer)  # keeping it keeps the file open
        self._raw: io.RawIOBase = getattr(buffer, "raw", buffer)  # unbuffered under `python -u`
        self._has_failed = False

    def write(self, data: Any) -> int | None:
        if self._has_failed:
            return len(data)
        try:
            return self._raw.write(data)
        except OSError as error:
            self._has_failed = True  # the data still buffered is discarded too
            self.handle_write_error(error)
            return len(data)

    def handle_write_error(self, error: OSError) -> None:
        """Handle the first failed write: here the data is dropped silently; subclasses may raise."""

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()

    def writable(self) -> bool:
        return True


class _ResultStream(_RawStream):
    """Standard output: raises OutputClosed where the reader has gone, InputError where writing fails otherwise."""

    def handle_write_error(self, error: OSError) -> None:
        # Windows reports a broken pipe as an invalid argument.
        if isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == errno.EINVAL):
            raise OutputClosed("standard output: nobody reads it any more") from error
        reason = "it is closed" if error.errno == errno.EBADF else error.strerror
        raise InputError(f"standard output: can't be written: {reason}") from error


def open_streams() -> None:
    """Make standard output and error UTF-8 streams in any locale, since titles hold any character.

    Messages that can't be written, as to a closed terminal, are dropped and the work continues. Results that can't be
    written raise OutputClosed or InputError. This also holds for streams that were closed when the process started.
    """
    sys.stdin = sys.stdin or _open_null_device(0, os.O_RDONLY)
    results = _ResultStream(sys.stdout or _open_null_device(1, os.O_RDONLY))
    sys.stdout = _text_stream(results, line_buffered=results.isatty())
    sys.stderr = _text_stream(_RawStream(sys.stderr or _open_null_device(2, os.O_WRONLY)), line_buffered=True)


def _open_null_device(descriptor: int, flags: int) -> TextIO:
    """Open the null device in place of a closed stream, whose descriptor the next opened file would get otherwise.

    Standard output is opened with O_RDONLY: writing then fails, so that results are not lost silently.
    """
    opened = os.open(os.devnull, flags)
    os.set_inheritable(opened, True)
    return open(opened, "w" if descriptor else "r", closefd=False)


def _text_stream(raw: _RawStream, *, line_buffered: bool) -> "_TextStream":
    return _TextStream(io.BufferedWriter(raw), "utf8", "backslashreplace", line_buffering=line_buffered)


class _TextStream(io.TextIOWrapper):
    """A text stream; --quiet clears `is_interactive`, so that no progress bar is shown on it."""

    is_interactive = True

    def isatty(self) -> bool:
        return self.is_interactive and super().isatty()


class _ConsoleHandler(logging.Handler):
    """Writes messages to standard error, each on a line of its own, above the progress bar where one is shown."""

    def __init__(self, settings: GeneralSettings) -> None:
        super().__init__(logging.WARNING if settings.quiet else logging.NOTSET)
        self._is_verbose = settings.verbose

    def emit(self, record: logging.LogRecord) -> None:
        text = _format_message(record)
        if record.levelno >= logging.ERROR and _is_own_message(record):
            text = f"redditgen: {text}"
        elif self._is_verbose:
            text = f"{record.relativeCreated / 1000:8.3f} s  {text}"
        tqdm.write(text, file=sys.stderr)


class _JsonLinesHandler(logging.FileHandler):
    """Appends messages to a file, a JSON object per line. The first write error, as on a full disk, is logged once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, mode="a", encoding="utf8", errors="backslashreplace")
        self._has_warned = False

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _format_message(record),
        }
        return json.dumps(line, ensure_ascii=False)

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._has_warned:
            self._has_warned = True
            logging.getLogger(__name__).warning(
                "--log-json %s: can't be written: %s", self.baseFilename, sys.exception()
            )


def _is_own_message(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] == "redditgen"


def _format_message(record: logging.LogRecord) -> str:
    """Return a record's text. That of another library becomes one line, which starts with its logger's name.

    Secrets are removed from URLs, which httpx logs in full.
    """
    text = record.getMessage()
    if _is_own_message(record):
        return text
    words = " ".join(redact_url(word) if "://" in word else word for word in text.split())
    return f"{record.name}: {words}"


def set_up_logging(settings: GeneralSettings) -> None:
    """Log to standard error, and to the --log-json file if any; other libraries' warnings only, or more if verbose."""
    root, own = logging.getLogger(), logging.getLogger("redditgen")
    root.handlers = [_ConsoleHandler(settings)]
    if settings.log_json:
        _add_log_file(settings.log_json)
    root.setLevel(logging.INFO if settings.verbose else logging.WARNING)
    own.setLevel(logging.DEBUG if settings.verbose else logging.INFO)
    logging.captureWarnings(True)
    if isinstance(sys.stderr, _TextStream):
        sys.stderr.is_interactive = not settings.quiet


def open_log_of_command_line(line: Sequence[str]) -> None:
    """Open the --log-json file that a wrong command line names, unless it is open already or can't be opened."""
    words = list(itertools.takewhile(lambda word: word != "--", line))
    paths = [value for word, value in itertools.pairwise(words) if word == "--log-json"]
    paths += [word.removeprefix("--log-json=") for word in words if word.startswith("--log-json=")]
    if paths and not any(isinstance(handler, _JsonLinesHandler) for handler in logging.getLogger().handlers):
        with contextlib.suppress(RedditgenError):
            _add_log_file(Path(paths[-1]))


def _add_log_file(path: Path) -> None:
    make_folder(path.parent)
    with write_errors(path):
        logging.getLogger().addHandler(_JsonLinesHandler(path))
