"""Adapters: what they learn, how they are saved and gone on with, and that whatever reads runs reads their product."""

import importlib.util
import json
import logging
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from redditgen.engines.base import Sampling
from redditgen.engines.ctranslate2.sampler import Sampler
from redditgen.engines.pytorch.memory_plan import Plan
from redditgen.engines.pytorch.network import import_bitsandbytes, warnings_silenced
from redditgen.engines.pytorch.training import Training
from redditgen.errors import InputError, Interrupted, MissingError, UsageError
from redditgen.finetune.command import finetune
from redditgen.gpt2.formats import hugging_face
from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.tensor_names import copy_to_network, new_network
from redditgen.hub.export import export
from redditgen.settings import ExportSettings, FinetuneSettings
from tests.engines.pytorch.test_training import batch, learn, training
from tests.finetune.test_command import interrupted_at
from tests.support.fixture_types import Settings
from tests.support.tiny_model import random_tensors

QUANTIZED = [
    pytest.param(
        bits,
        marks=pytest.mark.skipif(
            importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
        ),
    )
    for bits in (8, 4)
]
NEEDS_CUDA = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU here (torch.cuda.is_available() is False)"
)


def lora(hyperparameters: Hyperparameters, **changes: Any) -> Training:
    return training(hyperparameters, train="lora", **changes)


def merged(hyperparameters: Hyperparameters, trained: Training) -> Training:
    return Training(hyperparameters, trained.tensors, rate=0.01, end=10, plan=Plan())


def run_of(settings: FinetuneSettings) -> ModelDir:
    return ModelDir(settings.checkpoint_dir / settings.run)


def state(run: ModelDir) -> tuple[Any, ...]:
    """What two runs must have in common to be the same, bit for bit."""
    tensors = {name: tensor.tobytes() for name, tensor in (run.tensors() | run.optimizer_state()).items()}
    adapters = run.adapters()
    assert adapters
    weights = (adapters.path / "adapter_model.safetensors").read_bytes()
    return run.step(), [report.loss for report in run.metrics.reports()], tensors, weights


def test_new_adapters_change_nothing(hyperparameters: Hyperparameters) -> None:
    before = random_tensors(hyperparameters)
    trained = lora(hyperparameters)
    assert {name: tensor.tobytes() for name, tensor in trained.tensors().items()} == {
        name: tensor.tobytes() for name, tensor in before.items()
    }
    assert trained.gradients(batch(0, hyperparameters)) == training(hyperparameters).gradients(
        batch(0, hyperparameters)
    )


def test_adapters_of_every_matrix_learn_and_nothing_else(hyperparameters: Hyperparameters) -> None:
    trained, before = lora(hyperparameters), random_tensors(hyperparameters)
    losses = [trained.step(step, batch(0, hyperparameters)) for step in range(1, 9)]
    assert losses[-1] < losses[0]
    after = trained.tensors()
    changed = {name for name in before if before[name].tobytes() != after[name].tobytes()}
    assert changed == {name for name in before if name.endswith("/w")}
    assert (
        sum(p.numel() for p in trained.trainable.values()) == hyperparameters.n_layer * 16 * 16 * hyperparameters.n_embd
    )


@pytest.mark.parametrize("bits", [32, *QUANTIZED])
def test_merged_weights_compute_what_network_and_adapters_do(hyperparameters: Hyperparameters, bits: int) -> None:
    trained = lora(hyperparameters, weight_bits=bits)
    learn(trained, range(1, 9))
    tolerance = {32: 1e-5, 8: 0.01, 4: 0.1}[bits]
    assert merged(hyperparameters, trained).gradients(batch(0, hyperparameters)) == pytest.approx(
        trained.gradients(batch(0, hyperparameters)), rel=tolerance
    )


