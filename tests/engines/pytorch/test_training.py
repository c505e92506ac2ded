import math
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from redditgen.engines.base import default_learning_rate
from redditgen.engines.data.batches import IGNORED_TARGET, Sequences, pad_batch
from redditgen.engines.data.examples import Examples, tokenize_records
from redditgen.engines.pytorch.memory_plan import Plan
from redditgen.engines.pytorch.training import HeldOutLoss, Training, learning_rate
from redditgen.errors import InputError
from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.run_info import COMPACT_TOKENS, LITERAL_TOKENS
from redditgen.gpt2.tensor_names import copy_to_network, new_network, tensors_of_network
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.titles.record import END_TOKEN, START_TOKEN, Record
from tests.support.tiny_model import random_tensors

CAT = Record(category="cats", keywords="nap sun", title="My old cat sleeps on the sofa")
DOG = Record(category="dogs", keywords="", title="Dog")


def training(hyperparameters: Hyperparameters, end: int = 10, **changes: Any) -> Training:
    """By a plan; `changes` are of the plan but for the optimizer."""
    optimizer = changes.pop("optimizer", "adam")
    weights = partial(random_tensors, hyperparameters)
    return Training(hyperparameters, weights, rate=0.01, end=end, optimizer=optimizer, plan=Plan(**changes))


def batch(number: int, hyperparameters: Hyperparameters) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = np.random.default_rng(number).integers(hyperparameters.n_vocab, size=(4, 12)).tolist()
    return pad_batch(Sequences.from_rows(tokens), np.arange(4))


def learn(trained: Training, steps: Sequence[int]) -> list[float]:
    return [trained.step(number, batch(number, trained.hyperparameters)) for number in steps]


def test_the_learning_rate_rises_stays_and_falls() -> None:
    rates = [learning_rate(step, 200, 1.0) for step in range(1, 201)]
    assert rates[:20] == [pytest.approx(step / 20) for step in range(1, 21)]
    assert set(rates[20:160]) == {1.0}
    assert rates[160:] == [pytest.approx(left / 40) for left in range(40, 0, -1)]


def test_a_short_run_has_a_learning_rate_above_zero_at_each_step() -> None:
    for end in (1, 2, 3, 10):
        assert all(0 < learning_rate(step, end, 0.5) <= 0.5 for step in range(1, end + 1))


def test_a_narrower_model_takes_larger_steps() -> None:
    assert default_learning_rate(Hyperparameters(50257, 1024, 768, 12, 12)) == pytest.approx(1e-4)
    assert default_learning_rate(Hyperparameters(8192, 256, 256, 4, 4)) == pytest.approx(3e-4)


def test_weights_put_into_a_network_are_taken_out_the_same(hyperparameters: Hyperparameters) -> None:
    tensors, model = random_tensors(hyperparameters), new_network(hyperparameters)
    copy_to_network(tensors, model)
    taken = tensors_of_network(model, hyperparameters)
    assert {name: tensor.shape for name, tensor in taken.items()} == hyperparameters.tensor_shapes()
    assert all((taken[name] == tensor).all() for name, tensor in tensors.items())
    taken["model/wte"][:] = 0  # a copy: the network is as it was
    assert (tensors_of_network(model, hyperparameters)["model/wte"] == tensors["model/wte"]).all()


def test_every_parameter_of_the_network_comes_from_the_checkpoint(hyperparameters: Hyperparameters) -> None:
    model = new_network(hyperparameters)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    copy_to_network(random_tensors(hyperparameters), model)
    assert not any(parameter.isnan().any() for parameter in model.parameters())


def test_ten_steps_are_five_and_five_more_bit_for_bit(hyperparameters: Hyperparameters) -> None:
    straight, first = training(hyperparameters), training(hyperparameters)
    losses = learn(straight, range(1, 11))
    first_losses = learn(first, range(1, 6))
    second = Training(hyperparameters, first.tensors, rate=0.01, end=10, plan=Plan())
    second.restore_optimizer(first.optimizer_state(), 5)
    assert first_losses + learn(second, range(6, 11)) == losses
    for name, tensor in straight.tensors().items():
        assert second.tensors()[name].tobytes() == tensor.tobytes(), name
    for name, tensor in straight.optimizer_state().items():
        assert second.optimizer_state()[name].tobytes() == tensor.tobytes(), name


