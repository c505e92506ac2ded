import math
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from conftest import random_tensors

from redditgen.errors import InputError
from redditgen.gpt2.batches import IGNORED, Sequences, padded
from redditgen.gpt2.examples import Examples, examples
from redditgen.gpt2.mark import COMPACT, LITERAL
from redditgen.gpt2.memory import Plan
from redditgen.gpt2.rundir import ModelDir
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.gpt2.training import Evaluation, Training, default_learning_rate, learning_rate
from redditgen.gpt2.weights import Hparams, network, put, take
from redditgen.markup import END, START, Record

CAT = Record(category="cats", keywords="nap sun", title="My old cat sleeps on the sofa")
DOG = Record(category="dogs", keywords="", title="Dog")


def training(hparams: Hparams, end: int = 10, **changes: Any) -> Training:
    """By a plan; `changes` are of the plan but for the optimizer."""
    optimizer = changes.pop("optimizer", "adam")
    weights = partial(random_tensors, hparams)
    return Training(hparams, weights, rate=0.01, end=end, optimizer=optimizer, plan=Plan(**changes))


def batch(number: int, hparams: Hparams) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = np.random.default_rng(number).integers(hparams.n_vocab, size=(4, 12)).tolist()
    return padded(Sequences.of(tokens), np.arange(4))


def learn(trained: Training, steps: Sequence[int]) -> list[float]:
    return [trained.step(number, batch(number, trained.hparams)) for number in steps]


def test_the_learning_rate_rises_stays_and_falls() -> None:
    rates = [learning_rate(step, 200, 1.0) for step in range(1, 201)]
    assert rates[:20] == [pytest.approx(step / 20) for step in range(1, 21)]
    assert set(rates[20:160]) == {1.0}
    assert rates[160:] == [pytest.approx(left / 40) for left in range(40, 0, -1)]


def test_a_short_run_has_a_learning_rate_above_zero_at_each_step() -> None:
    for end in (1, 2, 3, 10):
        assert all(0 < learning_rate(step, end, 0.5) <= 0.5 for step in range(1, end + 1))


def test_a_narrower_model_takes_larger_steps() -> None:
    assert default_learning_rate(Hparams(50257, 1024, 768, 12, 12)) == pytest.approx(1e-4)
    assert default_learning_rate(Hparams(8192, 256, 256, 4, 4)) == pytest.approx(3e-4)


def test_weights_put_into_a_network_are_taken_out_the_same(hparams: Hparams) -> None:
    tensors, model = random_tensors(hparams), network(hparams)
    put(tensors, model)
    taken = take(model, hparams)
    assert {name: tensor.shape for name, tensor in taken.items()} == hparams.shapes()
    assert all((taken[name] == tensor).all() for name, tensor in tensors.items())
    taken["model/wte"][:] = 0  # a copy: the network is as it was
    assert (take(model, hparams)["model/wte"] == tensors["model/wte"]).all()


def test_every_parameter_of_the_network_comes_from_the_checkpoint(hparams: Hparams) -> None:
    model = network(hparams)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    put(random_tensors(hparams), model)
    assert not any(parameter.isnan().any() for parameter in model.parameters())


def test_ten_steps_are_five_and_five_more_bit_for_bit(hparams: Hparams) -> None:
    straight, first = training(hparams), training(hparams)
    losses = learn(straight, range(1, 11))
    first_losses = learn(first, range(1, 6))
    second = Training(hparams, first.tensors, rate=0.01, end=10, plan=Plan())
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
def test_every_plan_learns_and_goes_on_bit_for_bit(hparams: Hparams, plan: dict[str, Any]) -> None:
    wide = replace(hparams, n_embd=64)  # bitsandbytes keeps tensors of fewer than 4,096 numbers in 32 bits
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
        assert all(parameter.grad is None for parameter in second.learning.values())


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("plan", [{}, {"optimizer_bits": 8}, {"train": "lora"}])
def test_how_many_records_are_computed_at_once_changes_no_step(
    hparams: Hparams, plan: dict[str, Any], size: int
) -> None:
    whole, parts = training(hparams, **plan), training(hparams, tokens=size * len(batch(0, hparams)[0][0]), **plan)
    tolerance = 1e-3 if plan else 1e-5  # gradients are added up in 16 bits
    assert learn(parts, range(1, 6)) == pytest.approx(learn(whole, range(1, 6)), rel=tolerance)


def test_gradients_in_16_bits_are_clipped_to_the_same_length(hparams: Hparams) -> None:
    """The first moments, which grow with the gradients, are those of the usual optimizer."""
    usual, light = training(hparams), training(hparams, optimizer_bits=8)
    learn(usual, range(1, 4))
    learn(light, range(1, 4))
    moments = usual.optimizer_state()
    for name, array in light.optimizer_state().items():
        parameter, _, kind = name.rpartition(".")
        if kind == "state1" and array.dtype == np.float32:
            np.testing.assert_allclose(array, moments[f"{parameter}.exp_avg"], rtol=0.1, atol=1e-4)


