"""MinHash signatures of texts, cut into bands for locality-sensitive hashing (LSH).

Similarity is the Jaccard similarity of the texts' sets of character trigrams. A signature has BANDS * ROWS = 36 values:
the minima of the trigrams' hashes under 36 permutations. The ROWS values of each band are hashed to one key. Two texts
of similarity s share at least one key with probability 1 - (1 - s**ROWS)**BANDS: 0.991 at 0.8, 0.91 at 0.7, 0.71 at
0.6. The permutations are those of datasketch's "affine32", computed for many texts at once with numpy.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BANDS, ROWS = 9, 4

# A fixed seed: the keys in a saved index depend on these numbers.
_FACTORS, _OFFSETS = np.random.RandomState(1).randint(0, 1 << 32, (2, BANDS * ROWS, 1), np.uint32)
_FACTORS |= np.uint32(1)  # odd factors are invertible modulo 2**32, so that no two hashes collide


def band_keys(texts: Sequence[str]) -> "NDArray[np.uint32]":
    """Return a key for each band and each of n normalised titles, none of them empty: shape (BANDS, n).

    Two titles of similarity s have the same key in a band with probability s**ROWS.
    """
    padded = [f" {text} " for text in texts]
    chars = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    starts = np.cumsum([0, *map(len, padded)])
    trigrams = (chars[:-2] << np.uint64(42)) | (chars[1:-1] << np.uint64(21)) | chars[2:]
    # Of all the text in one array, the trigrams that span two titles are left out.
    trigram_hashes = np.delete(_mix(trigrams), np.concatenate([starts[1:-1] - 2, starts[1:-1] - 1]))
    hashes = trigram_hashes * _FACTORS + _OFFSETS  # as datasketch's affine32, modulo 2**32
    minima = np.minimum.reduceat(hashes, starts[:-1] - 2 * np.arange(len(texts)), axis=1)
    bands = minima.reshape(BANDS, ROWS, -1).astype(np.uint64)
    keys = np.arange(BANDS, dtype=np.uint64)[:, None]
    for row in range(ROWS):
        keys = _mix((keys << np.uint64(32)) | bands[:, row]).astype(np.uint64)
    return keys.astype(np.uint32)


def _mix(values: "NDArray[np.uint64]") -> "NDArray[np.uint32]":
    """Hash 64-bit values to 32 bits with MurmurHash3's 64-bit finalizer."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return (values ^ (values >> np.uint64(33))).astype(np.uint32)
