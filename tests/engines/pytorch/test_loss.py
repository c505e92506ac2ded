"""The sliced loss against PyTorch's cross-entropy over all logits at once."""

import pytest
import torch
from torch.nn import functional
from transformers import GPT2LMHeadModel

from redditgen.engines.data.batches import IGNORED_TARGET
from redditgen.engines.pytorch.loss import LOGIT_ROWS, summed_loss, token_losses
from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.tensor_names import copy_to_network, new_network
from tests.support.tiny_model import random_tensors

Batch = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture
def model(hyperparameters: Hyperparameters) -> GPT2LMHeadModel:
    made: GPT2LMHeadModel = new_network(hyperparameters)
    copy_to_network(random_tensors(hyperparameters), made)
    return made


@pytest.fixture(params=[1, 8, 40])
def batch(request: pytest.FixtureRequest, hyperparameters: Hyperparameters) -> Batch:
    """Random tokens in rows of random lengths; of 40 rows there are several slices, the last one not full."""
    generator = torch.Generator().manual_seed(request.param)
    tokens = torch.randint(hyperparameters.n_vocab, (request.param, 21), generator=generator)
    lengths = torch.randint(1, 21, (request.param, 1), generator=generator)
    targets = tokens[:, 1:].masked_fill(torch.arange(20) >= lengths, IGNORED_TARGET)
    assert request.param < 40 or (targets != IGNORED_TARGET).sum() > LOGIT_ROWS
    return tokens[:, :-1], targets


def reference(model: GPT2LMHeadModel, batch: Batch, reduction: str) -> torch.Tensor:
    logits = model(batch[0]).logits.flatten(0, 1)
    return functional.cross_entropy(logits, batch[1].flatten(), ignore_index=IGNORED_TARGET, reduction=reduction)


def gradients(model: GPT2LMHeadModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_value_and_gradients_equal_those_over_all_logits(model: GPT2LMHeadModel, batch: Batch) -> None:
    loss, wanted = summed_loss(model, *batch), reference(model, batch, "sum")
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-4)
    # Divided as in training, so that backward has a scale to apply.
    count = int((batch[1] != IGNORED_TARGET).sum())
    made, expected = gradients(model, loss / count), gradients(model, wanted / count)
    assert set(made) == {name for name, _ in model.named_parameters()}
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-6)


def test_token_losses_are_those_of_the_counting_targets_in_row_order(model: GPT2LMHeadModel, batch: Batch) -> None:
    wanted = reference(model, batch, "none")[batch[1].flatten() != IGNORED_TARGET]
    losses = token_losses(model, *batch)
    torch.testing.assert_close(losses, wanted.detach(), rtol=1e-5, atol=1e-5)
    assert not losses.requires_grad


def test_in_bfloat16_the_loss_and_its_gradients_are_nearly_the_same(model: GPT2LMHeadModel, batch: Batch) -> None:
    wanted = reference(model, batch, "sum")
    with torch.autocast("cpu", torch.bfloat16):
        loss = summed_loss(model, *batch)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, wanted, rtol=0.02, atol=0.5)
    made, expected = gradients(model, loss), gradients(model, wanted)
    for name, gradient in expected.items():
        likeness = functional.cosine_similarity(made[name].flatten(), gradient.flatten(), dim=0)
        assert likeness > 0.99, name


def test_a_head_that_does_not_learn_gets_no_gradient_and_changes_no_other(model: GPT2LMHeadModel, batch: Batch) -> None:
    expected = gradients(model, summed_loss(model, *batch))
    layers = {name for name in expected if name.startswith("transformer.h.")}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in layers)
    model.zero_grad(set_to_none=True)
    made = gradients(model, summed_loss(model, *batch))
    assert set(made) == layers
    torch.testing.assert_close(made, {name: expected[name] for name in layers}, rtol=0, atol=0)
