"""The parent's side of the gpt-2-simple engine against workers that misbehave, and parts of the worker itself."""

import ast
import importlib
import json
import logging
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from redditgen.engines.base import block_size
from redditgen.engines.data.token_stream import TokenStream
from redditgen.engines.gpt2simple import engine as gpt2simple_engine
from redditgen.engines.gpt2simple import tf1_environment, worker_process
from redditgen.engines.gpt2simple.worker_process import LOG_FILE, worker_folder
from redditgen.errors import InputError, Interrupted, MissingError, RedditgenError, UsageError
from redditgen.finetune.command import finetune
from redditgen.generate.session import engine_values
from redditgen.gpt2.model_dir import ModelDir
from redditgen.settings import FinetuneSettings, GenerateSettings
from tests.support.fixture_types import Settings

WORKER = Path(worker_process.__file__).parent / "worker"
SCRIPTS = sorted(WORKER.glob("*.py"))
PROMPTS = ["<|startoftext|>~`", "<|startoftext|>~`cats~^~@", "<|startoftext|>~`dogs~^~@"]

Fake = Callable[[str], Path]

FAKE = """#!{python}
import json, os, signal, sys, time
from pathlib import Path
if "-c" in sys.argv:  # it is asked what it is
    print(json.dumps(["3.7.16", "x86_64", True]))
    sys.exit()
os.chdir(sys.argv[-1])
Path({pid!r}).write_text(str(os.getpid()))
job = json.loads(Path("job.json").read_text())
def send(**event):
    with Path("events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\\n")
def done(**result):
    Path("result.json").write_text(json.dumps(result))
{code}
"""


@pytest.fixture
def pid_file(tmp_path: Path) -> Path:
    return tmp_path / "pid"


@pytest.fixture
def fake(tmp_path: Path, pid_file: Path) -> Fake:
    """Makes an interpreter that takes itself for a 3.7 and does `code` instead of running the worker."""

    def make(code: str) -> Path:
        path = tmp_path / "python3.7"
        path.write_text(FAKE.format(python=sys.executable, pid=str(pid_file), code=code), encoding="utf8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return make


@pytest.fixture
def using(finetuning: Settings, fake: Fake) -> Callable[..., FinetuneSettings]:
    """Makes settings of a finetuning by a fake worker."""

    def make(code: str, **changes: Any) -> FinetuneSettings:
        return finetuning(engine="gpt-2-simple", record_tokens=None, tf1_python=fake(code), **changes)

    return make


def run_folder(settings: FinetuneSettings) -> Path:
    return settings.checkpoint_dir / settings.run


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def has_ended(pid_file: Path) -> bool:
    try:
        os.kill(int(pid_file.read_text(encoding="utf8")), 0)
    except ProcessLookupError:
        return True
    return False


def signalled(number: signal.Signals, *when: Path) -> threading.Thread:
    """Sends this process a signal as each of some files appears."""

    def send() -> None:
        for path in when:
            while not path.exists():
                time.sleep(0.01)
            time.sleep(0.3)
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ('done(error="diverged at step 3")', r"gpt-2-simple diverged at step 3; its log is .*run1/gpt-2-simple\.log"),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            r"was killed, as the system does .* lower --window or --batch-size, .*",
        ),
        (
            'print("no AVX", flush=True); os.kill(os.getpid(), signal.SIGILL)',
            r"died of SIGILL \(no AVX\); its log is .*",
        ),
        (
            'print("a\\n\\nthe cause\\n")\nsys.exit(3)',
            r"gpt-2-simple ended with exit code 3 \(the cause\); its log is .*",
        ),
        ("pass", r"gpt-2-simple ended with exit code 0 \(it said nothing\); its log is .*"),
    ],
)
def test_a_worker_that_fails_is_one_line_and_leaves_the_run(
    using: Callable[..., FinetuneSettings], finetuning: Settings, code: str, message: str
) -> None:
    finetune(finetuning())
    settings = using(code, restore_from="fresh", overwrite=True)
    before = content(settings.checkpoint_dir)
    with pytest.raises(RedditgenError, match=message) as raised:
        finetune(settings)
    assert "\n" not in str(raised.value)
    after = content(settings.checkpoint_dir)
    assert after.pop(f"run1/{LOG_FILE}")
    assert after == before


