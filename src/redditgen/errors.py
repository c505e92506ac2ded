"""The errors that this package raises on purpose, as one hierarchy.

The command line catches RedditgenError, prints its message on one line and exits with the exit code of its class.

    RedditgenError        exit 1
    ├── InputError        a file, column or record is not as expected
    ├── MissingError      something that another command makes or downloads is missing
    ├── OutputExists      the output exists already, and nothing allows replacing it
    ├── UsageError        exit 2: the options contradict each other, or the command line is wrong
    │   └── UnusedOption  an option has no effect on the requested work
    ├── Interrupted       exit 130: Ctrl-C, SIGTERM or SIGHUP ended the work, after everything was saved
    └── OutputClosed      exit 141, without a message: the reader of standard output, such as `head`, has closed it

Every message says what was looked for, where, and what to do.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches

# A user may type a URL where a file name is expected; Path then reduces its two slashes to one.
_URL_LOGIN = re.compile(r"(\b[a-z][a-z0-9+.-]+:/{1,2})[^\s/?#]*@", re.IGNORECASE)
_URL_SECRET = re.compile(r"([?&][^\s=&]*(?:key|token|sig|signature|password|secret)=)[^\s&;,)']+", re.IGNORECASE)


class RedditgenError(Exception):
    """Base class of the errors that this package raises on purpose."""

    exit_code = 1

    def __str__(self) -> str:
        """Return the message on one line: control characters escaped, logins and keys in URLs removed or masked."""
        message = _URL_SECRET.sub(r"\1***", _URL_LOGIN.sub(r"\1", super().__str__()))
        return "".join(letter if letter.isprintable() else _escape(letter) for letter in message)


class InputError(RedditgenError):
    """A file, column or record is not as expected."""


class MissingError(RedditgenError):
    """Something that another command makes or downloads is missing."""


class OutputExists(RedditgenError):
    """The output exists already, and nothing allows replacing it."""


class UsageError(RedditgenError):
    """The options contradict each other or hold a value out of range."""

    exit_code = 2


class UnusedOption(UsageError):
    """An option has no effect on the requested work, such as an option of another source.

    In a config file this is no error, since one file may serve several kinds of work: the option is ignored.
    """

    def __init__(self, message: str, field: str) -> None:
        """`field` is the name of the option's field in the settings."""
        super().__init__(message)
        self.field = field


class Interrupted(RedditgenError):
    """Ctrl-C, SIGTERM or SIGHUP ended the work, after everything was saved."""

    exit_code = 130


class OutputClosed(RedditgenError):
    """Nobody reads standard output any more. A shell reports the same exit code for a program that SIGPIPE ends."""

    exit_code = 141


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" to append to a message about an unknown name, or "" where no known name is similar.

    Suggests the shortest known name that starts with `name`, else the most similar one. Leading dashes are ignored.
    """
    bare = {other.lstrip("-"): other for other in known}  # the dashes would count as similarity
    name = name.lstrip("-")
    matches = sorted((other for other in bare if other.startswith(name)), key=len) or get_close_matches(name, bare)
    return f"; did you mean {bare[matches[0]]}?" if matches else ""


def _escape(letter: str) -> str:
    """Return the character as Python escapes it: \\n, \\x1b, \\u2028."""
    return letter.encode("unicode_escape", "backslashreplace").decode("ascii")
