#!/usr/bin/env python3
"""Finetune with gpt-2-simple, transformers' Trainer and redditgen: speed, memory, and what each has learned by then.

    scripts/bench/finetune.py encoded.txt --model mini --seconds 300
    scripts/bench/finetune.py encoded.txt --model 124M --vocabulary FOLDER --seconds 240 --rounds 2

All begin from one TensorFlow checkpoint and learn the same titles, those that redditgen would not hold out, each in a
process of its own, with its own defaults and the time's end as its only bound: gpt-2-simple itself (not redditgen's
worker) as its README calls it, Trainer as a chat assistant or its documentation would set it up, one record a sequence,
and `redditgen finetune`. 124M has random weights and the vocabulary of FOLDER (encoder.json, vocab.bpe). To
gpt-2-simple mini is called 124M too, or it would freeze mini's embeddings as it does those of large models. Its default
batch is one window of 1,024 tokens, five of them a step.

Tokens are those of the records, padding left out, also where the loss is made of the titles alone, as it is by default
in redditgen; titles are those tokens by the mean that a title has of the peer's own ones, since gpt-2-simple spells
start and end of a record out. Speeds are of the steps after the first that have nothing else in them; `all in` counts
samples, saves and measurements too. Tokens a second of processor time stand beside them, which other programs on the
machine slow down less. Memory is the largest resident size. With mini held-out bits a character are measured, of all by
the same code on the same titles.

Trainer needs accelerate, which redditgen does not: pip install accelerate
gpt-2-simple needs TensorFlow 1.15: redditgen doctor --install tf1
"""

import argparse
import importlib.util
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from encode import below, kilobytes
from memory import SHAPES, random_tensors
from padding import epoch, share

from redditgen.engines.data.examples import tokenize_records
from redditgen.engines.gpt2simple import tf1_environment
from redditgen.engines.gpt2simple.interpreters import clean_environment
from redditgen.engines.pytorch.device import best_device
from redditgen.engines.pytorch.memory_plan import Plan
from redditgen.engines.pytorch.network import load_network
from redditgen.errors import RedditgenError
from redditgen.files import bundled
from redditgen.gpt2.formats.hugging_face import HuggingFaceDir
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.run_info import COMPACT_TOKENS, LITERAL_TOKENS
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.titles.record import Record, build
from redditgen.titles.record_reader import read_records
from redditgen.titles.splits import is_held_out

CORES = len(os.sched_getaffinity(0))
SAMPLED_EVERY = 0.5  # seconds
AFTERWARDS = 600  # seconds that a peer gets to save and measure in when its time is up
HELD_OUT = 0.02  # as redditgen finetune
UPSTREAM, TRAINER, OURS = "gpt-2-simple", "Trainer", "redditgen"
TOKENS_A_STEP = 5 * 1023  # targets of gpt-2-simple's five windows
STEP = re.compile(r"\[(\d+) \|(?:.* (\d+) tokens$)?")

COLUMNS = (
    *("peer", "first step, s", "steps", "tokens/s", "of it", "titles/s", "of it", "all in", "tokens/core-s", "of it"),
    *("positions/s", "tokens a title", "GB", "of it", "bits/char"),
)

RUN_UPSTREAM = """
import signal, sys, gpt_2_simple as gpt2
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job would ignore
sess = gpt2.start_tf_sess()
gpt2.finetune(sess, sys.argv[1], model_name="124M", run_name="gpt-2-simple")
"""
RUN_TRAINER = """
import sys, time
from transformers import (
    AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments,
)
dataset, model, out, deadline, *rate = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(model)
tokenizer.pad_token = tokenizer.eos_token
with open(dataset, encoding="utf8") as file:
    lines = [line.rstrip("\\n").replace("<|startoftext|>", tokenizer.bos_token) for line in file]
ids = tokenizer(lines, truncation=True, max_length=1024)["input_ids"]
titles = [{"input_ids": row, "labels": row} for row in ids]
# Not DataCollatorForLanguageModeling: with eos as padding it would take the end of each title out of the loss.
collate, learned = DataCollatorForSeq2Seq(tokenizer), []

def counted(rows):
    learned.append((learned[-1] if learned else 0) + sum(len(row["input_ids"]) - 1 for row in rows))
    return collate(rows)

class Until(TrainerCallback):
    def on_step_end(self, args, state, control, **more):
        print(f"[{state.global_step} | {learned[state.global_step - 1]} tokens", flush=True)
        control.should_training_stop = time.monotonic() >= float(deadline)

trainer = Trainer(
    AutoModelForCausalLM.from_pretrained(model),
    TrainingArguments(out, disable_tqdm=True, **({"learning_rate": float(rate[0])} if rate else {})),
    data_collator=counted, train_dataset=titles, processing_class=tokenizer, callbacks=[Until()],
)
trainer.train()
trainer.save_model(out)
"""


