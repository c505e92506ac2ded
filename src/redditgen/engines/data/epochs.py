"""The endless sequence of batches of a training on records, epoch after epoch.

An epoch visits every record once, in ceil(records / batch size) batches:

1. Shuffle the numbers of the records, with a generator seeded by (seed, epoch), and cut them into pools.
2. Tokenize the records of one pool, with the keywords drawn for this epoch.
3. Sort the pool by length, cut it into batches and shuffle these, with a generator seeded by (seed, epoch, pool).

So a batch follows from the seed and its number alone, and a resumed training gets the batches that an uninterrupted one
would have got. Resuming costs one shuffle and one pool: earlier epochs and pools are skipped without being computed.
Memory holds the numbers of all records and the tokens of one pool.
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
    number: int, data: Examples | DynamicExamples, size: int, seed: int, *, titles_only: bool
) -> "Iterator[tuple[Batch, int]]":
    """Yield batches without end, from batch `number` on, counted from 0 over all epochs.

    Each comes as ((inputs, targets), tokens): both tensors [rows, positions] int64, as of `pad_batch`, and the number
    of targets that are not padding. A batch has `size` rows; one batch of an epoch may have fewer. With `titles_only`,
    all targets but the tokens of a title and of its end are IGNORED_TARGET; `tokens` still counts them.
    """
    epoch, number = divmod(number, -(-len(data) // size))
    while True:
        first_pool, done = divmod(number, POOL_BATCHES)
        pools = shuffle_into_pools(len(data), size, np.random.default_rng([seed, epoch]))
        for pool_number, record_numbers in enumerate(pools[first_pool:], start=first_pool):
            pool = data.pool(epoch, record_numbers)
            batches = batches_by_length(pool.sequences.lengths, size, np.random.default_rng([seed, epoch, pool_number]))
            yield from (_tensors(pool, indices, titles_only) for indices in batches[done:])
            done = 0  # only the first pool is entered midway
        epoch, number = epoch + 1, 0


def _tensors(pool: Examples, indices: "NDArray[np.int64]", titles_only: bool) -> "tuple[Batch, int]":
    inputs, targets = pad_batch(pool.sequences, indices)
    tokens = int((targets != IGNORED_TARGET).sum())
    if titles_only:
        is_title = title_mask(targets, pool.title_starts[indices], pool.title_ends[indices])
        targets = targets.masked_fill(~is_title, IGNORED_TARGET)
    return (inputs, targets), tokens
