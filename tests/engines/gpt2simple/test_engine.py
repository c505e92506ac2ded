"""The gpt-2-simple engine on TensorFlow 1.15, and plain gpt-2-simple on redditgen's directories."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from redditgen.engines.base import TrainingJob, block_size
from redditgen.engines.ctranslate2 import engine as ctranslate2_engine
from redditgen.engines.data.examples import tokenize_prompts
from redditgen.engines.gpt2simple import engine as gpt2simple_engine
from redditgen.engines.gpt2simple.finetuning import Gpt2SimpleFinetuning
from redditgen.engines.gpt2simple.worker_process import LOG_FILE
from redditgen.errors import RedditgenError
from redditgen.finetune.command import finetune, training_job
from redditgen.finetune.dataset.load import read_dataset
from redditgen.finetune.starting_point import StartingPoint
from redditgen.generate.session import engine_values
from redditgen.gpt2.formats import hugging_face
from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.run_info import COMPACT_TOKENS, RunInfo
from redditgen.gpt2.tensor_names import copy_to_network, new_network
from redditgen.settings import FinetuneSettings, GenerateSettings
from redditgen.titles.record import END_TOKEN, START_TOKEN
from tests.support.fixture_types import Settings
from tests.support.paths import ROOT
from tests.support.tiny_model import random_tensors

pytestmark = [pytest.mark.slow, pytest.mark.tf1]

PLAIN = ROOT / "tests/support/plain_gpt_2_simple.py"
PROMPTS = [f"{START_TOKEN}~`cats~^~@", f"{START_TOKEN}~`dogs~^lazy dog~@My", f"{START_TOKEN}~`"]
GREEDY = GenerateSettings(engine="gpt-2-simple", temperature=0, precision="float32", batch_size="4")

Made = Callable[..., FinetuneSettings]


@pytest.fixture
def by_tensorflow(finetuning: Settings, tf1_python: Path) -> Made:
    """Makes settings of a short finetuning by gpt-2-simple."""

    def make(**changes: Any) -> FinetuneSettings:
        usual = {"engine": "gpt-2-simple", "tf1_python": tf1_python, "batch_size": 2, "learning_rate": 0.01}
        return finetuning(**(usual | changes))

    return make


def run_of(settings: FinetuneSettings) -> ModelDir:
    return ModelDir(settings.checkpoint_dir / settings.run)


def metrics(run: ModelDir) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text(encoding="utf8").splitlines()]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def arguments(settings: FinetuneSettings) -> list[str]:
    options = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in asdict(settings).items()
        if name not in ("dataset", "restore_from") and value is not None and not isinstance(value, bool)
    ]
    return [sys.executable, "-m", "redditgen", "finetune", str(settings.dataset), *options]


# --- A whole finetuning and generation, as a user starts them ---


class Whole:
    """A folder with the run that six steps made in it, what was printed, and the settings."""

    def __init__(self, settings: FinetuneSettings, folder: Path) -> None:
        self.settings, self.folder, self.run = settings, folder, run_of(settings)
        self.env = {
            **os.environ,
            "LC_ALL": "C",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
            "PYTHONWARNINGS": "error",
        }
        self.done = self.command(*arguments(settings))

    def command(self, *words: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(words, cwd=self.folder, env=self.env, capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def whole(model_dir: Path, dataset: Path, tf1_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """In the locale C, with titles beyond ASCII, in a folder whose name is a pattern to TensorFlow."""
    folder = tmp_path_factory.mktemp("whole") / "Läufe [1] *"
    folder.mkdir()
    text = dataset.read_text(encoding="utf8")
    (folder / "titles.txt").write_text(text.replace("My old", "My älteste 🎉"), encoding="utf8")
    shutil.copytree(model_dir, folder / "models")
    settings = FinetuneSettings(
        dataset=folder / "titles.txt", engine="gpt-2-simple", model="tiny", steps=6, batch_size=4, learning_rate=0.02,
        val_fraction=0.1, val_every=4, print_every=3, save_every=2, max_checkpoints=2, sample_every=3, sample_num=2,
        sample_length=20, model_dir=folder / "models", checkpoint_dir=folder / "runs", sample_dir=folder / "out",
    )  # fmt: skip
    return Whole(settings, folder)


def test_a_run_holds_the_files_of_gpt_2_simple_and_ours(whole: Whole) -> None:
    assert whole.done.returncode == 0, whole.done.stderr.decode()
    names = sorted(path.name for path in whole.run.path.iterdir())
    [events] = [name for name in names if name.startswith("events.out.tfevents.")]
    assert names == sorted(
        [events, "checkpoint", "counter", "encoder.json", LOG_FILE, "hparams.json", "metrics.jsonl", "redditgen.json"]
        + [f"model-{step}.{end}" for step in (4, 6) for end in ("data-00000-of-00001", "index", "meta")]
        + ["begun.meta.json", "finetune.meta.json", "training_titles.npz", "vocab.bpe"]
    )
    assert (whole.run.path / "counter").read_text(encoding="utf8") == "6\n"
    assert (whole.run.path / "checkpoint").read_text(encoding="utf8").startswith('model_checkpoint_path: "model-6"\n')
    run_info = whole.run.run_info()
    assert (run_info.record_tokens, run_info.model, run_info.sections) == (
        "literal",
        "tiny",
        ("category", "keywords", "title"),
    )
    assert {
        name: tensor.shape for name, tensor in whole.run.tensors().items()
    } == whole.run.hyperparameters().tensor_shapes()


def test_nothing_lies_where_the_user_stands(whole: Whole) -> None:
    assert sorted(path.name for path in whole.folder.iterdir()) == ["models", "out", "runs", "titles.txt"]


def test_what_tensorflow_says_is_in_the_log_and_not_on_the_terminal(whole: Whole) -> None:
    log = (whole.run.path / LOG_FILE).read_text(encoding="utf8")
    assert log.startswith("=== finetune, 20")
    assert "WARNING:tensorflow" in log
    assert "Loading checkpoint" in log
    assert whole.done.stdout == b""
    said = whole.done.stderr.decode()
    assert "WARNING" not in said
    assert "Warning" not in said
    assert re.findall(r"^\[(\d+) \|", said, re.MULTILINE) == ["0", "3", "4", "6"]


def test_reports_are_those_of_the_torch_engine(whole: Whole, finetuning: Settings) -> None:
    """And the loss before the first step is the same, on the same records."""
    lines = metrics(whole.run)
    assert [line["step"] for line in lines] == [0, 3, 4, 6]
    assert [line["step"] for line in lines if line["val_loss"] is None] == [3]
    assert [line["tokens"] for line in lines] == [step * 4 * 5 * 63 for step in (0, 3, 4, 6)]
    assert lines[-1]["val_loss"] < lines[0]["val_loss"]
    settings = finetuning(
        dataset=whole.settings.dataset, record_tokens="literal", steps=1, learning_rate=1e-9, batch_size=7
    )
    finetune(settings)
    [first, *_] = metrics(run_of(settings))
    for name in ("val_loss", "val_bits_per_char"):
        assert lines[0][name] == pytest.approx(first[name], abs=1e-4)


def test_samples_begin_as_records_do_and_can_be_decoded(whole: Whole) -> None:
    folder = whole.settings.sample_dir / "run1"
    assert sorted(path.name for path in folder.iterdir()) == ["samples-3", "samples-6"]
    for path in folder.iterdir():
        samples = re.split(r"^======== SAMPLE \d ========\n", path.read_text(encoding="utf8"), flags=re.MULTILINE)
        assert len(samples) == 3
        assert all(sample.startswith(f"{START_TOKEN}~`") for sample in samples[1:])


def test_generated_titles_alone_are_printed(whole: Whole, tf1_python: Path) -> None:
    words = ["generate", "--engine=gpt-2-simple", "--checkpoint-dir=runs", f"--tf1-python={tf1_python}", "--n=3"]
    prefix = f"{START_TOKEN}~`cats~^~@My "
    done = whole.command(
        sys.executable, "-m", "redditgen", *words, f"--prefix={prefix}", "--include-prefix", "--length=8", "--seed=1",
        "--batch-size=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().count(prefix) == 3
    assert done.stderr == b""
    assert "=== generate, 20" in (whole.run.path / LOG_FILE).read_text(encoding="utf8")


def test_it_goes_on_by_the_steps_that_are_left(whole: Whole) -> None:
    before = metrics(whole.run)
    done = whole.command(*arguments(replace(whole.settings, steps=8, save_every=6)))
    assert done.returncode == 0, done.stderr.decode()
    assert whole.run.step() == 8
    assert metrics(whole.run)[:-1] == [*before]
    assert metrics(whole.run)[-1]["step"] == 8
    steps = sorted({path.name.partition(".")[0] for path in whole.run.path.glob("model-*")})
    assert steps == ["model-6", "model-8"]
    assert not (whole.settings.sample_dir / "run1/samples-8").exists()


# --- Between the engines ---


def assert_learned_in_both_halves(run: ModelDir, first: float) -> None:
    losses = {line["step"]: line["val_loss"] for line in metrics(run) if line["val_loss"]}
    assert losses[40] < losses[20] < first
    assert (run.path / "counter").read_text(encoding="utf8") == "40\n"
    assert run.step() == 40


@pytest.mark.parametrize("record_tokens", ["compact", "literal"])
def test_tensorflow_goes_on_where_torch_has_stopped(by_tensorflow: Made, record_tokens: str) -> None:
    settings = by_tensorflow(steps=40, record_tokens=record_tokens, print_every=0)
    finetune(replace(settings, engine="torch", steps=20, batch_size=16))
    first = metrics(run_of(settings))[0]["val_loss"]
    assert finetune(settings) == 40
    assert_learned_in_both_halves(run_of(settings), first)
    assert not list(run_of(settings).path.glob("optimizer-*"))


def test_torch_goes_on_where_tensorflow_has_stopped(by_tensorflow: Made) -> None:
    settings = by_tensorflow(steps=20, print_every=0)
    finetune(settings)
    run, first = run_of(settings), metrics(run_of(settings))[0]["val_loss"]
    finetune(replace(settings, engine="torch", steps=40, batch_size=16, record_tokens=None))
    assert_learned_in_both_halves(run, first)
    assert run.run_info().record_tokens == "literal"


def plain(python: Path, folder: Path, *words: str) -> None:
    subprocess.run([python, PLAIN, *words], cwd=folder, check=True, capture_output=True, timeout=240)


def test_plain_gpt_2_simple_restores_a_run_of_the_torch_engine(
    checkpoint_dir: Path, tf1_python: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkpoint_dir / "trained", tmp_path / "checkpoint/trained")
    run = ModelDir(tmp_path / "checkpoint/trained")
    [ids] = tokenize_prompts(
        [f"{START_TOKEN}~`cats~^lazy cat~@My lazy cat steals my dinner"], run.tokenizer(), COMPACT_TOKENS
    )
    plain(tf1_python, tmp_path, "logits", "trained", json.dumps(ids))
    model = new_network(run.hyperparameters())
    copy_to_network(run.tensors(), model)
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits.numpy()
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), wanted, rtol=0, atol=1e-4)


def test_both_engines_go_on_with_a_run_of_plain_gpt_2_simple(
    by_tensorflow: Made, tiny: ModelDir, dataset: Path, tf1_python: Path, tmp_path: Path
) -> None:
    """Whose windows are 1,024 tokens whatever the model."""
    hyperparameters = Hyperparameters(
        n_vocab=tiny.hyperparameters().n_vocab, n_ctx=1024, n_embd=16, n_head=2, n_layer=1
    )
    ModelDir(tmp_path / "models/124M").write_base(hyperparameters, tiny.tokenizer(), random_tensors(hyperparameters))
    plain(tf1_python, tmp_path, "finetune", str(dataset))
    shutil.copytree(tmp_path / "checkpoint/plain", tmp_path / "checkpoint/other")
    for run, engine in (("plain", "gpt-2-simple"), ("other", "torch")):
        settings = by_tensorflow(run=run, engine=engine, model=None, steps=5, window=64)
        assert finetune(settings) == 5
        assert [line["step"] for line in metrics(run_of(settings))] == [4, 5]
        assert run_of(settings).run_info().record_tokens == "literal"
        assert run_of(settings).checkpoint_prefix().name == "model-5"


# --- Interruptions ---


@contextmanager
def started(settings: FinetuneSettings) -> "Iterator[subprocess.Popen[str]]":
    """The command in a process of its own, once it has reported step 5."""
    with subprocess.Popen(arguments(settings), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            assert any(line.startswith("[5 |") for line in process.stderr)
            yield process
        finally:
            process.kill()


def workers(run: ModelDir) -> list[int]:
    """The processes that work in the run's folder."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if str(run.path.absolute()) in str(link.readlink()):
                found.append(int(link.parent.name))
        except OSError:  # another user's, or over
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_saves_and_the_same_command_goes_on(by_tensorflow: Made, number: signal.Signals) -> None:
    settings = by_tensorflow(steps=100_000, save_every=0)
    run = run_of(settings)
    with started(settings) as process:
        assert workers(run)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert run.step() >= 5
    assert err.splitlines()[-1] == (
        f"redditgen: {run.path}: saved at step {run.step()}; the same command goes on from there"
    )
    assert (out, "Traceback" in err) == ("", False)
    assert [line["step"] for line in metrics(run)] == list(range(run.step() + 1))
    assert not list(run.path.glob(".gpt-2-simple-*"))
    if number == signal.SIGTERM:
        end = run.step() + 2
        assert finetune(replace(settings, steps=end)) == end
        assert [line["step"] for line in metrics(run)] == list(range(end + 1))