Line = tuple[float, float, str]  # second and processor second at which it was said


@dataclass(frozen=True)
class Peer:
    name: str
    record_tokens: str
    command: Callable[[Path, float], list[str | Path]]  # by the folder to work in and the seconds to take
    run: str  # folder of what it saves
    has_more: Callable[[int], bool]  # whether it samples, saves or measures in the time of a step


@dataclass(frozen=True)
class Step:
    number: int
    at: float  # seconds since the process was started
    cpu: float  # the same of its processor time
    tokens: int  # learned by then


@dataclass(frozen=True)
class Found:
    peer: str
    steps: list[Step]
    pure: tuple[float, float, float]  # tokens, seconds, processor seconds of the steps that were nothing else
    peak: int  # bytes
    a_title: float  # tokens
    padding: float
    bits: float | None

    @property
    def tokens(self) -> float:
        return self.pure[0] / self.pure[1]

    @property
    def by_cpu(self) -> float:
        return self.pure[0] / self.pure[2]

    @property
    def titles(self) -> float:
        return self.tokens / self.a_title

    @property
    def all_in(self) -> float:
        first, last = self.steps[0], self.steps[-1]
        return (last.tokens - first.tokens) / (last.at - first.at)


def peers(python: Path | None, rate: str | None, loss_on: str | None) -> dict[str, Peer]:
    def upstream(folder: Path, seconds: float) -> list[str | Path]:
        code = RUN_UPSTREAM.replace('"124M"', f'"124M", learning_rate={rate}') if rate else RUN_UPSTREAM
        return [python or "", "-c", code, folder / "train.txt"]

    def trainer(folder: Path, seconds: float) -> list[str | Path]:
        given = [rate] if rate else []
        deadline = str(time.monotonic() + seconds)
        return [sys.executable, "-c", RUN_TRAINER, folder / "train.txt", folder / "hf", "trained", deadline, *given]

    def ours(folder: Path, seconds: float) -> list[str | Path]:
        options = ["--model=124M", "--run=redditgen", "--steps=1000000", f"--time-limit={seconds:.0f}s"]
        options += ["--print-every=1", f"--val={folder / 'val.txt'}", *([f"--learning-rate={rate}"] if rate else [])]
        options += [f"--loss-on={loss_on}"] if loss_on else []
        return [sys.executable, "-m", "redditgen", "finetune", folder / "train.txt", *options]

    found = (
        Peer(UPSTREAM, LITERAL_TOKENS, upstream, "checkpoint/gpt-2-simple", lambda step: step % 100 == 1),
        Peer(TRAINER, COMPACT_TOKENS, trainer, "trained", lambda step: step % 500 == 1),
        Peer(OURS, COMPACT_TOKENS, ours, "checkpoint/redditgen", lambda step: step % 50 == 1 or step % 100 == 0),
    )
    return {peer.name: peer for peer in found}


# --- What all of them begin with ---


def prepare(dataset: Path, model: str, vocabulary: Path, folder: Path) -> list[Record]:
    """Write the titles to learn and the model in both layouts; gives the held-out records."""
    sides: tuple[list[Record], list[Record]] = ([], [])
    for record in read_records(dataset):
        sides[is_held_out(record.title or "", HELD_OUT, 0)].append(record)
    for name, side in zip(("train.txt", "val.txt"), sides, strict=True):
        (folder / name).write_text("".join(f"{build(record)}\n" for record in side), encoding="utf8")
    base = folder / "models/124M"
    if model == "mini":
        shutil.copytree(bundled.path("models/mini"), base)
    else:
        ModelDir(base).write_base(SHAPES[model], Tokenizer.load(vocabulary), random_tensors(SHAPES[model]))
    export = [sys.executable, "-m", "redditgen", "export", f"--model={base}", "--to=hf", f"--out={folder / 'hf'}"]
    subprocess.run(export, check=True, stderr=subprocess.DEVNULL)
    return sides[1]


