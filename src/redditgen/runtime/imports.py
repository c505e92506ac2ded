"""Blocks the import of a module that other modules would import although they can do without it."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder


@contextmanager
def import_blocked(module: str) -> Iterator[None]:
    """Make the import of a module raise ModuleNotFoundError in the block, unless the module is loaded already.

    Affects this thread only: other threads can import the module, and so can this one after the block.
    """
    blocking = _BlockingFinder(module)
    # Another thread may be iterating over the list, so it is replaced and not modified.
    sys.meta_path = [blocking, *sys.meta_path]
    try:
        yield
    finally:
        sys.meta_path = [finder for finder in sys.meta_path if finder is not blocking]


class _BlockingFinder(MetaPathFinder):
    """A finder, the first in sys.meta_path, that reports a module as not installed to one thread."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == self._module and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