@pytest.mark.parametrize(
    "plan",
    [
        {"optimizer_bits": 8},
        {"optimizer_bits": 8, "precision": "bfloat16", "checkpointing": True},
        {"optimizer_bits": 8, "precision": "float16", "tokens": 24},
        {"precision": "bfloat16"},
        {"precision": "float16"},
        {"train": "head"},
    ],
)
def test_every_plan_learns_and_goes_on_bit_for_bit(hyperparameters: Hyperparameters, plan: dict[str, Any]) -> None:
    wide = replace(hyperparameters, n_embd=64)  # bitsandbytes keeps tensors of fewer than 4,096 numbers in 32 bits
    straight, first = training(wide, **plan), training(wide, **plan)
    losses = learn(straight, range(1, 11))
    first_losses = learn(first, range(1, 6))
    second = Training(wide, first.tensors, rate=0.01, end=10, plan=Plan(**plan))
    second.restore_optimizer(first.optimizer_state(), 5)
    assert first_losses + learn(second, range(6, 11)) == losses
    state = straight.optimizer_state()
    assert {name: array.tobytes() for name, array in second.optimizer_state().items()} == {
        name: array.tobytes() for name, array in state.items()
    }
    usual = training(wide, train=plan.get("train", "full"))
    assert learn(usual, range(1, 11)) == pytest.approx(losses, rel=0.02)
    if "optimizer_bits" in plan:
        assert state["transformer.wte.weight.state1"].dtype == np.uint8
        assert all(parameter.grad is None for parameter in second.trainable.values())


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("plan", [{}, {"optimizer_bits": 8}, {"train": "lora"}])
def test_how_many_records_are_computed_at_once_changes_no_step(
    hyperparameters: Hyperparameters, plan: dict[str, Any], size: int
) -> None:
    whole, parts = (
        training(hyperparameters, **plan),
        training(hyperparameters, tokens=size * len(batch(0, hyperparameters)[0][0]), **plan),
    )
    tolerance = 1e-3 if plan else 1e-5  # gradients are added up in 16 bits
    assert learn(parts, range(1, 6)) == pytest.approx(learn(whole, range(1, 6)), rel=tolerance)


def test_gradients_in_16_bits_are_clipped_to_the_same_length(hyperparameters: Hyperparameters) -> None:
    """The first moments, which grow with the gradients, are those of the usual optimizer."""
    usual, light = training(hyperparameters), training(hyperparameters, optimizer_bits=8)
    learn(usual, range(1, 4))
    learn(light, range(1, 4))
    moments = usual.optimizer_state()
    for name, array in light.optimizer_state().items():
        parameter, _, kind = name.rpartition(".")
        if kind == "state1" and array.dtype == np.float32:
            np.testing.assert_allclose(array, moments[f"{parameter}.exp_avg"], rtol=0.1, atol=1e-4)


def test_a_gradient_that_float16_cant_hold_is_left_out_and_the_loss_is_scaled_less(
    hyperparameters: Hyperparameters,
) -> None:
    for bits in (32, 8):
        trained, before = (
            training(hyperparameters, precision="float16", optimizer_bits=bits),
            random_tensors(hyperparameters),
        )
        trained.optimizer.scale.factor = 2.0**60
        trained.step(1, batch(0, hyperparameters))
        assert all((tensor == before[name]).all() for name, tensor in trained.tensors().items())
        assert trained.optimizer.scale.factor == 2.0**59
        trained.optimizer.scale.factor, trained.optimizer.scale.good_steps = 2.0**10, 1999
        trained.step(2, batch(0, hyperparameters))
        assert any((tensor != before[name]).any() for name, tensor in trained.tensors().items())
        assert trained.optimizer.scale.factor == 2.0**11


def test_without_the_optimizers_memory_training_goes_another_way(hyperparameters: Hyperparameters) -> None:
    first = training(hyperparameters)
    learn(first, range(1, 6))
    forgetful = Training(hyperparameters, first.tensors, rate=0.01, end=10, plan=Plan())
    learn(first, [6])
    learn(forgetful, [6])
    assert (first.tensors()["model/wte"] != forgetful.tensors()["model/wte"]).any()


def test_another_networks_optimizer_state_is_refused(hyperparameters: Hyperparameters) -> None:
    trained = training(hyperparameters)
    learn(trained, [1])
    state = trained.optimizer_state()
    wrong_shape = state | {"transformer.wpe.weight.exp_avg": np.zeros((3, 3), np.float32)}
    with pytest.raises(InputError, match=r"optimizer state: transformer\.wpe\.weight is of another shape; delete"):
        training(hyperparameters).restore_optimizer(wrong_shape, 1)
    for optimizer in ("adam", "sgd"):
        with pytest.raises(InputError, match=r"transformer\.wpe\.weight is of another shape"):
            training(hyperparameters, optimizer=optimizer).restore_optimizer(wrong_shape, 1)


