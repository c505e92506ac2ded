"""The two engines compute the same: the same logits, the same greedy texts, the same losses in training."""

import csv
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import pytest
import torch

from redditgen.files import bundled
from redditgen.finetune.command import finetune
from redditgen.gpt2.formats import ctranslate2_model
from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.tensor_names import copy_to_network, new_network
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.settings import FinetuneSettings
from tests.support.paths import OPENAI, ROOT, SHARED_DATA

pytestmark = [pytest.mark.slow, pytest.mark.tf1]

TITLES = SHARED_DATA / "reddit_titles.csv"
LENGTH = 100  # tokens of the greedy texts
PROMPT = 6  # tokens; all the same, since gpt-2-simple knows no padding


@dataclass
class Compared:
    """A model, rows of tokens, and what gpt-2-simple makes of them."""

    model: ModelDir
    rows: list[list[int]]
    prompts: np.ndarray
    upstream: dict[str, np.ndarray]


def real_titles(number: int) -> list[str]:
    """Spread over the report's own, each with some tokens in it."""
    if not TITLES.exists():
        pytest.skip(f"the real titles are not there: {TITLES}")
    with TITLES.open(encoding="utf8", newline="") as file:
        titles = [row["title"] for row in csv.DictReader(file) if len(row["title"]) > 40]
    return titles[:: len(titles) // number][:number]


def random_124m(folder: Path) -> ModelDir:
    """124M's shape and vocabulary with weights as GPT-2 is initialised."""
    if not OPENAI.exists():
        pytest.skip(f"124M's vocabulary is not there: {OPENAI}")
    hyperparameters, rng = Hyperparameters.load(OPENAI / "hparams.json"), np.random.default_rng(0)
    tensors = {
        name: rng.normal(0, 0.02, shape).astype(np.float32) if name[-2:] != "/g" else np.ones(shape, np.float32)
        for name, shape in hyperparameters.tensor_shapes().items()
    }
    model = ModelDir(folder / "124M")
    model.write_base(hyperparameters, Tokenizer.load(OPENAI), tensors)
    return model


@pytest.fixture(scope="module", params=["mini", "124M"])
def compared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tf1_python: Path) -> Compared:
    folder = tmp_path_factory.mktemp("parity")
    model = random_124m(folder) if request.param == "124M" else ModelDir(bundled.path("models/mini"))
    rows = [encoding.ids for encoding in model.tokenizer().encode(real_titles(20))]
    prompts = np.array([row[:PROMPT] for row in rows], dtype=np.int32)
    arrays: dict[str, Any] = {f"row{number}": row for number, row in enumerate(rows)}
    np.savez(folder / "in.npz", prompts=prompts, **arrays)
    script = ROOT / "tests/support/upstream_parity.py"
    command = [str(tf1_python), str(script), str(model.path), "in.npz", "out.npz"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return Compared(model, rows, prompts, dict(np.load(folder / "out.npz")))


def test_logits_are_those_of_gpt_2_simple(compared: Compared, tmp_path: Path) -> None:
    hyperparameters, tensors = compared.model.hyperparameters(), compared.model.tensors()
    tokenizer = compared.model.tokenizer()
    ours = new_network(hyperparameters).eval()
    copy_to_network(tensors, ours)
    ctranslate2_model.model_specification(hyperparameters, tokenizer, tensors).save(str(tmp_path))
    generator = ctranslate2.Generator(str(tmp_path))
    tokens = tokenizer.tokens()
    assert len(compared.rows) == 20
    for number, row in enumerate(compared.rows):
        upstream = compared.upstream[f"row{number}"]
        with torch.no_grad():
            from_torch = ours(torch.tensor([row])).logits[0].numpy()
        from_ctranslate2 = np.array(generator.forward_batch([[tokens[token] for token in row]]))[0]
        assert np.abs(from_torch - upstream).max() < 1e-4
        assert np.abs(from_ctranslate2 - upstream).max() < 1e-4


def test_greedy_texts_are_those_of_gpt_2_simple(compared: Compared, tmp_path: Path) -> None:
    hyperparameters, tokenizer = compared.model.hyperparameters(), compared.model.tokenizer()
    ctranslate2_model.model_specification(hyperparameters, tokenizer, compared.model.tensors()).save(str(tmp_path))
    generator = ctranslate2.Generator(str(tmp_path))
    tokens = tokenizer.tokens()
    made = generator.generate_batch(
        [[tokens[token] for token in row] for row in compared.prompts],
        max_length=LENGTH,
        sampling_topk=1,
        include_prompt_in_result=False,
        end_token="\u0100",  # the byte 0, which no text has: gpt-2-simple does not stop at the end token
    )
    assert [result.sequences_ids[0] for result in made] == compared.upstream["prompts"].tolist()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_has_the_losses_of_gpt_2_simple(tmp_path: Path, tf1_python: Path, accumulate: int) -> None:
    """The same weights and batches, plain gradient descent: 20 losses that agree to 1e-3."""
    text = tmp_path / "titles.txt"
    text.write_text("\n".join(real_titles(2000)), encoding="utf8")
    losses = {}
    for engine in ("torch", "gpt-2-simple"):
        changes: dict[str, Any] = {} if engine == "torch" else {"tf1_python": tf1_python}
        settings = FinetuneSettings(
            dataset=text, engine=engine, model="mini", run=engine, steps=20, window=64, batch_size=4,
            accumulate_gradients=accumulate, optimizer="sgd", learning_rate=0.1, print_every=1, sample_every=0,
            precision="float32", checkpoint_dir=tmp_path, sample_dir=tmp_path / "samples", **changes,
        )  # fmt: skip
        assert finetune(settings) == 20
        lines = [json.loads(line) for line in (tmp_path / engine / "metrics.jsonl").read_text("utf8").splitlines()]
        losses[engine] = [line["loss"] for line in lines if line["step"]]
        held_out = [line["val_loss"] for line in lines if line["val_loss"] is not None]
        assert held_out[-1] < held_out[0]
    assert len(losses["torch"]) == 20
    assert np.abs(np.subtract(losses["torch"], losses["gpt-2-simple"])).max() < 1e-3
    assert losses["torch"][-1] < losses["torch"][0]
