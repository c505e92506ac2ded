#!/usr/bin/env python3
"""Compare the memory that plans are predicted to take with what they take, each in a process of its own.

    scripts/bench/memory.py                   what must train on a 4 GB card; measured where there is a GPU
    scripts/bench/memory.py --shape small     every kind of plan on a small model, on the CPU
    scripts/bench/memory.py --shape 124M      some plans of 124M's shape, on the CPU (mini: of mini's)

Weights are random. On a GPU each runs under a cap of 3.2 GB (torch.cuda.set_per_process_memory_fraction), which with
CUDA's context outside of it is a 4 GB card. On a CPU the peak is the process's own (VmHWM) less what it has before.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from redditgen.engines.pytorch.memory_plan import (
    Plan,
    PlanRequest,
    Workload,
    choose_plan,
    memory_by_phase,
    predict_peak,
    usable_memory,
)
from redditgen.files import bundled
from redditgen.gpt2.hyperparameters import Hyperparameters

CAP = usable_memory(4_000_000_000)
GIVEN_OUT = 0.96  # of what PyTorch's allocator reserves, which the cap is on
SHAPES = {
    "small": Hyperparameters(2048, 128, 128, 4, 4),
    "mini": Hyperparameters(8192, 256, 256, 4, 4),
    "124M": Hyperparameters(50257, 1024, 768, 12, 12),
    "355M": Hyperparameters(50257, 1024, 1024, 16, 24),
    "774M": Hyperparameters(50257, 1024, 1280, 20, 36),
    "1558M": Hyperparameters(50257, 1024, 1600, 25, 48),
}
TABLE: dict[str, dict[str, Any]] = {
    "124M": {"train": "full"},
    "355M": {"train": "full"},
    "774M": {"train": "lora"},
    "1558M": {"train": "lora", "weight_bits": 4},
}
EVERY_KIND = [
    Plan(),
    Plan(tokens=512),
    Plan(checkpointing=True),
    Plan(precision="bfloat16"),
    Plan(precision="float16"),
    Plan(optimizer_bits=8),
    Plan(precision="bfloat16", optimizer_bits=8),
    Plan(train="layers"),
    Plan(train="head"),
    Plan(train="lora"),
    Plan(train="lora", precision="bfloat16", weight_bits=16),
    *(Plan(train="lora", precision="bfloat16", weight_bits=bits, checkpointing=True) for bits in (8, 4)),
]
ON_A_CPU = [
    Plan(tokens=2048),
    Plan(tokens=512),
    Plan(tokens=2048, checkpointing=True),
    Plan(tokens=2048, precision="bfloat16"),
    Plan(tokens=2048, optimizer_bits=8, checkpointing=True),
    Plan(train="head", tokens=2048),
    Plan(train="lora", tokens=2048),
    Plan(train="lora", tokens=2048, precision="bfloat16", weight_bits=4),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("small", "mini", "124M"), help="on the CPU, instead of the table")
    parser.add_argument("--titles", type=Path, help="encoded text to learn  [default: made-up tokens]")
    parser.add_argument("--steps", type=int, help="[default: 50 on a GPU, 3 on a CPU]")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=64, help="tokens of the longest title")
    parser.add_argument("--precision", default="bfloat16", help="of the table's plans where there is no GPU")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(**json.loads(options.one))))
    elif options.shape:
        compare(options.shape, options)
    else:
        show_table(options)


def show_table(options: argparse.Namespace) -> None:
    """What must train on a 4 GB card."""
    import torch

    from redditgen.engines.pytorch.device import best_device, choose_precision

    has_gpu = torch.cuda.is_available()
    precision = choose_precision(best_device()) if has_gpu else options.precision
    print(f"batches of {options.batch} titles of at most {options.length} tokens, {CAP / 1e9:.2f} GB for tensors")
    if not has_gpu:
        print("no GPU here (torch.cuda.is_available() is False): predictions only")
    for name, asked in TABLE.items():
        work = Workload(SHAPES[name], options.batch, options.length, device="cuda")
        plan = choose_plan(work, PlanRequest(precision, **asked), int(CAP * GIVEN_OUT))
        print(row(name, work, plan, run(work, plan, options, options.steps or 50) if has_gpu else None), flush=True)


def compare(shape: str, options: argparse.Namespace) -> None:
    """Predicted and measured, on the CPU."""
    for plan in EVERY_KIND if shape == "small" else ON_A_CPU:
        work = Workload(SHAPES[shape], options.batch, options.length, device="cpu")
        print(row(shape, work, plan, run(work, plan, options, options.steps or 3)), flush=True)


def row(name: str, work: Workload, plan: Plan, found: dict[str, Any] | None) -> str:
    foreseen = predict_peak(work, plan)
    when = max((size, moment) for moment, size in memory_by_phase(work, plan).items())[1]
    text = f"{name:6} predicted {foreseen / 1e6:7.0f} MB ({when:8})"
    if found and "peak" in found:
        off = foreseen / found["peak"] - 1
        text += (
            f"  measured {found['peak'] / 1e6:7.0f} MB ({off:+4.0%})  loss {found['first']:.2f} to {found['last']:.2f}"
        )
    elif found:
        text += f"  failed: {found['failed']}"
    return f"{text}  {plan}"


def run(work: Workload, plan: Plan, options: argparse.Namespace, steps: int) -> dict[str, Any]:
    """Train in a process of its own; gives its peak and its first and last loss, or why it failed."""
    titles = str(options.titles) if options.titles else None
    job = json.dumps({"work": asdict(work), "plan": asdict(plan), "steps": steps, "titles": titles})
    done = subprocess.run([sys.executable, __file__, "--one", job], capture_output=True, text=True)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(work: dict[str, Any], plan: dict[str, Any], steps: int, titles: str | None) -> dict[str, Any]:
    import torch

    from redditgen.engines.base import default_learning_rate
    from redditgen.engines.pytorch.training import Training

    todo, hyperparameters = Plan(**plan), Hyperparameters(**work.pop("hparams"))
    doing = Workload(hyperparameters, **work)
    small = Hyperparameters(64, 16, 64, 2, 1)
    warm = replace(todo, tokens=None)  # libraries are loaded and threads started before anything is measured
    learn(Training(small, partial(random_tensors, small), rate=1e-4, end=9, plan=warm), [made_up(small, 2, 8)])
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_per_process_memory_fraction(CAP / torch.cuda.get_device_properties(0).total_memory)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_gpu else resident("VmRSS", reset=True)
    batches = from_titles(Path(titles), doing) if titles else made_up_batches(doing)
    rate = default_learning_rate(hyperparameters, todo.train)
    training = Training(hyperparameters, partial(random_tensors, hyperparameters), rate=rate, end=steps, plan=todo)
    losses = learn(training, islice(batches, steps))
    if not on_gpu:
        training.tensors()  # as for the disk
    peak = torch.cuda.max_memory_reserved() if on_gpu else resident("VmHWM")
    return {"peak": peak - before, "first": losses[0], "last": losses[-1], "plan": str(training.plan)}


def learn(training: Any, batches: Any) -> list[float]:
    return [training.step(number, batch) for number, batch in enumerate(batches, start=1)]


def resident(field: str, *, reset: bool = False) -> int:
    """A line of /proc/self/status in bytes; VmHWM is the peak since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(field)]
    return int(line.split()[1]) * 1024