def test_a_parameter_without_a_whole_memory_begins_anew(hyperparameters: Hyperparameters) -> None:
    first = training(hyperparameters)
    learn(first, [1])
    state = first.optimizer_state()
    half = {name: array for name, array in state.items() if name != "transformer.wte.weight.exp_avg_sq"}
    none = {name: array for name, array in half.items() if not name.startswith("transformer.wte.weight")}
    continued = []
    for memory in (half, none, state):
        second = Training(hyperparameters, first.tensors, rate=0.01, end=10, plan=Plan())
        second.restore_optimizer({name: array.copy() for name, array in memory.items()}, 1)
        learn(second, [2])
        continued.append(second.tensors())
    of_half, of_none, of_all = continued
    assert {name for name in of_all if (of_half[name] != of_all[name]).any()} == {"model/wte"}
    assert all((of_half[name] == of_none[name]).all() for name in of_all)


def gradients(hyperparameters: Hyperparameters, *batches: tuple[torch.Tensor, torch.Tensor]) -> dict[str, np.ndarray]:
    """Of the mean loss over the targets of all batches, from PyTorch's own cross-entropy, by checkpoint tensor."""
    model = new_network(hyperparameters)
    copy_to_network(random_tensors(hyperparameters), model)
    scores = torch.cat([model(inputs).logits.flatten(0, 1) for inputs, _ in batches])
    wanted = torch.cat([targets.flatten() for _, targets in batches])
    torch.nn.functional.cross_entropy(scores, wanted, ignore_index=IGNORED_TARGET).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.copy_(parameter.grad)
    return tensors_of_network(model, hyperparameters)


