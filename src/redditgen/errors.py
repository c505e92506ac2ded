"""What can go wrong, as one family: the command line catches it, prints its one line and exits.

    RedditgenError        exit 1
    ├── InputError        a file, column or record is not what it should be
    ├── MissingError      something that another command makes or fetches is not there
    ├── OutputExists      the output is already there and nothing says to replace it
    ├── UsageError        exit 2: the options contradict each other or the command line is wrong
    └── Interrupted       exit 130: Ctrl-C or SIGTERM, after everything was saved

Every message names what was looked for, where, and what to do.
"""


class RedditgenError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class InputError(RedditgenError):
    """A file, column or record is not what it should be."""


class MissingError(RedditgenError):
    """Something that another command makes or fetches is not there."""


class OutputExists(RedditgenError):
    """The output is already there and nothing says to replace it."""


class UsageError(RedditgenError):
    """The options contradict each other or hold a value out of range."""

    exit_code = 2


class Interrupted(RedditgenError):
    """Ctrl-C or SIGTERM ended the work, after everything was saved."""

    exit_code = 130