def test_an_interpreter_that_can_not_be_started_is_named(
    using: Callable[..., FinetuneSettings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = using("pass")
    monkeypatch.setattr(tf1_environment, "find_python", lambda given: tmp_path / "gone/python3.7")
    with pytest.raises(InputError, match=r"gone/python3\.7: No such file or directory"):
        finetune(settings)
    assert sorted(content(settings.checkpoint_dir)) == [f"run1/{LOG_FILE}"]


def test_without_an_environment_nothing_is_made(
    finetuning: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(tf1_environment.PYTHON_VARIABLE, raising=False)
    monkeypatch.setattr(tf1_environment, "environment_folder", lambda: tmp_path / "cache")
    settings = finetuning(engine="gpt-2-simple")
    with pytest.raises(MissingError, match="redditgen doctor --install tf1"):
        finetune(settings)
    assert not settings.checkpoint_dir.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"memory_saving_gradients": True, "accumulate_gradients": 2},
            "--memory-saving-gradients: gpt-2-simple has them only with --accumulate-gradients 1",
        ),
        ({"precision": "bfloat16"}, "--precision: gpt-2-simple computes in float32 alone"),
    ],
)
def test_what_gpt_2_simple_can_not_do_is_refused(
    using: Callable[..., FinetuneSettings], changes: dict[str, Any], message: str
) -> None:
    settings = replace(using("pass"), **changes)
    with pytest.raises(UsageError, match=message):
        finetune(settings)
    assert not settings.checkpoint_dir.exists()


