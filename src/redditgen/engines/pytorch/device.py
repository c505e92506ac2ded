"""What torch computes on: its precision, its free memory, and how it says that there is none left."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from redditgen.runtime.memory import available_memory, resident_memory

if TYPE_CHECKING:
    import torch

# Of PyTorch's allocator on the CPU, and of the CUDA libraries that allocate beside it.
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


def best_device() -> "torch.device":
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_precision(device: "torch.device", asked: str = "auto") -> str:
    """The precision asked for; for auto the fastest that the hardware computes in itself."""
    import torch

    if asked != "auto":
        return asked
    if computes_in_bfloat16(device):
        return "bfloat16"
    # Cards before Volta compute in float16 at a fraction of their speed, and so do CPUs.
    is_volta = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)
    return "float16" if is_volta else "float32"


def computes_in_bfloat16(device: "torch.device") -> bool:
    """Whether the hardware multiplies bfloat16 itself, three times as fast as float32 on the CPUs that do."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def available_device_memory(device: "torch.device", processes: int = 1) -> int:
    """Bytes that each of some processes that begin now could have: what others have left of its card or the machine."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory(processes)


def peak_device_memory(device: "torch.device") -> int:
    """The most bytes that this process has had at once: of a card's memory, or of the machine's."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf8").splitlines() if status.is_file() else []
    return max([1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")], default=resident_memory())


def limit_kernel_caches() -> None:
    """Have oneDNN, and PyTorch's layer above it, keep few of the kernels that they make for each size of a batch.

    By themselves they keep 1,024 each, and a run of mini grew to 2.6 GB in 300 s. With 32 it stays below 0.9 and is no
    slower (scripts/bench/finetune.py). Both read it when they compute first.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, "32")


def is_out_of_memory(error: BaseException) -> bool:
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)