def short_batch(hyperparameters: Hyperparameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of 2 to 9 tokens, so that its loss has another weight than that of `batch`."""
    rng = np.random.default_rng(7)
    return pad_batch(
        Sequences.from_rows([rng.integers(hyperparameters.n_vocab, size=length).tolist() for length in (2, 9, 4)]),
        np.arange(3),
    )


def test_a_step_of_sgd_is_plain_gradient_descent_unclipped_at_an_even_rate(hyperparameters: Hyperparameters) -> None:
    """Both steps are at the full rate, where AdamW's would be warming up."""
    now = batch(0, hyperparameters)
    wanted, slope = random_tensors(hyperparameters), gradients(hyperparameters, now)
    assert sum(float((array**2).sum()) for array in slope.values()) > 1  # AdamW's would be clipped
    for number in (1, 10):
        trained = training(hyperparameters, optimizer="sgd")
        trained.step(number, now)
        assert trained.learning_rate(number) == 0.01
        assert trained.optimizer_state() == {}
        for name, tensor in trained.tensors().items():
            np.testing.assert_allclose(tensor, wanted[name] - 0.01 * slope[name], rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_batches_of_one_step_are_one_batch_of_all_their_records(
    hyperparameters: Hyperparameters, optimizer: str
) -> None:
    """Each target weighs the same, in whichever batch it stands."""
    parts = [batch(0, hyperparameters), short_batch(hyperparameters)]
    slope = gradients(hyperparameters, *parts)
    trained = training(hyperparameters, optimizer=optimizer)
    loss = trained.step(1, *parts)
    counts = [int((targets != IGNORED_TARGET).sum()) for _, targets in parts]
    alone = [training(hyperparameters).step(1, part) for part in parts]
    assert loss == pytest.approx(np.average(alone, weights=counts), rel=1e-6)
    assert counts[0] != counts[1]
    rows = [
        [*inputs[: int((targets != IGNORED_TARGET).sum())].tolist(), int(targets[targets != IGNORED_TARGET][-1])]
        for part in parts
        for inputs, targets in zip(*part, strict=True)
    ]
    at_once = training(hyperparameters, optimizer=optimizer)
    assert at_once.step(1, pad_batch(Sequences.from_rows(rows), np.arange(len(rows)))) == pytest.approx(loss, rel=1e-6)
    apart, together = training(hyperparameters), training(hyperparameters)
    apart.gradients(*parts)
    together.gradients(pad_batch(Sequences.from_rows(rows), np.arange(len(rows))))
    for name, parameter in apart.trainable.items():
        torch.testing.assert_close(parameter.grad, together.trainable[name].grad, rtol=1e-4, atol=1e-5)
    if optimizer == "sgd":
        for name, tensor in trained.tensors().items():
            np.testing.assert_allclose(
                tensor, random_tensors(hyperparameters)[name] - 0.01 * slope[name], rtol=0, atol=1e-6
            )


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_only_the_layers_learn_where_only_they_shall(hyperparameters: Hyperparameters, optimizer: str) -> None:
    trained = training(hyperparameters, optimizer=optimizer, train="layers")
    losses = [trained.step(step, batch(0, hyperparameters)) for step in (1, 2, 3)]
    assert losses[2] < losses[0]
    before = random_tensors(hyperparameters)
    changed = {name for name, tensor in trained.tensors().items() if tensor.tobytes() != before[name].tobytes()}
    assert changed == set(before) - {"model/wte", "model/wpe", "model/ln_f/g", "model/ln_f/b"}
    names = {name.rpartition(".")[0] for name in trained.optimizer_state()}
    assert names == (set(trained.trainable) if optimizer == "adam" else set())


def test_the_layers_alone_learn_as_they_do_with_all(hyperparameters: Hyperparameters) -> None:
    """By plain descent: what is left out changes no other gradient."""
    every, layers = (
        training(hyperparameters, optimizer="sgd"),
        training(hyperparameters, optimizer="sgd", train="layers"),
    )
    assert every.step(1, batch(0, hyperparameters)) == layers.step(1, batch(0, hyperparameters))
    for name, tensor in layers.tensors().items():
        if name.startswith("model/h"):
            np.testing.assert_allclose(tensor, every.tensors()[name], rtol=0, atol=1e-7)


@pytest.mark.parametrize("train", ["full", "layers"])
def test_saving_memory_changes_no_loss(
    hyperparameters: Hyperparameters, train: str, capfd: pytest.CaptureFixture[str]
) -> None:
    usual, saving = (training(hyperparameters, train=train, checkpointing=saves) for saves in (False, True))
    assert learn(saving, range(1, 6)) == pytest.approx(learn(usual, range(1, 6)), rel=1e-6)
    tensors = usual.tensors()
    for name, tensor in saving.tensors().items():
        np.testing.assert_allclose(tensor, tensors[name], rtol=0, atol=1e-5)
    measured = [one.evaluate(examples_of_two(), 2) for one in (usual, saving)]
    assert measured[0].loss == pytest.approx(measured[1].loss, rel=1e-5)
    assert saving.sample([5, 6], 2, 8, seed=1) == usual.sample([5, 6], 2, 8, seed=1)
    assert capfd.readouterr() == ("", "")


def examples_of_two() -> Examples:
    return Examples.from_rows([[1, 2, 3], [4, 5]], [(1, 3), (1, 2)], [5, 2])


def test_saving_memory_computes_the_layers_twice(hyperparameters: Hyperparameters) -> None:
    runs = {}
    for saves in (False, True):
        trained = training(hyperparameters, checkpointing=saves)
        runs[saves] = count_calls(trained)
    assert (runs[False], runs[True]) == (hyperparameters.n_layer, 2 * hyperparameters.n_layer)


def count_calls(trained: Training) -> int:
    """How often a layer's norm is computed in one step."""
    calls = []
    for name, module in trained.model.named_modules():
        if name.endswith(".ln_1"):
            module.register_forward_hook(lambda *_: calls.append(1))
    trained.step(1, batch(0, trained.hyperparameters))
    return len(calls)


def test_the_optimizer_may_change_between_two_commands(hyperparameters: Hyperparameters) -> None:
    by_adam = training(hyperparameters)
    learn(by_adam, [1, 2])
    by_sgd = Training(hyperparameters, by_adam.tensors, rate=0.01, end=10, plan=Plan(), optimizer="sgd")
    by_sgd.restore_optimizer(by_adam.optimizer_state(), 2)
    learn(by_sgd, [3, 4])
    again = Training(hyperparameters, by_sgd.tensors, rate=0.01, end=10, plan=Plan())
    again.restore_optimizer(by_sgd.optimizer_state(), 4)
    anew = Training(hyperparameters, by_sgd.tensors, rate=0.01, end=10, plan=Plan())
    assert learn(again, [5, 6]) == learn(anew, [5, 6])
    assert set(again.optimizer_state()) == set(by_adam.optimizer_state())


def test_training_lowers_the_loss(hyperparameters: Hyperparameters) -> None:
    trained = training(hyperparameters, end=30)
    losses = [trained.step(step, batch(0, hyperparameters)) for step in range(1, 31)]
    assert losses[-1] < losses[0] / 2


def by_hand(hyperparameters: Hyperparameters, tokenizer: Tokenizer, records: list[Record]) -> HeldOutLoss:
    """Each compact record alone, its log-probabilities added up one by one."""
    model = new_network(hyperparameters)
    copy_to_network(random_tensors(hyperparameters), model)
    nats = title_nats = 0.0
    tokens = 0
    for record in records:
        before = f"~`{record.category}~^{record.keywords}~@"
        [encoding] = tokenizer.encode([before + (record.title or "")])
        ids = [tokenizer.end, *encoding.ids, tokenizer.end]
        with torch.no_grad():
            scores = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), dim=-1)
        for place in range(1, len(ids)):
            loss = -float(scores[place - 1, ids[place]])
            nats += loss
            tokens += 1
            is_before = len(tokenizer.decode(ids[1 : place + 1])) <= len(before)
            title_nats += 0 if is_before else loss
    chars = sum(len(record.title or "") for record in records)
    return HeldOutLoss(nats / tokens, title_nats / math.log(2) / chars)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_evaluation_equals_a_sum_by_hand(hyperparameters: Hyperparameters, tiny: ModelDir, size: int) -> None:
    records = [CAT, DOG, Record(category="cats", keywords="a b", title='"Quoted" cats?'), CAT, DOG]
    tokenizer = tiny.tokenizer()
    wanted = by_hand(hyperparameters, tokenizer, records)
    found = training(hyperparameters).evaluate(
        tokenize_records(records, tokenizer, COMPACT_TOKENS, hyperparameters.n_ctx), size
    )
    assert found.loss == pytest.approx(wanted.loss, rel=1e-5)
    assert found.bits_per_char == pytest.approx(wanted.bits_per_char, rel=1e-5)


