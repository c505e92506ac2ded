"""What libraries log, kept to themselves: it may name an account, or an address with a password."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loggers_silenced(*names: str) -> Iterator[None]:
    """Keep what libraries log off the terminal."""
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in levels:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