def padding_of(peer: Peer, lengths: np.ndarray) -> float:
    """Share of what is computed that is padding, of an epoch."""
    if peer.name == UPSTREAM:
        return 0.0
    if peer.name == OURS:
        return share(lengths, epoch(lengths, 32, 0))
    shuffled = np.random.default_rng(0).permutation(len(lengths))
    return share(lengths, [shuffled[at : at + 8] for at in range(0, len(shuffled), 8)])


# --- One peer ---


def measure(peer: Peer, folder: Path, seconds: float, held_out: Sequence[Record] | None) -> Found:
    """Run a peer for a time, counted from the start of its process."""
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    (work / "models").symlink_to(folder / "models")
    lines, peak = watched(peer, folder, work, seconds)
    base = ModelDir(folder / "models/124M")
    steps = steps_of(peer, lines, work / peer.run / "metrics.jsonl")
    pure = [
        (step.tokens - before.tokens, step.at - before.at, step.cpu - before.cpu)
        for before, step in itertools.pairwise(steps)
        if not peer.has_more(step.number)
    ]
    learned = tokenize_records(
        read_records(folder / "train.txt"), base.tokenizer(), peer.record_tokens, base.hyperparameters().n_ctx
    )
    lengths = learned.sequences.lengths
    saved = (HuggingFaceDir if peer.name == TRAINER else ModelDir)(work / peer.run)
    return Found(
        peer=peer.name,
        steps=steps,
        pure=tuple(np.sum(pure, axis=0).tolist()),
        peak=peak,
        a_title=float(lengths.mean()) + (1 if peer.name == UPSTREAM else -1),  # a line break; what is no target
        padding=padding_of(peer, lengths),
        bits=bits_a_character(saved, peer.record_tokens, held_out) if held_out else None,
    )


