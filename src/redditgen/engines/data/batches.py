"""Token sequences and the batches made of them.

Each record is its own sequence from position 0, so nothing leaks from one title into the next. Batches are padded at
their end; with causal attention no real token sees a pad, so no mask is needed.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

POOL_BATCHES = 256  # batches that are sorted by length together: with 32 titles each, 3% of what is computed is padding
IGNORED_TARGET = -100  # a target that counts for nothing


@dataclass(frozen=True)
class Sequences:
    """Many token sequences in one array: sequence i is `ids[starts[i]:starts[i + 1]]`."""

    ids: "NDArray[np.int32]"
    starts: "NDArray[np.int64]"

    @classmethod
    def from_rows(cls, rows: list[list[int]]) -> "Sequences":
        starts = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=starts[1:])
        return cls(np.fromiter((token for row in rows for token in row), dtype=np.int32, count=starts[-1]), starts)

    @classmethod
    def joined(cls, parts: "list[Sequences]") -> "Sequences":
        lengths = np.concatenate([np.zeros(1, np.int64), *(part.lengths for part in parts)])
        return cls(np.concatenate([np.zeros(0, np.int32), *(part.ids for part in parts)]), np.cumsum(lengths))

    def take(self, numbers: "NDArray[np.int64]") -> "Sequences":
        """Those of these numbers, in their order."""
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths[numbers])])
        rows = [self[int(number)] for number in numbers]
        return Sequences(np.concatenate([np.zeros(0, np.int32), *rows]), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> "NDArray[np.int32]":
        return self.ids[self.starts[index] : self.starts[index + 1]]

    @property
    def lengths(self) -> "NDArray[np.int64]":
        return np.diff(self.starts)


def shuffle_into_pools(count: int, size: int, generator: np.random.Generator) -> "list[NDArray[np.int64]]":
    """One epoch of `count` sequences in random order, in pools of POOL batches of `size`, the last one shorter."""
    order = generator.permutation(count)
    return [order[at : at + POOL_BATCHES * size] for at in range(0, count, POOL_BATCHES * size)]


def batches_by_length(
    lengths: "NDArray[np.int64]", size: int, generator: np.random.Generator
) -> "list[NDArray[np.int64]]":
    """One pool: every sequence once, in batches of `size` indices of similar length, in random order."""
    by_length = generator.permutation(len(lengths))
    by_length = by_length[np.argsort(lengths[by_length], kind="stable")]
    cut = [by_length[at : at + size] for at in range(0, len(by_length), size)]
    return [cut[index] for index in generator.permutation(len(cut))]


def pad_batch(sequences: Sequences, indices: "NDArray[np.int64]") -> tuple["torch.Tensor", "torch.Tensor"]:
    """Inputs and targets of a batch, both [rows, longest - 1] int64; targets beyond a row's end are IGNORED."""
    import torch

    longest = int(sequences.lengths[indices].max())
    block = np.full((len(indices), longest), IGNORED_TARGET, dtype=np.int64)
    for row, index in enumerate(indices):
        tokens = sequences[int(index)]
        block[row, : len(tokens)] = tokens
    tensor = torch.from_numpy(block)
    return tensor[:, :-1].clamp(min=0), tensor[:, 1:]


def title_mask(targets: "torch.Tensor", starts: "NDArray[np.int32]", ends: "NDArray[np.int32]") -> "torch.Tensor":
    """Which targets are tokens [start, end) of their row; target j is token j + 1."""
    import torch

    places = torch.arange(1, targets.shape[1] + 1)[None, :]
    return (places >= torch.from_numpy(starts)[:, None]) & (places < torch.from_numpy(ends)[:, None])
