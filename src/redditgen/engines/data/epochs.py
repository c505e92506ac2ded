"""The batches of a training on records, one after another, through as many epochs as are asked for.

What is in a batch follows from the seed and the batch's number alone, so a training that goes on gets those it would
have got.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from redditgen.engines.data.batches import (
    IGNORED_TARGET,
    POOL_BATCHES,
    batches_by_length,
    pad_batch,
    shuffle_into_pools,
    title_mask,
)
from redditgen.engines.data.examples import DynamicExamples, Examples

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Batch = tuple[torch.Tensor, torch.Tensor]


def training_batches(
    number: int, data: Examples | DynamicExamples, size: int, seed: int, *, titles_alone: bool
) -> "Iterator[tuple[Batch, int]]":
    """Inputs and targets, and how many tokens they have, from the batch of this number, counted from 0, on; never ends.

    With `titles_alone` only the tokens of a title and of its end are targets that count. Padding is no token.
    """
    epoch, number = divmod(number, -(-len(data) // size))
    while True:
        first, done = divmod(number, POOL_BATCHES)
        order = shuffle_into_pools(len(data), size, np.random.default_rng([seed, epoch]))
        for place, numbers in enumerate(order[first:], start=first):
            pool = data.pool(epoch, numbers)
            cut = batches_by_length(pool.sequences.lengths, size, np.random.default_rng([seed, epoch, place]))
            yield from (_tensors(pool, indices, titles_alone) for indices in cut[done:])
            done = 0
        epoch, number = epoch + 1, 0


def _tensors(pool: Examples, indices: "NDArray[np.int64]", titles_alone: bool) -> "tuple[Batch, int]":
    inputs, targets = pad_batch(pool.sequences, indices)
    tokens = int((targets != IGNORED_TARGET).sum())
    if titles_alone:
        counts = title_mask(targets, pool.title_starts[indices], pool.title_ends[indices])
        targets = targets.masked_fill(~counts, IGNORED_TARGET)
    return (inputs, targets), tokens
