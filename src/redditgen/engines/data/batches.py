"""Token sequences, and how they are grouped by length into padded batches.

Each record is a sequence of its own that starts at position 0, so no title is predicted from another one. Rows of a
batch are padded at their end. With causal attention no token attends to a later one, so padding needs no attention
mask.

To spend little on padding while the order stays random, an epoch's sequences are shuffled and cut into pools of
POOL_BATCHES batches. Each pool is sorted by length, cut into batches, and the batches are shuffled. This takes
O(n log n) time for the n sequences of a pool, and one permutation of the epoch in memory.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

POOL_BATCHES = 256  # batches whose sequences are sorted together; with 32 titles each, 3% of the positions are padding
IGNORED_TARGET = -100  # a target without a loss: PyTorch's default `ignore_index` of cross_entropy


@dataclass(frozen=True)
class Sequences:
    """Token sequences in one array: sequence i is `ids[starts[i]:starts[i + 1]]`."""

    ids: "NDArray[np.int32]"
    """The tokens of all sequences, one after another, [tokens]."""
    starts: "NDArray[np.int64]"
    """Where each sequence starts in `ids`, and where the last one ends, [sequences + 1]."""

    @classmethod
    def from_rows(cls, rows: list[list[int]]) -> "Sequences":
        """Return the sequences that are given as lists of tokens."""
        starts = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=starts[1:])
        return cls(np.fromiter((token for row in rows for token in row), dtype=np.int32, count=starts[-1]), starts)

    @classmethod
    def joined(cls, parts: "list[Sequences]") -> "Sequences":
        """Return the sequences of all parts, in order; none where there are no parts."""
        lengths = np.concatenate([np.zeros(1, np.int64), *(part.lengths for part in parts)])
        return cls(np.concatenate([np.zeros(0, np.int32), *(part.ids for part in parts)]), np.cumsum(lengths))

    def take(self, numbers: "NDArray[np.int64]") -> "Sequences":
        """Return a copy of the sequences with these numbers, in the given order."""
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths[numbers])])
        rows = [self[int(number)] for number in numbers]
        return Sequences(np.concatenate([np.zeros(0, np.int32), *rows]), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> "NDArray[np.int32]":
        """Return the tokens of one sequence, [length], as a view."""
        return self.ids[self.starts[index] : self.starts[index + 1]]

    @property
    def lengths(self) -> "NDArray[np.int64]":
        """The number of tokens of each sequence, [sequences]."""
        return np.diff(self.starts)


def shuffle_into_pools(count: int, size: int, generator: np.random.Generator) -> "list[NDArray[np.int64]]":
    """Return the numbers 0 to `count` - 1 in random order, cut into pools.

    A pool holds the sequences of POOL_BATCHES batches of `size`; the last one may be shorter.
    """
    order = generator.permutation(count)
    return [order[start : start + POOL_BATCHES * size] for start in range(0, count, POOL_BATCHES * size)]


def batches_by_length(
    lengths: "NDArray[np.int64]", size: int, generator: np.random.Generator
) -> "list[NDArray[np.int64]]":
    """Cut a pool into batches of sequences of similar length, in random order.

    `lengths`, [sequences], are those of the pool. Returns the batches as arrays of indices into it, each of `size`
    indices but for one that may have fewer. Every index occurs once; sequences of equal length are in random order.
    """
    by_length = generator.permutation(len(lengths))
    by_length = by_length[np.argsort(lengths[by_length], kind="stable")]
    batches = [by_length[start : start + size] for start in range(0, len(by_length), size)]
    return [batches[index] for index in generator.permutation(len(batches))]


def pad_batch(sequences: Sequences, indices: "NDArray[np.int64]") -> tuple["torch.Tensor", "torch.Tensor"]:
    """Return the inputs and targets of a batch, both [rows, longest - 1] int64.

    Row i holds sequence `indices[i]`: its tokens but the last as inputs, its tokens but the first as targets. After a
    sequence's end, inputs are 0 and targets are IGNORED_TARGET. Where a row is shorter than the longest, its last token
    is an input too, without a target.
    """
    import torch

    longest = int(sequences.lengths[indices].max())
    padded = np.full((len(indices), longest), IGNORED_TARGET, dtype=np.int64)
    for row, index in enumerate(indices):
        tokens = sequences[int(index)]
        padded[row, : len(tokens)] = tokens
    tensor = torch.from_numpy(padded)
    return tensor[:, :-1].clamp(min=0), tensor[:, 1:]


def title_mask(targets: "torch.Tensor", starts: "NDArray[np.int32]", ends: "NDArray[np.int32]") -> "torch.Tensor":
    """Return which targets are tokens `starts[i]` to before `ends[i]` of their row i, bool [rows, targets].

    Target j of a row is token j + 1 of its sequence. `starts` and `ends` are [rows].
    """
    import torch

    positions = torch.arange(1, targets.shape[1] + 1)[None, :]
    return (positions >= torch.from_numpy(starts)[:, None]) & (positions < torch.from_numpy(ends)[:, None])
