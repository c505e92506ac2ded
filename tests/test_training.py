import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from conftest import random_tensors

from redditgen.errors import InputError
from redditgen.gpt2.batches import Sequences, padded
from redditgen.gpt2.dataset import examples
from redditgen.gpt2.rundir import COMPACT, LITERAL, ModelDir
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.gpt2.training import Evaluation, Training, default_learning_rate, learning_rate
from redditgen.gpt2.weights import Hparams, network, put, take
from redditgen.markup import END, START, Record

CAT = Record(category="cats", keywords="nap sun", title="My old cat sleeps on the sofa")
DOG = Record(category="dogs", keywords="", title="Dog")


def training(hparams: Hparams, end: int = 10) -> Training:
    return Training(hparams, random_tensors(hparams), rate=0.01, end=end, precision="float32")


def batch(number: int, hparams: Hparams) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = np.random.default_rng(number).integers(hparams.n_vocab, size=(4, 12)).tolist()
    return padded(Sequences.of(tokens), np.arange(4))


def learn(trained: Training, steps: Sequence[int]) -> list[float]:
    return [trained.step(number, *batch(number, trained.hparams)) for number in steps]


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
    second = Training(hparams, first.tensors(), rate=0.01, end=10, precision="float32")
    second.restore_optimizer(first.optimizer_state(), 5)
    assert first_losses + learn(second, range(6, 11)) == losses
    for name, tensor in straight.tensors().items():
        assert second.tensors()[name].tobytes() == tensor.tobytes(), name
    for name, tensor in straight.optimizer_state().items():
        assert second.optimizer_state()[name].tobytes() == tensor.tobytes(), name


def test_without_the_optimizers_memory_training_goes_another_way(hparams: Hparams) -> None:
    first = training(hparams)
    learn(first, range(1, 6))
    forgetful = Training(hparams, first.tensors(), rate=0.01, end=10, precision="float32")
    learn(first, [6])
    learn(forgetful, [6])
    assert (first.tensors()["model/wte"] != forgetful.tensors()["model/wte"]).any()


def test_another_networks_optimizer_state_is_refused(hparams: Hparams) -> None:
    trained = training(hparams)
    learn(trained, [1])
    state = trained.optimizer_state()
    wrong_shape = state | {"transformer.wpe.weight.exp_avg": np.zeros((3, 3), np.float32)}
    without_one = {name: tensor for name, tensor in state.items() if name != "transformer.wte.weight.exp_avg_sq"}
    with pytest.raises(InputError, match=r"transformer\.wpe\.weight\.exp_avg is missing or of another shape"):
        training(hparams).restore_optimizer(wrong_shape, 1)
    with pytest.raises(InputError, match=r"transformer\.wte\.weight\.exp_avg_sq is missing or of another shape"):
        training(hparams).restore_optimizer(without_one, 1)


def test_training_lowers_the_loss(hparams: Hparams) -> None:
    trained = training(hparams, end=30)
    losses = [trained.step(step, *batch(0, hparams)) for step in range(1, 31)]
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
    blank = Training(hparams, nothing, rate=0.01, end=1, precision="float32")
    tokenizer = tiny.tokenizer()
    found = blank.evaluate(examples([DOG], tokenizer, COMPACT, hparams.n_ctx), 1)
    assert found.loss == pytest.approx(math.log(hparams.n_vocab))
    title_tokens = len(tokenizer.encode([DOG.title or ""])[0].ids) + 1
    assert found.bits_per_char == pytest.approx(math.log2(hparams.n_vocab) * title_tokens / 3)


def test_bits_per_character_of_literal_records_count_the_spelled_out_end(hparams: Hparams, tiny: ModelDir) -> None:
    nothing = {name: np.zeros(shape, np.float32) for name, shape in hparams.shapes().items()}
    blank = Training(hparams, nothing, rate=0.01, end=1, precision="float32")
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
