"""The device that torch computes on: its fastest precision, its free and used memory, and its out-of-memory errors."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from redditgen.runtime.memory import available_memory, resident_memory

if TYPE_CHECKING:
    import torch

# Messages of PyTorch's CPU allocator, and of CUDA libraries that allocate memory of their own.
_OUT_OF_MEMORY_MESSAGES = ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


def best_device() -> "torch.device":
    """Return the current CUDA device where there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_precision(device: "torch.device", requested: str = "auto") -> str:
    """Return the requested precision, or for `auto` the fastest that the hardware supports.

    That is bfloat16 where the hardware multiplies it, else float16 on CUDA cards from Volta on, else float32.
    """
    import torch

    if requested != "auto":
        return requested
    if computes_in_bfloat16(device):
        return "bfloat16"
    # Cards before Volta, and CPUs, compute in float16 at a fraction of their float32 speed.
    has_fast_float16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)
    return "float16" if has_fast_float16 else "float32"


def computes_in_bfloat16(device: "torch.device") -> bool:
    """Return whether the hardware multiplies bfloat16 natively; CPUs that do are three times as fast as in float32."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def available_device_memory(device: "torch.device", processes: int = 1) -> int:
    """Return the bytes that each of `processes` starting now can use.

    On CUDA this is the free memory of the process's own card; on the CPU it is a share of the machine's memory.
    """
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory(processes)


def peak_device_memory(device: "torch.device") -> int:
    """Return the peak memory of this process in bytes: on the card as PyTorch reserved it, or on the CPU as resident.

    Where the system has no /proc, the CPU's figure is the present resident memory.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf8").splitlines() if status.is_file() else []
    return max([1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")], default=resident_memory())


def limit_kernel_caches() -> None:
    """Limit the caches of compiled kernels, one for each batch shape, in oneDNN and in PyTorch's layer above it.

    Each keeps 1,024 kernels by default, with which a run of mini grew to 2.6 GB in 300 s. With 32 it stays below 0.9 GB
    and is no slower (scripts/bench/finetune.py). Both libraries read the limit at their first computation, so this must
    be called before it.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, "32")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that the device or the machine has no memory left."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _OUT_OF_MEMORY_MESSAGES)