def test_a_killed_parent_leaves_no_worker_and_no_scratch(by_tensorflow: Made) -> None:
    settings = by_tensorflow(steps=100_000)
    run = run_of(settings)
    with started(settings) as process:
        assert workers(run)
        process.kill()
        process.communicate(timeout=60)
    for _ in range(100):
        if not workers(run) and not list(run.path.glob(".gpt-2-simple-*")):
            break
        time.sleep(0.1)
    assert workers(run) == []
    assert not list(run.path.glob(".gpt-2-simple-*"))


# --- What upstream gets wrong or refuses ---


def test_exit_in_the_library_is_an_error_of_ours(
    by_tensorflow: Made, job: Callable[[FinetuneSettings], TrainingJob]
) -> None:
    settings = by_tensorflow(memory_saving_gradients=True)
    finetuning = Gpt2SimpleFinetuning(job(settings))
    finetuning.options["accumulate_gradients"] = 2  # which _options() refuses
    with pytest.raises(
        RedditgenError, match=r"gpt-2-simple gave up: Memory saving gradients are not implemented .*log"
    ):
        finetuning.run()
    assert [path.name for path in run_of(settings).path.iterdir()] == [LOG_FILE]


@pytest.fixture
def job(tiny: ModelDir) -> Callable[[FinetuneSettings], TrainingJob]:
    """The job of a fresh run of `tiny`, as finetune() makes it."""

    def make(settings: FinetuneSettings) -> TrainingJob:
        learned = read_dataset(settings, RunInfo(model="tiny"), tiny.tokenizer(), tiny.hyperparameters().n_ctx)
        start = StartingPoint(tiny, RunInfo(model="tiny"), step=0)
        return training_job(settings, run_of(settings), start, settings.steps, math.inf, learned)

    return make