def test_too_few_titles_for_a_window_are_refused(using: Callable[..., FinetuneSettings], tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("<|startoftext|>~@Cat<|endoftext|>\n", encoding="utf8")
    settings = using("pass", dataset=path)
    with pytest.raises(InputError, match=r"one\.txt: has \d+ tokens to train on, and a window 64; lower --window, or"):
        finetune(settings)
    assert not settings.checkpoint_dir.exists()


def test_a_damaged_checkpoint_is_named_before_anything_is_started(
    using: Callable[..., FinetuneSettings], tiny: ModelDir, tmp_path: Path, pid_file: Path
) -> None:
    shutil.copytree(tiny.path, tmp_path / "models/tiny")
    data = tmp_path / "models/tiny/model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"model\.ckpt\.data-00000-of-00001: model/wte fails its crc32c check"):
        finetune(using("pass", model_dir=tmp_path / "models"))
    assert not pid_file.exists()


def test_an_interruption_before_the_first_step_changes_nothing(
    using: Callable[..., FinetuneSettings], pid_file: Path
) -> None:
    settings = using("send(step=0, loss=None, val=[2.0, 1.0])\ntime.sleep(100)")
    handler, thread = signal.getsignal(signal.SIGTERM), signalled(signal.SIGTERM, pid_file)
    with pytest.raises(Interrupted, match=r"run1: stopped before a step was done; nothing has changed"):
        finetune(settings)
    thread.join()
    assert has_ended(pid_file)
    assert [path.name for path in run_folder(settings).iterdir()] == [LOG_FILE]
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_second_ctrl_c_ends_a_worker_that_does_not_stop(
    using: Callable[..., FinetuneSettings], pid_file: Path, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    settings = using(f"send(step=1, loss=2.0, val=None)\nos.read(0, 1)\nPath({str(seen)!r}).touch()\ntime.sleep(100)")
    thread = signalled(signal.SIGINT, pid_file, seen)
    with pytest.raises(KeyboardInterrupt):
        finetune(settings)
    thread.join()
    assert has_ended(pid_file)
    assert not list(run_folder(settings).glob(".gpt-2-simple-*"))


def test_reports_come_as_with_the_torch_engine(
    using: Callable[..., FinetuneSettings], caplog: pytest.LogCaptureFixture
) -> None:
    code = "\n".join(
        [
            "send(step=0, loss=None, val=[3.0, 2.5])",
            *(f"send(step={step}, loss={step}.5, val=None)" for step in range(1, 6)),
            'send(step=6, loss=6.5, val=[1.0, 0.5])\nPath("checkpoint/run").mkdir(parents=True)',
            'Path("checkpoint/run/model-6.index").touch()\nPath("checkpoint/run/model-6.meta").touch()',
            "send(saved=6)\ndone()",
        ]
    )
    settings = using(code, print_every=4, learning_rate=0.5, batch_size=3)
    with caplog.at_level(logging.INFO):
        assert finetune(settings) == 6
    lines = [
        json.loads(line) for line in (run_folder(settings) / "metrics.jsonl").read_text(encoding="utf8").splitlines()
    ]
    shown = [
        (line["step"], line["loss"], line["val_loss"], line["val_bits_per_char"], line["tokens"]) for line in lines
    ]
    assert shown == [(0, None, 3.0, 2.5, 0), (4, 3.0, None, None, 4 * 15 * 63), (6, 6.0, 1.0, 0.5, 6 * 15 * 63)]
    assert {line["lr"] for line in lines} == {0.5}
    assert [message.partition("|")[0] for message in caplog.messages if message.startswith("[")] == [
        "[0 ",
        "[4 ",
        "[6 ",
    ]
    assert (run_folder(settings) / "counter").read_text(encoding="utf8") == "6\n"
    assert (run_folder(settings) / "model-6.meta").exists()


def generating(python: Path, **changes: Any) -> GenerateSettings:
    return GenerateSettings(engine="gpt-2-simple", tf1_python=python, **changes)


def write(settings: GenerateSettings, run: ModelDir, prompts: Sequence[str], seed: int) -> Generator[str]:
    """The engine's texts, by the settings of a command."""
    rows = block_size(settings.batch_size, run.hyperparameters(), settings.length)
    return gpt2simple_engine.write_texts(run, *engine_values(settings, rows), prompts, seed)


@pytest.fixture
def run(tiny: ModelDir, tmp_path: Path) -> ModelDir:
    """A run of `tiny`'s weights at step 3."""
    run = ModelDir(tmp_path / "run3")
    run.start_run(tiny, tiny.run_info())
    run.save_checkpoint(3, tiny.tensors(), {})
    return run


def test_texts_come_in_the_order_of_their_prompts(fake: Fake, run: ModelDir) -> None:
    tokens = [encoding.ids for encoding in run.tokenizer().encode(["old cat", "A nap<|endoftext|> more", "sun"])]
    code = (
        "assert [len(ids) for ids in job['prompts']] == sorted(len(ids) for ids in job['prompts'])\n"
        f"send(texts=[[2, *{tokens[2]}], [1, *{tokens[1]}]])\nsend(texts=[[0, *{tokens[0]}]])\ndone()"
    )
    texts = list(write(generating(fake(code)), run, PROMPTS, 0))
    assert texts == [PROMPTS[0] + "old cat", PROMPTS[1] + "A nap<|endoftext|>", PROMPTS[2] + "sun"]


def test_texts_are_given_while_the_worker_still_writes_and_closing_ends_it(
    fake: Fake, run: ModelDir, pid_file: Path
) -> None:
    texts = write(generating(fake("send(texts=[[0, 5]])\ntime.sleep(100)")), run, PROMPTS, 0)
    assert next(texts).startswith(PROMPTS[0])
    assert not has_ended(pid_file)
    texts.close()
    assert has_ended(pid_file)


def test_a_worker_that_fails_half_way_is_an_error_after_its_texts(fake: Fake, run: ModelDir) -> None:
    code = 'send(texts=[[0, 5]])\ndone(error="ran out of memory; " + job["if_memory_is_short"])'
    texts = write(generating(fake(code)), run, PROMPTS, 0)
    next(texts)
    with pytest.raises(RedditgenError, match=r"ran out of memory; lower --batch-size or --length; its log is .*run3/"):
        next(texts)


def test_no_prompts_are_no_work(run: ModelDir, tmp_path: Path) -> None:
    assert list(write(generating(tmp_path / "gone"), run, [], 0)) == []


def test_a_prompt_that_fills_the_context_is_refused(fake: Fake, run: ModelDir, pid_file: Path) -> None:
    with pytest.raises(UsageError, match=r"a prompt of \d+ tokens fills the model's context of 64"):
        list(write(generating(fake("pass")), run, [*PROMPTS, "zq" * 64], 0))
    assert not pid_file.exists()


def test_what_a_killed_process_left_is_deleted_at_the_next_start(tmp_path: Path) -> None:
    left = tmp_path / ".gpt-2-simple-old"
    left.mkdir()
    (tmp_path / "mine").touch()
    with worker_folder(tmp_path) as folder:
        assert not left.exists()
        assert folder.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_scratch_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file: can't be written: Not a directory"), worker_folder(tmp_path / "file"):
        pass


# --- The worker's own files ---


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_worker_is_in_the_grammar_of_python_3_7(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf8"), feature_version=(3, 7))


@pytest.mark.tf1
def test_python_3_7_compiles_the_worker(tf1_python: Path, tmp_path: Path) -> None:
    for path in SCRIPTS:
        shutil.copy(path, tmp_path)
    subprocess.run([tf1_python, "-m", "py_compile", *tmp_path.glob("*.py")], check=True, timeout=60)


def module(name: str) -> ModuleType:
    return importlib.import_module(f"redditgen.engines.gpt2simple.worker.{name}")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_importing_a_file_of_the_worker_loads_no_tensorflow(path: Path) -> None:
    code = f"import sys; sys.path.append({str(WORKER)!r}); import {path.stem}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not {"tensorflow", "gpt_2_simple"} & set(done.stdout.split())


@pytest.mark.parametrize("sizes", [(100,), (7, 100, 30, 8), (8, 3, 8)])
def test_the_worker_draws_the_windows_of_the_torch_engine(sizes: tuple[int, ...]) -> None:
    chunks = tuple(np.arange(size, dtype=np.int32) + 1000 * number for number, size in enumerate(sizes))
    windows = module("gpt2simple_finetune").windows
    drawn = [windows(chunks, 4, 8, seed, step) for seed in (0, 7) for step in (1, 2, 300)]
    wanted = [TokenStream(chunks).windows(4, 8, seed=seed, step=step) for seed in (0, 7) for step in (1, 2, 300)]
    np.testing.assert_array_equal(drawn, wanted)


class ResourceExhaustedError(Exception):
    """Under the name that TensorFlow's has."""


class Failure(Exception):
    """Under the name that the worker's has."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ResourceExhaustedError("OOM when allocating tensor with shape[5]\n[[node]]"), "ran out of memory; lower it"),
        (MemoryError(), "ran out of memory; lower it"),
        (ResourceExhaustedError("model-5: No space left on device"), "has no room left on the disk; make room, or .*"),
        (SystemExit("Memory saving gradients are not"), "gave up: Memory saving gradients are not"),
        (Failure("diverged at step 3"), "diverged at step 3"),
        (ModuleNotFoundError("No module named 'tensorflow'"), r".* \(No module named 'tensorflow'\); .*--install tf1"),
        (ValueError("first\nsecond"), "ValueError: first"),
        (KeyError(), "KeyError: no reason given"),
    ],
)
def test_what_goes_wrong_in_the_worker_is_one_line(error: BaseException, message: str) -> None:
    found = module("gpt2simple_worker").message(error, {"if_memory_is_short": "lower it"})
    assert re.fullmatch(message, found), found


def test_a_row_has_ended_where_its_text_holds_the_end_token_in_whatever_pieces() -> None:
    pieces = ["<|endoftext|>", "now", "endoftext", "|>", "<|", "?<", "|"]
    ends = module("gpt2simple_generate").Ends(lambda ids: "".join(pieces[number] for number in ids))

    def ended_at(*rows: list[int]) -> int | None:
        assert ends.are_missing(0, np.zeros(len(rows), np.int32))
        steps = (
            step for step, last in enumerate(zip(*rows, strict=True), 1) if not ends.are_missing(step, np.array(last))
        )
        return next(steps, None)

    assert ended_at([1, 1, 0, 1]) == 3
    assert ended_at([1, 2, 3, 1, 1]) is None
    assert ended_at([5, 6, 2, 3, 1]) == 4
    assert ended_at([0, 1, 1, 1, 1], [1, 4, 2, 3, 1]) == 4
