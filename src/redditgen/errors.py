"""What can go wrong, as one family: the command line catches it, prints its one line and exits.

    RedditgenError        exit 1
    ├── InputError        a file, column or record is not what it should be
    ├── MissingError      something that another command makes or fetches is not there
    ├── OutputExists      the output is already there and nothing says to replace it
    ├── UsageError        exit 2: the options contradict each other or the command line is wrong
    │   └── IdleOption    an option is for something else than what is asked for
    ├── Interrupted       exit 130: Ctrl-C, SIGTERM or SIGHUP, after everything was saved
    └── ReaderGone        exit 141, without a word: what read the results, as `head` does, has seen enough

Every message names what was looked for, where, and what to do.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches

# An address may have been typed where a file should be named; Path makes one slash of its two.
_LOGIN = re.compile(r"(\b[a-z][a-z0-9+.-]+:/{1,2})[^\s/?#]*@", re.IGNORECASE)
_KEY = re.compile(r"([?&][^\s=&]*(?:key|token|sig|signature|password|secret)=)[^\s&;,)']+", re.IGNORECASE)


class RedditgenError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1

    def __str__(self) -> str:
        """The message on one line that does nothing to a terminal, and without the secrets of addresses in it."""
        message = _KEY.sub(r"\1***", _LOGIN.sub(r"\1", super().__str__()))
        return "".join(letter if letter.isprintable() else _escaped(letter) for letter in message)


class InputError(RedditgenError):
    """A file, column or record is not what it should be."""


class MissingError(RedditgenError):
    """Something that another command makes or fetches is not there."""


class OutputExists(RedditgenError):
    """The output is already there and nothing says to replace it."""


class UsageError(RedditgenError):
    """The options contradict each other or hold a value out of range."""

    exit_code = 2


class UnusedOption(UsageError):
    """An option is for something else than what is asked for; a file that is for both may hold it."""

    def __init__(self, message: str, field: str) -> None:
        """`field` is that of the settings."""
        super().__init__(message)
        self.field = field


class Interrupted(RedditgenError):
    """Ctrl-C, SIGTERM or SIGHUP ended the work, after everything was saved."""

    exit_code = 130


class OutputClosed(RedditgenError):
    """Nobody reads standard output any more; a shell shows the same for a program that SIGPIPE ends."""

    exit_code = 141


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What to add to a message about an unknown name: the known one that it begins, or else is near to, if any."""
    bare = {other.lstrip("-"): other for other in known}  # or else the dashes of options would look alike
    name = name.lstrip("-")
    near = sorted((other for other in bare if other.startswith(name)), key=len) or get_close_matches(name, bare)
    return f"; did you mean {bare[near[0]]}?" if near else ""


def _escaped(letter: str) -> str:
    """As Python writes it: \\n, \\x1b, \\u2028."""
    return letter.encode("unicode_escape", "backslashreplace").decode("ascii")