def test_a_hugging_face_model_learns_in_its_layers_alone_with_memory_saving_gradients(
    by_tensorflow: Made, tiny: ModelDir, tmp_path: Path
) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    hugging_face.write_model(folder, tiny.hyperparameters(), tiny.tokenizer(), tiny.tensors())
    settings = by_tensorflow(
        model=str(folder), record_tokens="compact", memory_saving_gradients=True, only_train_transformer_layers=True,
        steps=2, sample_every=2, sample_num=3, sample_length=1000,
    )  # fmt: skip
    assert finetune(settings) == 2
    run, before = run_of(settings), tiny.tensors()
    changed = {name for name, tensor in run.tensors().items() if not np.array_equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("model/h")}
    text = (settings.sample_dir / "run1/samples-2").read_text(encoding="utf8")
    assert text.count(f"========\n{START_TOKEN}") == 3


def test_memory_saving_gradients_are_the_ordinary_ones(by_tensorflow: Made) -> None:
    usual = by_tensorflow(run="usual", accumulate_gradients=1, steps=3)
    saving = replace(usual, run="saving", memory_saving_gradients=True)
    losses = []
    for settings in (usual, saving):
        finetune(settings)
        losses.append([line["loss"] for line in metrics(run_of(settings))[1:]])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(by_tensorflow: Made) -> None:
    settings = by_tensorflow(optimizer="sgd")
    finetune(replace(settings, engine="torch", steps=2, record_tokens="literal"))
    run = run_of(settings)
    before = run.tensors()
    message = r"gpt-2-simple diverged at step \d+: its loss is no number any more; lower --learning-rate; its log is .*"
    with pytest.raises(RedditgenError, match=message):
        finetune(replace(settings, steps=20, save_every=1, learning_rate=1e30))
    assert run.step() < 20
    after = ModelDir(run.path).tensors()
    assert all(np.isfinite(tensor).all() for tensor in after.values())
    if run.step() == 2:
        assert all(np.array_equal(after[name], tensor) for name, tensor in before.items())


