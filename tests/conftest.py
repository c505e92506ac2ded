"""A tiny GPT-2, titles for it and a run finetuned on them: real ones, made once a session."""

import errno
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redditgen.engines.gpt2simple import tf1_environment
from redditgen.errors import MissingError
from redditgen.finetune.command import finetune
from redditgen.generate.session import ENGINE_WRITERS
from redditgen.gpt2 import tokenizer
from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.model_dir import ModelDir
from redditgen.runtime import progress
from redditgen.settings import FinetuneSettings, GenerateSettings
from redditgen.titles.record import build
from redditgen.titles.record_reader import read_records
from tests.support import ray_nodes
from tests.support.bigquery_emulator import Emulator, Missing, running
from tests.support.fixture_types import Generating, Redditgen, Scripted, Settings, TakesLong
from tests.support.scripted_engine import ScriptedEngine
from tests.support.tiny_model import N_CTX, N_VOCAB, example_records, random_tensors

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tiny model's matrices only lose by threads


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with the slowest tests first: one that began last would leave all cores but one idle."""
    slow_tests = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow_tests[item.path])


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP connections leave this machine in no test."""
    connect = socket.socket.connect

    def to_here(self: socket.socket, address: Any) -> None:
        is_remote = self.family in (socket.AF_INET, socket.AF_INET6) and self.type == socket.SOCK_STREAM
        if is_remote and address[0] not in ("localhost", "127.0.0.1", "::1"):
            raise OSError(errno.ENETUNREACH, f"tests have no network, not even to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", to_here)


@pytest.fixture
def takes_long(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> TakesLong:
    """Has a function of a module wait until redditgen has said something, which it does soon."""
    caplog.set_level(logging.INFO, "redditgen")
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0.01)

    def slow_down(module: Any, name: str) -> None:
        function = getattr(module, name)

        def after_a_line(*arguments: Any) -> None:
            while not caplog.messages:
                time.sleep(0.01)
            function(*arguments)

        monkeypatch.setattr(module, name, after_a_line)

    return slow_down


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy that this machine may have stands before the servers on it."""
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(scope="module")
def running_ray(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The module ray, with two workers' CPUs in this process's hands."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(request.module)  # ray's workers can't import files of tests
    with ray_nodes.in_this_process() as ray:
        yield ray


@pytest.fixture(scope="session")
def two_nodes() -> Iterator[ray_nodes.Cluster]:
    """One cluster for all tests of a process that leave it as it was; starting one takes 8 seconds."""
    with ray_nodes.cluster(2) as found:
        yield found


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """Ctrl-C interrupts, also where the tests run in the background of a shell, which makes SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoded text as encode writes it: 320 records of cats and dogs, in random order."""
    path = tmp_path_factory.mktemp("data") / "titles_encoded.txt"
    lines = [build(record) + "\n" for record in example_records()]
    np.random.default_rng(0).shuffle(lines)
    path.write_text("".join(lines), encoding="utf8")
    return path


@pytest.fixture
def hangup() -> Iterator[None]:
    """SIGHUP is heard, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def dynamic(dataset: Path, tmp_path: Path) -> Path:
    """The titles of the dataset as encode --dynamic writes them."""
    lines = {
        record.title: {"category": record.category, "keywords": (record.title or "").split(), "title": record.title}
        for record in read_records(dataset)
    }
    path = tmp_path / "titles.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines.values()), encoding="utf8")
    return path


@pytest.fixture(scope="session")
def titles() -> list[str]:
    """The different titles of the dataset."""
    return list(dict.fromkeys(record.title or "" for record in example_records()))


@pytest.fixture(scope="session")
def hyperparameters() -> Hyperparameters:
    return Hyperparameters(n_vocab=N_VOCAB, n_ctx=N_CTX, n_embd=32, n_head=2, n_layer=2)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory, hyperparameters: Hyperparameters) -> Path:
    """A folder of base models with one in it, `tiny`, of random weights."""
    folder = tmp_path_factory.mktemp("models")
    texts = [build(record) for record in example_records()]
    ModelDir(folder / "tiny").write_base(
        hyperparameters, tokenizer.train_tokenizer(texts, N_VOCAB), random_tensors(hyperparameters)
    )
    return folder


@pytest.fixture(scope="session")
def tiny(model_dir: Path) -> ModelDir:
    return ModelDir(model_dir / "tiny")


@pytest.fixture
def finetuning(dataset: Path, model_dir: Path, tmp_path: Path) -> Settings:
    """Makes settings of a short finetuning of `tiny` below `tmp_path`."""

    def make(**changes: Any) -> FinetuneSettings:
        return FinetuneSettings(**(_short(dataset, model_dir, tmp_path) | changes))

    return make


def _short(dataset: Path, model_dir: Path, folder: Path) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "model": "tiny",
        "steps": 6,
        "batch_size": 8,
        "val_fraction": 0.1,
        "sample_every": 0,
        "print_every": 1,
        "precision": "float32",
        "model_dir": model_dir,
        "checkpoint_dir": folder / "checkpoint",
        "sample_dir": folder / "samples",
    }


@pytest.fixture(scope="session")
def checkpoint_dir(dataset: Path, model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with one in it, `trained`, that writes whole records, from their beginning."""
    folder = tmp_path_factory.mktemp("runs")
    long_enough = {"run": "trained", "steps": 120, "batch_size": 32, "learning_rate": 0.02, "loss_on": "record"}
    finetune(FinetuneSettings(**(_short(dataset, model_dir, folder) | long_enough)))
    return folder / "checkpoint"


@pytest.fixture(scope="session")
def tf1_python() -> Path:
    """A Python 3.7 with TensorFlow 1.15; what needs it is skipped where there is none."""
    try:
        return tf1_environment.find_python()
    except MissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def bigquery_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """A BigQuery emulator; what needs it is skipped where it can't be installed, but for continuous integration."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(running(tmp_path_factory.mktemp("bigquery")))
        except Missing as error:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))


@pytest.fixture
def redditgen(tmp_path: Path) -> Redditgen:
    """Runs a command line in a process of its own, in `tmp_path`."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "redditgen", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def generating(checkpoint_dir: Path) -> Generating:
    """Makes settings of titles by the finetuned run, which knows its training titles by heart: any may come again."""

    def make(**changes: Any) -> GenerateSettings:
        usual: dict[str, Any] = {
            "run": "trained", "n": 20, "seed": 1, "unique": False, "novel": False, "sfw": False,
            "checkpoint_dir": checkpoint_dir,
        }  # fmt: skip
        return GenerateSettings(**(usual | changes))

    return make


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """Puts a scripted engine in the torch engine's place."""

    def put(text_of: Callable[[str, int], str]) -> ScriptedEngine:
        made = ScriptedEngine(text_of)
        monkeypatch.setitem(ENGINE_WRITERS, "torch", made.open_writer)
        return made

    return put