def random_tensors(hyperparameters: Hyperparameters) -> dict[str, Any]:
    """As OpenAI's code draws them."""
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in hyperparameters.tensor_shapes().items():
        tensors[name] = rng.standard_normal(shape, np.float32)
        tensors[name] *= 0.02
        tensors[name] += name.endswith("/g")
    return tensors


def made_up(hyperparameters: Hyperparameters, rows: int, length: int, seed: int = 0) -> Any:
    """Inputs and targets of titles of few different tokens, so that there is something to learn."""
    import torch

    words = np.random.default_rng(seed).integers(min(64, hyperparameters.n_vocab), size=(rows, length + 1))
    tokens = torch.from_numpy(words)
    return tokens[:, :-1], tokens[:, 1:]


def made_up_batches(work: Workload) -> Iterator[Any]:
    for seed in cycle(range(50)):
        yield made_up(work.hyperparameters, work.batch, work.length, seed)


def from_titles(path: Path, work: Workload) -> Iterator[Any]:
    """Batches of real records, by mini's tokens, whose numbers every vocabulary has."""
    from redditgen.engines.data.epochs import training_batches
    from redditgen.engines.data.examples import tokenize_records
    from redditgen.gpt2.model_dir import ModelDir
    from redditgen.gpt2.run_info import COMPACT_TOKENS
    from redditgen.titles.record_reader import read_records

    tokenizer = ModelDir(bundled.path("models/mini")).tokenizer()
    some = islice(read_records(path), 20_000)
    learned = tokenize_records(some, tokenizer, COMPACT_TOKENS, work.length)
    return (batch for batch, _ in training_batches(0, learned, work.batch, 0, titles_only=False))


if __name__ == "__main__":
    main()