# --- Generation ---


def write(settings: GenerateSettings, run: ModelDir, prompts: Sequence[str], seed: int) -> Generator[str]:
    """The engine's texts, by the settings of a command."""
    rows = block_size(settings.batch_size, run.hyperparameters(), settings.length)
    return gpt2simple_engine.write_texts(run, *engine_values(settings, rows), prompts, seed)


def write_with_ctranslate2(
    settings: GenerateSettings, run: ModelDir, prompts: Sequence[str], seed: int
) -> Generator[str]:
    rows = block_size(settings.batch_size, run.hyperparameters(), settings.length)
    return ctranslate2_engine.write_texts(run, *engine_values(settings, rows), prompts, seed)


@pytest.fixture(scope="module")
def literal(checkpoint_dir: Path, dataset: Path, model_dir: Path) -> ModelDir:
    """A run of records whose tokens are spelled out, that has learned a little."""
    settings = FinetuneSettings(
        dataset=dataset, model="tiny", run="spelled", steps=25, learning_rate=0.02, sample_every=0, val_fraction=0.1,
        record_tokens="literal", precision="float32", model_dir=model_dir, checkpoint_dir=checkpoint_dir,
    )  # fmt: skip
    finetune(settings)
    return run_of(settings)


@pytest.mark.parametrize("kind", ["compact", "literal"])
def test_the_likeliest_texts_are_those_of_the_torch_engine(
    kind: str, checkpoint_dir: Path, literal: ModelDir, tf1_python: Path
) -> None:
    """Prompts of several lengths, in a number that no block divides, each as far as the context reaches."""
    run = literal if kind == "literal" else ModelDir(checkpoint_dir / "trained")
    settings = replace(GREEDY, tf1_python=tf1_python)
    prompts = (PROMPTS * 4)[:10]
    texts = list(write(settings, run, prompts, 0))
    wanted = [next(write_with_ctranslate2(settings, run, [prompt], 0)) for prompt in PROMPTS]
    assert texts == (wanted * 4)[:10]
    assert all(END_TOKEN not in text[: -len(END_TOKEN)] for text in texts)