def test_evaluation_of_a_known_network_is_known(hyperparameters: Hyperparameters, tiny: ModelDir) -> None:
    """With no weights at all every token is as likely as any other."""
    nothing = {name: np.zeros(shape, np.float32) for name, shape in hyperparameters.tensor_shapes().items()}
    blank = Training(hyperparameters, nothing.copy, rate=0.01, end=1, plan=Plan())
    tokenizer = tiny.tokenizer()
    found = blank.evaluate(tokenize_records([DOG], tokenizer, COMPACT_TOKENS, hyperparameters.n_ctx), 1)
    assert found.loss == pytest.approx(math.log(hyperparameters.n_vocab))
    title_tokens = len(tokenizer.encode([DOG.title or ""])[0].ids) + 1
    assert found.bits_per_char == pytest.approx(math.log2(hyperparameters.n_vocab) * title_tokens / 3)


def test_bits_per_character_of_literal_records_count_the_spelled_out_end(
    hyperparameters: Hyperparameters, tiny: ModelDir
) -> None:
    nothing = {name: np.zeros(shape, np.float32) for name, shape in hyperparameters.tensor_shapes().items()}
    blank = Training(hyperparameters, nothing.copy, rate=0.01, end=1, plan=Plan())
    tokenizer = tiny.tokenizer()
    found = blank.evaluate(tokenize_records([DOG], tokenizer, LITERAL_TOKENS, hyperparameters.n_ctx), 1)
    title_tokens = len(tokenizer.encode([f"{DOG.title}{END_TOKEN}"])[0].ids)
    assert found.bits_per_char == pytest.approx(math.log2(hyperparameters.n_vocab) * title_tokens / 3)
    assert START_TOKEN not in (DOG.title or "")


def test_a_body_does_not_count_as_the_title(hyperparameters: Hyperparameters, tiny: ModelDir) -> None:
    trained, tokenizer = training(hyperparameters), tiny.tokenizer()
    bits = {
        trained.evaluate(
            tokenize_records([Record(title="Dog", body=body)], tokenizer, COMPACT_TOKENS, hyperparameters.n_ctx), 1
        ).bits_per_char
        for body in ("a", "a b c d e f g h i j k")
    }
    assert max(bits) == pytest.approx(min(bits), rel=1e-4)


def test_samples_are_drawn_by_their_seed_and_are_as_long_as_asked(
    hyperparameters: Hyperparameters, tiny: ModelDir
) -> None:
    trained, end = training(hyperparameters), tiny.tokenizer().end
    state = torch.random.get_rng_state()
    rows = trained.sample([end, 5], 3, 10, seed=1)
    assert [len(row) for row in rows] == [10, 10, 10]
    assert trained.sample([end, 5], 3, 10, seed=1) == rows != trained.sample([end, 5], 3, 10, seed=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert max(map(len, trained.sample([end, 5], 1, 1000, seed=1))) == hyperparameters.n_ctx - 2


def test_few_kernels_are_kept_unless_the_user_says_how_many(
    hyperparameters: Hyperparameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both libraries read it from the environment."""
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    training(hyperparameters)
    assert (os.environ["LRU_CACHE_CAPACITY"], os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]) == ("32", "7")
