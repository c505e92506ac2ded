"""MinHash of texts, cut into bands: texts that have the key of a band in common are likely to be similar.

Similar is by Jaccard, of their runs of three characters. Two texts of similarity s have some key in common with a
probability of 1 - (1 - s**ROWS)**BANDS: 0.991 at 0.8, 0.91 at 0.7, 0.71 at 0.6. The permutations are those of
datasketch's "affine32", for many texts at once.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BANDS, ROWS = 9, 4

_FACTORS, _SUMMANDS = np.random.RandomState(1).randint(0, 1 << 32, (2, BANDS * ROWS, 1), np.uint32)  # never changes
_FACTORS |= np.uint32(1)  # odd, so that it maps no two hashes to one


def band_keys(texts: Sequence[str]) -> "NDArray[np.uint32]":
    """A key for each band, of normalised titles of which none is empty: shape (BANDS, n).

    Two titles have the same key with probability s**ROWS, s being their similarity.
    """
    padded = [f" {text} " for text in texts]
    chars = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    starts = np.cumsum([0, *map(len, padded)])
    runs = (chars[:-2] << np.uint64(42)) | (chars[1:-1] << np.uint64(21)) | chars[2:]
    inside = np.delete(_mixed(runs), np.concatenate([starts[1:-1] - 2, starts[1:-1] - 1]))
    hashes = inside * _FACTORS + _SUMMANDS  # as datasketch's affine32, modulo 2**32
    least = np.minimum.reduceat(hashes, starts[:-1] - 2 * np.arange(len(texts)), axis=1)
    bands = least.reshape(BANDS, ROWS, -1).astype(np.uint64)
    found = np.arange(BANDS, dtype=np.uint64)[:, None]
    for row in range(ROWS):
        found = _mixed((found << np.uint64(32)) | bands[:, row]).astype(np.uint64)
    return found.astype(np.uint32)


def _mixed(values: "NDArray[np.uint64]") -> "NDArray[np.uint32]":
    """32 bits in which every bit of the values counts: MurmurHash3's finalizer."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return (values ^ (values >> np.uint64(33))).astype(np.uint32)