def watched(peer: Peer, folder: Path, work: Path, seconds: float) -> tuple[list[Line], int]:
    """What a peer says, and its largest resident size."""
    # Threads that spin while they wait would measure whatever else the machine does.
    variables = {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}
    usual = clean_environment() if peer.name == UPSTREAM else dict(os.environ)
    env = {name: value for name, value in (usual | variables).items() if name != "OMP_NUM_THREADS"}
    began, lines = time.monotonic(), list[Line]()
    process = subprocess.Popen(
        peer.command(folder, seconds), cwd=work, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    watch = Watch(process)
    watch.start()
    timers = [threading.Timer(seconds + AFTERWARDS, process.kill)]
    if peer.name == UPSTREAM:  # which knows no other end
        timers.append(threading.Timer(seconds, process.send_signal, [signal.SIGINT]))
    for timer in timers:
        timer.start()
    try:
        assert process.stdout
        used = psutil.Process(process.pid).cpu_times
        for line in process.stdout:
            lines.append((time.monotonic() - began, sum(used()[:2]), line.rstrip()))
        code = process.wait()
    finally:
        for timer in timers:
            timer.cancel()
        process.kill()
        watch.ended.set()
        watch.join()
    if code:
        sys.exit(f"{peer.name} ended with {code}:\n" + "\n".join(line for *_, line in lines[-20:]))
    return lines, watch.peak


class Watch(threading.Thread):
    """Samples the memory of a process and all below it."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        super().__init__(daemon=True)
        self.root, self.peak, self.ended = process.pid, 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(SAMPLED_EVERY):
            resident = sum(kilobytes(pid, "status", "VmRSS:") for pid in below([self.root]))
            self.peak = max(self.peak, resident << 10, kilobytes(self.root, "status", "VmHWM:") << 10)


def steps_of(peer: Peer, lines: Sequence[Line], metrics: Path) -> list[Step]:
    matches = [(at, cpu, match) for at, cpu, line in lines if (match := STEP.match(line))]
    counts = {}
    if metrics.exists():
        reports = map(json.loads, metrics.read_text(encoding="utf8").splitlines())
        counts = {report["step"]: report["tokens"] for report in reports}
    found = []
    for at, cpu, match in matches:
        number, tokens = int(match[1]), match[2]
        learned = int(tokens) if tokens else counts.get(number, number * TOKENS_A_STEP)
        found.append(Step(number, at, cpu, learned))
    found = [step for step in found if step.number > 0]
    if len(found) < 2:
        sys.exit(f"{peer.name} made {len(found)} steps; give it more --seconds:\n{lines[-5:]}")
    return found


def bits_a_character(model: ModelDir | HuggingFaceDir, record_tokens: str, held_out: Sequence[Record]) -> float:
    from redditgen.engines.pytorch.training import measure_held_out_loss

    hyperparameters = model.hyperparameters()
    network = load_network(hyperparameters, model.tensors(), Plan(), best_device())
    network.eval()
    measured = tokenize_records(held_out, model.tokenizer(), record_tokens, hyperparameters.n_ctx)
    return measure_held_out_loss(network, measured, 32).bits_per_char


# --- The table ---


def shown(found: Sequence[Found]) -> str:
    """A markdown table, each peer beside the gpt-2-simple of its round."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    for number, one in enumerate(found):
        before = [other for other in found[: number + 1] if other.peer == UPSTREAM]
        cells = cells_of(one, before[-1] if before else None)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cells_of(one: Found, upstream: Found | None) -> list[str]:
    def beside(value: float, of: Callable[[Found], float]) -> list[str]:
        return ["" if upstream is None else f"{value / of(upstream):.2f}"]

    return [
        one.peer,
        f"{one.steps[0].at:.1f}",
        str(len(one.steps)),
        f"{one.tokens:.0f}",
        *beside(one.tokens, lambda other: other.tokens),
        f"{one.titles:.1f}",
        *beside(one.titles, lambda other: other.titles),
        f"{one.all_in / one.a_title:.1f}",
        f"{one.by_cpu:.0f}",
        *beside(one.by_cpu, lambda other: other.by_cpu),
        f"{one.tokens / (1 - one.padding):.0f}",
        f"{one.a_title:.1f}",
        f"{one.peak / 1e9:.2f}",
        *beside(one.peak, lambda other: other.peak),
        "" if one.bits is None else f"{one.bits:.4f}",
    ]


def machine() -> str:
    import torch

    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    cpu = names[0].partition(": ")[2] if names else "CPU"
    return (
        f"{cpu}, {CORES} cores, {torch.get_num_threads()} threads of torch {torch.__version__}, OMP_WAIT_POLICY=PASSIVE"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="encoded text, as redditgen encode writes it")
    parser.add_argument("--model", choices=("mini", "124M"), default="mini")
    parser.add_argument("--vocabulary", type=Path, help="folder with GPT-2's encoder.json and vocab.bpe, for 124M")
    parser.add_argument("--seconds", type=float, default=300, help="of each peer, its start included")
    parser.add_argument("--rounds", type=int, default=1, help="one peer after another, so many times")
    parser.add_argument("--only", action="append", choices=(UPSTREAM, TRAINER, OURS))
    parser.add_argument("--learning-rate", help="of all peers, instead of each one's own")
    parser.add_argument("--loss-on", choices=("record", "title"), help="of redditgen [default: its own]")
    parser.add_argument("--tf1-python", type=Path, help="[default: as redditgen finetune]")
    options = parser.parse_args()
    wanted = options.only or [UPSTREAM, TRAINER, OURS]
    if TRAINER in wanted and not importlib.util.find_spec("accelerate"):
        sys.exit("Trainer needs accelerate: pip install accelerate, or leave it out by --only")
    if options.model == "124M" and not options.vocabulary:
        sys.exit("--model 124M needs --vocabulary, a folder with GPT-2's encoder.json and vocab.bpe")
    try:
        python = tf1_environment.find_python(options.tf1_python) if UPSTREAM in wanted else None
    except RedditgenError as error:
        sys.exit(f"{error}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        held_out = prepare(options.dataset, options.model, options.vocabulary, folder)
        found = []
        for _ in range(options.rounds):
            for peer in (peers(python, options.learning_rate, options.loss_on)[name] for name in wanted):
                found.append(measure(peer, folder, options.seconds, held_out if options.model == "mini" else None))
                print(shown(found[-1:]), file=sys.stderr, flush=True)
        print(f"{options.model}, {options.seconds:.0f} s each; {machine()}\n\n{shown(found)}")


if __name__ == "__main__":
    main()