def test_a_gradient_that_float16_cant_hold_is_left_out_and_the_loss_is_scaled_less(hparams: Hparams) -> None:
    for bits in (32, 8):
        trained, before = training(hparams, precision="float16", optimizer_bits=bits), random_tensors(hparams)
        trained.optimizer.scale.factor = 2.0**60
        trained.step(1, batch(0, hparams))
        assert all((tensor == before[name]).all() for name, tensor in trained.tensors().items())
        assert trained.optimizer.scale.factor == 2.0**59
        trained.optimizer.scale.factor, trained.optimizer.scale.good_steps = 2.0**10, 1999
        trained.step(2, batch(0, hparams))
        assert any((tensor != before[name]).any() for name, tensor in trained.tensors().items())
        assert trained.optimizer.scale.factor == 2.0**11


def test_without_the_optimizers_memory_training_goes_another_way(hparams: Hparams) -> None:
    first = training(hparams)
    learn(first, range(1, 6))
    forgetful = Training(hparams, first.tensors, rate=0.01, end=10, plan=Plan())
    learn(first, [6])
    learn(forgetful, [6])
    assert (first.tensors()["model/wte"] != forgetful.tensors()["model/wte"]).any()


def test_another_networks_optimizer_state_is_refused(hparams: Hparams) -> None:
    trained = training(hparams)
    learn(trained, [1])
    state = trained.optimizer_state()
    wrong_shape = state | {"transformer.wpe.weight.exp_avg": np.zeros((3, 3), np.float32)}
    with pytest.raises(InputError, match=r"optimizer state: transformer\.wpe\.weight is of another shape; delete"):
        training(hparams).restore_optimizer(wrong_shape, 1)
    for optimizer in ("adam", "sgd"):
        with pytest.raises(InputError, match=r"transformer\.wpe\.weight is of another shape"):
            training(hparams, optimizer=optimizer).restore_optimizer(wrong_shape, 1)


def test_a_parameter_without_a_whole_memory_begins_anew(hparams: Hparams) -> None:
    first = training(hparams)
    learn(first, [1])
    state = first.optimizer_state()
    half = {name: array for name, array in state.items() if name != "transformer.wte.weight.exp_avg_sq"}
    none = {name: array for name, array in half.items() if not name.startswith("transformer.wte.weight")}
    continued = []
    for memory in (half, none, state):
        second = Training(hparams, first.tensors, rate=0.01, end=10, plan=Plan())
        second.restore_optimizer({name: array.copy() for name, array in memory.items()}, 1)
        learn(second, [2])
        continued.append(second.tensors())
    of_half, of_none, of_all = continued
    assert {name for name in of_all if (of_half[name] != of_all[name]).any()} == {"model/wte"}
    assert all((of_half[name] == of_none[name]).all() for name in of_all)


def gradients(hparams: Hparams, *batches: tuple[torch.Tensor, torch.Tensor]) -> dict[str, np.ndarray]:
    """Of the mean loss over the targets of all batches, from PyTorch's own cross-entropy, by checkpoint tensor."""
    model = network(hparams)
    put(random_tensors(hparams), model)
    scores = torch.cat([model(inputs).logits.flatten(0, 1) for inputs, _ in batches])
    wanted = torch.cat([targets.flatten() for _, targets in batches])
    torch.nn.functional.cross_entropy(scores, wanted, ignore_index=IGNORED).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.copy_(parameter.grad)
    return take(model, hparams)