@pytest.mark.parametrize("bits", QUANTIZED)
def test_quantized_weights_are_merged_from_the_original_ones(hyperparameters: Hyperparameters, bits: int) -> None:
    """Before anything is learned they are those very weights, whatever was lost in the network."""
    trained, before = lora(hyperparameters, weight_bits=bits), random_tensors(hyperparameters)
    assert all(tensor.tobytes() == before[name].tobytes() for name, tensor in trained.tensors().items())
    [layer] = [m for name, m in trained.model.named_modules() if name.endswith("h.0.mlp.c_fc.base_layer")]
    assert layer.weight.dtype == (torch.int8 if bits == 8 else torch.uint8)
    assert layer.weight.numel() == 4 * hyperparameters.n_embd**2 // (1 if bits == 8 else 2)


@pytest.mark.parametrize("bits", [32, 16, *QUANTIZED])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_every_plan_of_adapters_learns(hyperparameters: Hyperparameters, precision: str, bits: int) -> None:
    if bits == 16 and precision == "float32":
        pytest.skip("weights of 16 bits are for computing in 16")
    plan = {"precision": precision, "weight_bits": bits, "checkpointing": bits < 16}
    trained = lora(hyperparameters, **plan)
    losses = [trained.step(step, batch(0, hyperparameters)) for step in range(1, 9)]
    assert losses[-1] < 0.95 * losses[0]
    assert losses[0] == pytest.approx(training(hyperparameters).step(1, batch(0, hyperparameters)), rel=0.02)


@pytest.mark.slow
@NEEDS_CUDA
@pytest.mark.parametrize("bits", [16, *QUANTIZED])
def test_plans_of_adapters_learn_on_a_gpu(hyperparameters: Hyperparameters, bits: int) -> None:
    for precision in ("bfloat16", "float16"):
        trained = lora(hyperparameters, precision=precision, weight_bits=bits, checkpointing=True)
        losses = [trained.step(step, batch(0, hyperparameters)) for step in range(1, 9)]
        assert losses[-1] < 0.95 * losses[0]


def test_the_seed_draws_the_adapters_and_no_other_number(hyperparameters: Hyperparameters) -> None:
    made: list[list[bytes]] = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(made))
        before = torch.random.get_rng_state()
        weights = partial(random_tensors, hyperparameters)
        trained = Training(hyperparameters, weights, rate=0.01, end=10, plan=Plan(train="lora"), seed=seed)
        assert torch.equal(torch.random.get_rng_state(), before)
        made.append([p.detach().numpy().tobytes() for name, p in trained.trainable.items() if ".lora_A." in name])
    assert made[0] == made[1] != made[2]


def test_without_bitsandbytes_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(MissingError, match=r"need bitsandbytes; install it with: pip install 'bitsandbytes>=0\.49'"):
        import_bitsandbytes()


# Runs


@pytest.fixture
def adapting(finetuning: Settings) -> Settings:
    def make(**changes: Any) -> FinetuneSettings:
        return finetuning(**({"train": "lora", "lora_rank": 4} | changes))

    return make


