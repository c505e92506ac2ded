"""Imports that do without a module which what is imported would load besides."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder


@contextmanager
def import_blocked(module: str) -> Iterator[None]:
    """In the block, a module that is not loaded yet can't be imported, as if it were not installed.

    That holds for this thread: in others, and behind the block, it is imported as ever.
    """
    missing = _Missing(module)
    # Another thread may be going through the list that there is, so that one stays as it is.
    sys.meta_path = [missing, *sys.meta_path]
    try:
        yield
    finally:
        sys.meta_path = [finder for finder in sys.meta_path if finder is not missing]


class _Missing(MetaPathFinder):
    """Asked before all other finders, for modules that are not loaded."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == self._module and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