def short_batch(hparams: Hparams) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of 2 to 9 tokens, so that its loss has another weight than that of `batch`."""
    rng = np.random.default_rng(7)
    return padded(
        Sequences.of([rng.integers(hparams.n_vocab, size=length).tolist() for length in (2, 9, 4)]), np.arange(3)
    )


def test_a_step_of_sgd_is_plain_gradient_descent_unclipped_at_an_even_rate(hparams: Hparams) -> None:
    """Both steps are at the full rate, where AdamW's would be warming up."""
    now = batch(0, hparams)
    wanted, slope = random_tensors(hparams), gradients(hparams, now)
    assert sum(float((array**2).sum()) for array in slope.values()) > 1  # AdamW's would be clipped
    for number in (1, 10):
        trained = training(hparams, optimizer="sgd")
        trained.step(number, now)
        assert trained.learning_rate(number) == 0.01
        assert trained.optimizer_state() == {}
        for name, tensor in trained.tensors().items():
            np.testing.assert_allclose(tensor, wanted[name] - 0.01 * slope[name], rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_batches_of_one_step_are_one_batch_of_all_their_records(hparams: Hparams, optimizer: str) -> None:
    """Each target weighs the same, in whichever batch it stands."""
    parts = [batch(0, hparams), short_batch(hparams)]
    slope = gradients(hparams, *parts)
    trained = training(hparams, optimizer=optimizer)
    loss = trained.step(1, *parts)
    counts = [int((targets != IGNORED).sum()) for _, targets in parts]
    alone = [training(hparams).step(1, part) for part in parts]
    assert loss == pytest.approx(np.average(alone, weights=counts), rel=1e-6)
    assert counts[0] != counts[1]
    rows = [
        [*inputs[: int((targets != IGNORED).sum())].tolist(), int(targets[targets != IGNORED][-1])]
        for part in parts
        for inputs, targets in zip(*part, strict=True)
    ]
    at_once = training(hparams, optimizer=optimizer)
    assert at_once.step(1, padded(Sequences.of(rows), np.arange(len(rows)))) == pytest.approx(loss, rel=1e-6)
    apart, together = training(hparams), training(hparams)
    apart.gradients(*parts)
    together.gradients(padded(Sequences.of(rows), np.arange(len(rows))))
    for name, parameter in apart.learning.items():
        torch.testing.assert_close(parameter.grad, together.learning[name].grad, rtol=1e-4, atol=1e-5)
    if optimizer == "sgd":
        for name, tensor in trained.tensors().items():
            np.testing.assert_allclose(tensor, random_tensors(hparams)[name] - 0.01 * slope[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_only_the_layers_learn_where_only_they_shall(hparams: Hparams, optimizer: str) -> None:
    trained = training(hparams, optimizer=optimizer, train="layers")
    losses = [trained.step(step, batch(0, hparams)) for step in (1, 2, 3)]
    assert losses[2] < losses[0]
    before = random_tensors(hparams)
    changed = {name for name, tensor in trained.tensors().items() if tensor.tobytes() != before[name].tobytes()}
    assert changed == set(before) - {"model/wte", "model/wpe", "model/ln_f/g", "model/ln_f/b"}
    names = {name.rpartition(".")[0] for name in trained.optimizer_state()}
    assert names == (set(trained.learning) if optimizer == "adam" else set())


def test_the_layers_alone_learn_as_they_do_with_all(hparams: Hparams) -> None:
    """By plain descent: what is left out changes no other gradient."""
    every, layers = training(hparams, optimizer="sgd"), training(hparams, optimizer="sgd", train="layers")
    assert every.step(1, batch(0, hparams)) == layers.step(1, batch(0, hparams))
    for name, tensor in layers.tensors().items():
        if name.startswith("model/h"):
            np.testing.assert_allclose(tensor, every.tensors()[name], rtol=0, atol=1e-7)


@pytest.mark.parametrize("train", ["full", "layers"])
def test_saving_memory_changes_no_loss(hparams: Hparams, train: str, capfd: pytest.CaptureFixture[str]) -> None:
    usual, saving = (training(hparams, train=train, checkpointing=saves) for saves in (False, True))
    assert learn(saving, range(1, 6)) == pytest.approx(learn(usual, range(1, 6)), rel=1e-6)
    tensors = usual.tensors()
    for name, tensor in saving.tensors().items():
        np.testing.assert_allclose(tensor, tensors[name], rtol=0, atol=1e-5)
    measured = [one.evaluate(examples_of_two(), 2) for one in (usual, saving)]
    assert measured[0].loss == pytest.approx(measured[1].loss, rel=1e-5)
    assert saving.sample([5, 6], 2, 8, seed=1) == usual.sample([5, 6], 2, 8, seed=1)
    assert capfd.readouterr() == ("", "")


def examples_of_two() -> Examples:
    return Examples.of([[1, 2, 3], [4, 5]], [(1, 3), (1, 2)], [5, 2])


def test_saving_memory_computes_the_layers_twice(hparams: Hparams) -> None:
    runs = {}
    for saves in (False, True):
        trained = training(hparams, checkpointing=saves)
        runs[saves] = count_calls(trained)
    assert (runs[False], runs[True]) == (hparams.n_layer, 2 * hparams.n_layer)


def count_calls(trained: Training) -> int:
    """How often a layer's norm is computed in one step."""
    calls = []
    for name, module in trained.model.named_modules():
        if name.endswith(".ln_1"):
            module.register_forward_hook(lambda *_: calls.append(1))
    trained.step(1, batch(0, trained.hparams))
    return len(calls)


def test_the_optimizer_may_change_between_two_commands(hparams: Hparams) -> None:
    by_adam = training(hparams)
    learn(by_adam, [1, 2])
    by_sgd = Training(hparams, by_adam.tensors, rate=0.01, end=10, plan=Plan(), optimizer="sgd")
    by_sgd.restore_optimizer(by_adam.optimizer_state(), 2)
    learn(by_sgd, [3, 4])
    again = Training(hparams, by_sgd.tensors, rate=0.01, end=10, plan=Plan())
    again.restore_optimizer(by_sgd.optimizer_state(), 4)
    anew = Training(hparams, by_sgd.tensors, rate=0.01, end=10, plan=Plan())
    assert learn(again, [5, 6]) == learn(anew, [5, 6])
    assert set(again.optimizer_state()) == set(by_adam.optimizer_state())


def test_training_lowers_the_loss(hparams: Hparams) -> None:
    trained = training(hparams, end=30)
    losses = [trained.step(step, batch(0, hparams)) for step in range(1, 31)]
    assert losses[-1] < losses[0] / 2


def by_hand(hparams: Hparams, tokenizer: Tokenizer, records: list[Record]) -> Evaluation:
    """Each compact record alone, its log-probabilities added up one by one."""
    model = network(hparams)
    put(random_tensors(hparams), model)
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
    return Evaluation(nats / tokens, title_nats / math.log(2) / chars)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_evaluation_equals_a_sum_by_hand(hparams: Hparams, tiny: ModelDir, size: int) -> None:
    records = [CAT, DOG, Record(category="cats", keywords="a b", title='"Quoted" cats?'), CAT, DOG]
    tokenizer = tiny.tokenizer()
    wanted = by_hand(hparams, tokenizer, records)
    found = training(hparams).evaluate(examples(records, tokenizer, COMPACT, hparams.n_ctx), size)
    assert found.loss == pytest.approx(wanted.loss, rel=1e-5)
    assert found.bits_per_char == pytest.approx(wanted.bits_per_char, rel=1e-5)


def test_evaluation_of_a_known_network_is_known(hparams: Hparams, tiny: ModelDir) -> None:
    """With no weights at all every token is as likely as any other."""
    nothing = {name: np.zeros(shape, np.float32) for name, shape in hparams.shapes().items()}
    blank = Training(hparams, nothing.copy, rate=0.01, end=1, plan=Plan())
    tokenizer = tiny.tokenizer()
    found = blank.evaluate(examples([DOG], tokenizer, COMPACT, hparams.n_ctx), 1)
    assert found.loss == pytest.approx(math.log(hparams.n_vocab))
    title_tokens = len(tokenizer.encode([DOG.title or ""])[0].ids) + 1
    assert found.bits_per_char == pytest.approx(math.log2(hparams.n_vocab) * title_tokens / 3)


def test_bits_per_character_of_literal_records_count_the_spelled_out_end(hparams: Hparams, tiny: ModelDir) -> None:
    nothing = {name: np.zeros(shape, np.float32) for name, shape in hparams.shapes().items()}
    blank = Training(hparams, nothing.copy, rate=0.01, end=1, plan=Plan())
    tokenizer = tiny.tokenizer()
    found = blank.evaluate(examples([DOG], tokenizer, LITERAL, hparams.n_ctx), 1)
    title_tokens = len(tokenizer.encode([f"{DOG.title}{END}"])[0].ids)
    assert found.bits_per_char == pytest.approx(math.log2(hparams.n_vocab) * title_tokens / 3)
    assert START not in (DOG.title or "")


def test_a_body_does_not_count_as_the_title(hparams: Hparams, tiny: ModelDir) -> None:
    trained, tokenizer = training(hparams), tiny.tokenizer()
    bits = {
        trained.evaluate(examples([Record(title="Dog", body=body)], tokenizer, COMPACT, hparams.n_ctx), 1).bits_per_char
        for body in ("a", "a b c d e f g h i j k")
    }
    assert max(bits) == pytest.approx(min(bits), rel=1e-4)


def test_samples_are_drawn_by_their_seed_and_are_as_long_as_asked(hparams: Hparams, tiny: ModelDir) -> None:
    trained, end = training(hparams), tiny.tokenizer().end
    state = torch.random.get_rng_state()
    rows = trained.sample([end, 5], 3, 10, seed=1)
    assert [len(row) for row in rows] == [10, 10, 10]
    assert trained.sample([end, 5], 3, 10, seed=1) == rows != trained.sample([end, 5], 3, 10, seed=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert max(map(len, trained.sample([end, 5], 1, 1000, seed=1))) == hparams.n_ctx - 2


def test_few_kernels_are_kept_unless_the_user_says_how_many(hparams: Hparams, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both libraries read it from the environment."""
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    training(hparams)
    assert (os.environ["LRU_CACHE_CAPACITY"], os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]) == ("32", "7")
