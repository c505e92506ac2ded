"""How much memory of the machine is free, how much this process has taken, and how glibc gives memory back."""

import ctypes
import os
import sys
from pathlib import Path

_M_MMAP_THRESHOLD, _LARGE = -3, 1_000_000  # glibc's name of the option; bytes


def available_memory(processes: int = 1) -> int:
    """The bytes that each of some processes that start now could have of the machine's memory."""
    import psutil

    return min(
        int(psutil.virtual_memory().available) // processes + resident_memory(), _control_group_limit() // processes
    )


def resident_memory() -> int:
    """The bytes that this process has in memory now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def _control_group_limit() -> int:
    """The bytes that a container may have, by Linux's control groups (version 2); without a limit 2**63."""
    path = Path("/sys/fs/cgroup/memory.max")
    text = path.read_text().strip() if path.is_file() and os.access(path, os.R_OK) else ""
    return int(text) if text.isdigit() else 2**63


def return_freed_memory() -> None:
    """Have glibc return every large block to the system at once.

    By itself it keeps freed blocks of up to 32 MB, which at 124M's width are all activations, and finds too few of them
    fit for what comes next: LoRA of 124M's shape took 2.9 GB so, and 1.9 GB otherwise, in about the same time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)


def trim_heap() -> None:
    """Have glibc return to the system what threads that have ended left free, which adds up over many."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)
