"""Silences the logs of libraries, which may contain an account's name or a URL with a password."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loggers_silenced(*names: str) -> Iterator[None]:
    """Disable the loggers of these names in the block, and restore their levels after it."""
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in levels:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
