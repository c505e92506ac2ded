"""The stages as the campaign sees them: a command each, what it reads and writes, and what must be the same again."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from redditgen.gpt2.model_dir import ModelDir

Content = dict[str, bytes]
"""Files below a folder, by their names in it; folders, whose names end with a slash, hold nothing."""

KEYS = ("step", "loss", "val_loss", "val_bits_per_char", "lr")  # of a report; all else are times and speeds


def content(folder: Path) -> Content:
    paths = sorted(folder.rglob("*"))
    files = {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}
    return files | {f"{path.relative_to(folder)}/": b"" for path in paths if path.is_dir()}


def as_it_is(there: Content) -> Content:
    return there


def as_learned(there: Content) -> Content:
    """What two finetunings must have in common to be the same one: TensorBoard gets a file a try."""
    reports = [json.loads(line) for line in there["out/new/metrics.jsonl"].splitlines()]
    learned = {name: text for name, text in there.items() if "tfevents" not in name}
    told = [[report[key] for key in KEYS] for report in reports]
    return learned | {"out/new/metrics.jsonl": json.dumps(told).encode()}


def is_readable(folder: Path) -> bool:
    """Whether a run that has a checkpoint can be read at it."""
    run = ModelDir(folder / "out/new")
    if (run.path / "checkpoint").exists():
        run.tensors()
        run.optimizer_state()
        run.metrics.reports()
    return True


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Paths are relative to the working folder; every output lies below `out`."""

    command: str
    reads: tuple[str, ...]
    shows: str | None = None
    """The command with results to standard output."""
    replaces: dict[str, str] = field(default_factory=dict)
    """An output as it may be there before, in files."""
    same: Callable[[Content], Content] = as_it_is
    whole: Callable[[Path], bool] | None = None
    """Whether an unfinished output is one to go on with; None where outputs are there whole or not at all."""
    keeps: tuple[str, ...] = ()
    """What is said where what was made of other inputs is kept; else the command begins anew."""


_RUN = tuple(
    f"checkpoint/trained/{name}"
    for name in ("checkpoint", "hparams.json", "encoder.json", "vocab.bpe", "redditgen.json")
)
_OLD = "an earlier output\n"

STAGES = {
    "fetch": Stage(
        command="fetch --from data/posts.parquet --top-subreddits 4 --per-subreddit 60 "
        "--out out/titles.csv --overwrite",
        reads=("data/posts.parquet",),
        replaces={"out/titles.csv": _OLD},
    ),
    "encode": Stage(
        command="encode data/titles.csv --keywords-field keywords --workers 1 --repeat 1 --split val=0.1 "
        "--out out/titles.txt --overwrite",
        reads=("data/titles.csv",),
        replaces={"out/titles.txt": _OLD, "out/titles.val.txt": _OLD},
    ),
    "tokenize": Stage(
        command="tokenize data/records.txt --model tiny --model-dir models --out out/tokens.npz --overwrite",
        reads=("data/records.txt", "models/tiny/encoder.json", "models/tiny/vocab.bpe"),
        replaces={"out/tokens.npz": _OLD},
    ),
    "finetune": Stage(
        command="finetune data/records.txt --run new --checkpoint-dir out --model tiny --model-dir models --steps 8 "
        "--save-every 2 --print-every 1 --val-every 4 --sample-every 0 --batch-size 8 --val-fraction 0.1 "
        "--precision float32",
        reads=("data/records.txt", "models/tiny/encoder.json", "models/tiny/model.ckpt.index"),
        same=as_learned,
        whole=is_readable,
        keeps=("goes on with what it has not learned from before, data/records.txt", "data/records.txt has changed"),
    ),
    "generate": Stage(
        command="generate --run trained -n 60 --seed 1 --batch-size 2 --no-unique --no-novel --no-sfw "
        "--out out/titles.jsonl --overwrite",
        shows="generate --run trained -n 20 --seed 1 --batch-size 2 --no-unique --no-novel --no-sfw",
        reads=_RUN,
        replaces={"out/titles.jsonl": _OLD},
    ),
    "decode": Stage(
        command="decode data/records.txt --sections category,title --out out/titles.jsonl --overwrite",
        shows="decode data/records.txt",
        reads=("data/records.txt",),
        replaces={"out/titles.jsonl": _OLD},
    ),
    "evaluate": Stage(
        command="evaluate --run trained --against data/records.txt --val-fraction 0.1 -n 20 --out out --overwrite",
        reads=("data/records.txt", *_RUN),
        replaces={"out/evaluation.html": _OLD, "out/evaluation.json": _OLD},
    ),
    "export": Stage(
        command="export --run trained --to tf --out out/exported --overwrite",
        reads=_RUN,
        replaces={"out/exported/redditgen.meta.json": "{}\n", "out/exported/hparams.json": "{}\n"},
    ),
}