def test_the_graph_does_not_grow_from_block_to_block(checkpoint_dir: Path, tf1_python: Path, tmp_path: Path) -> None:
    """With 20 blocks; also: the same seed gives the same texts, another one others."""
    shutil.copytree(checkpoint_dir / "trained", tmp_path / "trained")
    run = ModelDir(tmp_path / "trained")
    settings = replace(GREEDY, tf1_python=tf1_python, temperature=1.0, top_k=0)
    prompts = [f"{START_TOKEN}~`"] * 77
    texts = list(write(settings, run, prompts, 1))
    lines = re.findall(
        r"(\d+) of 77 texts; (\d+) operations.*?, (\d+)", (run.path / LOG_FILE).read_text(encoding="utf8")
    )
    assert [int(written) for written, _, _ in lines] == [*range(4, 77, 4), 77]
    assert len({operations for _, operations, _ in lines}) == 1
    assert int(lines[-1][2]) < 1.1 * int(lines[1][2])  # memory
    assert sum(text.endswith(END_TOKEN) for text in texts) > 60
    assert len(set(texts)) > 40
    again, other = (list(write(settings, run, prompts[:8], seed)) for seed in (1, 2))
    assert again == texts[:8]
    assert other != again


def test_top_p_and_a_top_k_beyond_the_vocabulary_draw(checkpoint_dir: Path, tf1_python: Path) -> None:
    run = ModelDir(checkpoint_dir / "trained")
    settings = replace(GREEDY, tf1_python=tf1_python)
    wanted = [next(write_with_ctranslate2(settings, run, [prompt], 0)) for prompt in PROMPTS]
    nearly = replace(settings, temperature=1.0, top_k=0, top_p=1e-6)
    assert list(write(nearly, run, PROMPTS, 5)) == wanted
    [cut] = write(replace(settings, temperature=1.0, top_k=10_000, length=3), run, PROMPTS[:1], 5)
    assert cut.startswith(PROMPTS[0])
    assert END_TOKEN not in cut


def test_a_generator_that_is_closed_early_ends_the_worker(
    checkpoint_dir: Path, tf1_python: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    settings = replace(GREEDY, tf1_python=tf1_python, batch_size="1")
    texts = write(settings, ModelDir(checkpoint_dir / "trained"), PROMPTS * 10_000, 0)
    assert next(texts).startswith(PROMPTS[0])
    assert workers(ModelDir(tmp_path))
    texts.close()
    assert workers(ModelDir(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []
