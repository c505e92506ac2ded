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

POOL = 64  # batches that are sorted by length together
IGNORED = -100  # a target that counts for nothing


@dataclass(frozen=True)
class Sequences:
    """Many token sequences in one array: sequence i is `ids[starts[i]:starts[i + 1]]`."""

    ids: "NDArray[np.int32]"
    starts: "NDArray[np.int64]"

    @classmethod
    def of(cls, rows: list[list[int]]) -> "Sequences":
        starts = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=starts[1:])
        return cls(np.fromiter((token for row in rows for token in row), dtype=np.int32, count=starts[-1]), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> "NDArray[np.int32]":
        return self.ids[self.starts[index] : self.starts[index + 1]]

    @property
    def lengths(self) -> "NDArray[np.int64]":
        return np.diff(self.starts)


def batches(lengths: "NDArray[np.int64]", size: int, generator: np.random.Generator) -> "list[NDArray[np.int64]]":
    """One epoch: every sequence once, in batches of `size` indices of similar length, in random order."""
    order = generator.permutation(len(lengths))
    cut: list[NDArray[np.int64]] = []
    for start in range(0, len(order), POOL * size):
        pool = order[start : start + POOL * size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        cut += [pool[at : at + size] for at in range(0, len(pool), size)]
    return [cut[index] for index in generator.permutation(len(cut))]


def padded(sequences: Sequences, indices: "NDArray[np.int64]") -> tuple["torch.Tensor", "torch.Tensor"]:
    """Inputs and targets of a batch, both [rows, longest - 1] int64; targets beyond a row's end are IGNORED."""
    import torch

    longest = int(sequences.lengths[indices].max())
    block = np.full((len(indices), longest), IGNORED, dtype=np.int64)
    for row, index in enumerate(indices):
        tokens = sequences[int(index)]
        block[row, : len(tokens)] = tokens
    tensor = torch.from_numpy(block)
    return tensor[:, :-1].clamp(min=0), tensor[:, 1:]