def test_a_run_holds_adapters_that_peft_reads_and_their_product(adapting: Settings, tiny: ModelDir) -> None:
    from transformers import GPT2LMHeadModel

    settings = adapting(learning_rate=0.02)
    finetune(settings)
    run = run_of(settings)
    adapters = run.adapters()
    assert adapters and adapters.path.name == "adapters-6"
    assert sorted(path.name for path in adapters.path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    config = json.loads((adapters.path / "adapter_config.json").read_text(encoding="utf8"))
    assert (config["r"], config["lora_alpha"], config["fan_in_fan_out"]) == (4, 8, True)
    assert config["base_model_name_or_path"] == str(tiny.path)
    base: GPT2LMHeadModel = new_network(tiny.hyperparameters())
    copy_to_network(tiny.tensors(), base)
    ours: GPT2LMHeadModel = new_network(tiny.hyperparameters())
    copy_to_network(run.tensors(), ours)
    tokens = torch.arange(20).reshape(2, 10)
    with warnings_silenced():
        from peft import PeftModel

        theirs: Any = PeftModel.from_pretrained(base, adapters.path)
    with torch.no_grad():
        plain = GPT2LMHeadModel(base.config)
        copy_to_network(tiny.tensors(), plain)
        torch.testing.assert_close(theirs(tokens).logits, ours(tokens).logits, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(plain(tokens).logits, ours(tokens).logits, atol=1e-2)


def test_a_run_with_adapters_is_sampled_and_exported_as_any(adapting: Settings, tmp_path: Path) -> None:
    settings = adapting()
    finetune(settings)
    run = run_of(settings)
    how = Sampling(temperature=0, top_k=0, top_p=0, length=8)
    [ours] = Sampler(run).sample_block(["~`cats~^~@My"], how, seed=0)
    where: dict[str, Any] = {"run": settings.run, "checkpoint_dir": settings.checkpoint_dir}
    out = export(ExportSettings(to="tf", out=tmp_path / "tf", **where))
    [exported] = Sampler(ModelDir(out)).sample_block(["~`cats~^~@My"], how, seed=0)
    assert len(ours) > len("~`cats~^~@My")
    tensors = run.tensors()
    for folder in (ModelDir(out), hugging_face.HuggingFaceDir(export(ExportSettings(out=tmp_path / "hf", **where)))):
        assert all((tensor == tensors[name]).all() for name, tensor in folder.tensors().items())
    assert exported.startswith("~`cats~^~@My")


@pytest.mark.parametrize("bits", [None, *QUANTIZED])
def test_steps_in_two_commands_are_those_of_one_bit_for_bit(adapting: Settings, bits: int | None) -> None:
    whole = adapting(run="whole", weight_bits=bits)
    halves = adapting(run="halves", weight_bits=bits)
    finetune(whole)
    with pytest.raises(Interrupted):
        interrupted_at(3, halves)
    assert run_of(halves).step() < 6
    finetune(replace(halves, train="auto", lora_rank=None))  # the run knows that it has adapters, and their rank
    assert state(run_of(halves)) == state(run_of(whole))


def test_adapters_of_another_rank_are_refused(adapting: Settings) -> None:
    settings = adapting()
    finetune(settings)
    with pytest.raises(UsageError, match="--lora-rank: the run's adapters have rank 4 and keep it; start another run"):
        finetune(replace(settings, lora_rank=8, steps=8))
    assert run_of(settings).step() == 6


def test_the_weights_below_adapters_are_found_where_the_models_are_now(
    adapting: Settings, model_dir: Path, tmp_path: Path
) -> None:
    first, moved = tmp_path / "first", tmp_path / "moved"
    shutil.copytree(model_dir, first)
    for name in ("stays", "moves"):
        finetune(adapting(run=name, model_dir=first, steps=3))
    finetune(adapting(run="stays", model_dir=first))
    first.rename(moved)
    finetune(adapting(run="moves", model_dir=moved))
    assert state(run_of(adapting(run="moves"))) == state(run_of(adapting(run="stays")))


@pytest.mark.parametrize("how", ["gone", "another"])
def test_where_the_weights_below_are_gone_new_adapters_begin_on_the_merged_ones(
    adapting: Settings, model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    own = tmp_path / "own"
    shutil.copytree(model_dir, own)
    settings = adapting(model_dir=own, learning_rate=0.02)
    finetune(settings)
    before = run_of(settings).tensors()
    if how == "gone":
        shutil.rmtree(own)
    else:
        tiny = ModelDir(own / "tiny")
        tiny.write_base(tiny.hyperparameters(), tiny.tokenizer(), {name: 2 * tensor for name, tensor in before.items()})
    with caplog.at_level(logging.WARNING):
        finetune(replace(settings, steps=7, learning_rate=1e-9))
    assert "are no longer there; new adapters begin on the run's own weights" in caplog.text
    for name, tensor in run_of(settings).tensors().items():
        np.testing.assert_allclose(tensor, before[name], atol=1e-5)
    adapters = run_of(settings).adapters()
    assert adapters and adapters.base().path == "model-6"


def test_a_run_that_learned_in_full_goes_on_with_adapters_on_its_own_checkpoint(adapting: Settings) -> None:
    """Which stays as long as they lie on it."""
    for name in ("whole", "halves"):
        finetune(adapting(run=name, train="full", lora_rank=None, steps=2))
    finetune(adapting(run="whole", save_every=2))
    finetune(adapting(run="halves", steps=6, save_every=0))
    assert state(run_of(adapting(run="halves")))[2:] == state(run_of(adapting(run="whole")))[2:]
    run = run_of(adapting(run="whole"))
    assert sorted(path.name for path in run.path.glob("model-*.index")) == ["model-2.index", "model-6.index"]
    assert sorted(path.name for path in run.path.glob("adapters-*")) == ["adapters-6"]
    finetune(adapting(run="whole", train="full", lora_rank=None, steps=7))
    assert sorted(path.name for path in run.path.glob("model-*.index")) == ["model-7.index"]
    assert run.adapters() is None


def test_a_run_from_another_has_that_ones_merged_weights_below(adapting: Settings) -> None:
    first = adapting(run="first")
    finetune(first)
    second = adapting(run="second", restore_from=str(run_of(first).path), steps=1, learning_rate=1e-9)
    finetune(second)
    for name, tensor in run_of(second).tensors().items():
        np.testing.assert_allclose(tensor, run_of(first).tensors()[name], atol=1e-5)
    adapters = run_of(second).adapters()
    assert adapters and adapters.base().path == str(run_of(first).path)


def test_every_checkpoint_that_is_kept_has_its_adapters(adapting: Settings) -> None:
    settings = adapting(save_every=2, max_checkpoints=2)
    finetune(settings)
    folders = sorted(path.name for path in run_of(settings).path.glob("adapters-*"))
    assert folders == ["adapters-4", "adapters-6"]
    finetune(replace(settings, restore_from="fresh", overwrite=True, train="full", lora_rank=None, steps=1))
    assert not list(run_of(settings).path.glob("adapters-*"))


@pytest.mark.parametrize("content", [b"", b"nonsense" * 99, None])
def test_adapters_that_cant_be_read_are_named(adapting: Settings, content: bytes | None) -> None:
    settings = adapting()
    finetune(settings)
    path = run_of(settings).path / "adapters-6/adapter_model.safetensors"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"adapters-6/adapter_model\.safetensors: can't be read.*delete the folder to go"
    ):
        finetune(replace(settings, steps=8))
    shutil.rmtree(path.parent)
    assert finetune(replace(settings, steps=8)) == 8


def test_adapters_of_another_network_are_named(adapting: Settings, hyperparameters: Hyperparameters) -> None:
    from safetensors.numpy import load_file, save_file

    settings = adapting()
    finetune(settings)
    path = run_of(settings).path / "adapters-6/adapter_model.safetensors"
    save_file(dict(list(load_file(path).items())[:-1]), path)
    with pytest.raises(InputError, match=r"adapter_model\.safetensors: holds other adapters than this run's; delete"):
        finetune(replace(settings, steps=8))


@pytest.mark.parametrize("train", ["layers", "head"])
def test_what_learns_is_what_was_asked_for(finetuning: Settings, tiny: ModelDir, train: str) -> None:
    settings = finetuning(train=train)
    finetune(settings)
    before = tiny.tensors()
    changed = {name for name, array in run_of(settings).tensors().items() if array.tobytes() != before[name].tobytes()}
    last = f"model/h{tiny.hyperparameters().n_layer - 1}/"
    layers = {name for name in before if name.startswith("model/h")}
    head = {name for name in before if name.startswith((last, "model/ln_f/"))}
    assert changed == {"layers": layers, "head": head}[train]
