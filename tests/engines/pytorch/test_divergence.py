import math
from collections.abc import Iterable

import numpy as np
import pytest

from redditgen.engines.pytorch.divergence import FIRST_STEPS, LAST_STEPS, DivergenceDetector

N_VOCAB = 50257


def looked_at(losses: Iterable[float], n_vocab: int = N_VOCAB) -> tuple[int | None, int | None]:
    """The first steps at which a divergence may be and is certain."""
    divergence = DivergenceDetector(n_vocab)
    may_be_diverging = certain = None
    for step, loss in enumerate(losses, start=1):
        divergence.add(loss)
        may_be_diverging = may_be_diverging or (step if divergence.may_be_diverging else None)
        certain = certain or (step if divergence.has_diverged else None)
    return may_be_diverging, certain


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("spread", [0.1, 0.8])
def test_healthy_losses_are_never_taken_for_others(seed: int, spread: float) -> None:
    """Also with a title a step, whose losses lie far apart: falling, flat, from chance on, and as overfitted ones."""
    noise = np.random.default_rng(seed).normal(0, spread, 2000)
    steps = np.arange(2000)
    for course in (3 + 2 * np.exp(-steps / 200), np.full(2000, 4.5), 4 + 6.9 * np.exp(-steps / 300), 6 / (1 + steps)):
        assert looked_at(np.maximum(course + noise, 0.01)) == (None, None)


def test_a_bump_that_passes_is_none() -> None:
    losses = np.full(500, 4.0)
    losses[200:203] = 8.0
    assert looked_at(losses) == (None, None)


def test_a_loss_that_goes_up_and_stays_is_one() -> None:
    losses = np.full(300, 4.5)
    losses[100:] = 7.5
    may_be_diverging, certain = looked_at(losses)
    assert may_be_diverging is not None and certain is not None
    assert 100 < may_be_diverging <= 110 < certain <= 100 + LAST_STEPS


def test_one_is_seen_within_the_first_steps_too() -> None:
    losses = [4.5, 5.0, 9.0, *np.full(FIRST_STEPS, 40.0)]
    may_be_diverging, certain = looked_at(losses)
    assert may_be_diverging is not None and may_be_diverging <= 6
    assert certain == LAST_STEPS


def test_a_network_that_is_worse_than_chance_at_first_may_learn() -> None:
    assert looked_at(np.linspace(15, 9, 300)) == (None, None)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_what_is_no_number_is_one_at_once(loss: float) -> None:
    assert looked_at([loss])[1] == 1
    assert looked_at([4.0] * 30 + [loss]) == (31, 31)


def test_a_step_that_spoils_the_weights_is_seen_before_they_are_saved() -> None:
    divergence = DivergenceDetector(N_VOCAB)
    divergence.add(4.0)
    assert [divergence.last_step_spoilt_weights(loss) for loss in (3.5, 4.5, 9.0, math.nan)] == [
        False,
        False,
        True,
        True,
    ]
