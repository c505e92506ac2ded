"""Whether a title copies one that a run learned from: the index of those titles, kept in the run's folder.

It is an 'exact' copy where `normalised` makes both the same, and else 'near' where `near_copies` says so. Near copies
are found by MinHash LSH with tables in numpy arrays, 150 bytes a title with its text: those of datasketch 2.0.0 take
3,200 and, being pickled sets, 500 times as long to load (scripts/bench/novelty.py --datasketch).
"""

import codecs
import hashlib
import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

import numpy as np

from redditgen.errors import InputError, MissingError
from redditgen.files import untrusted
from redditgen.files.atomic import atomic_write
from redditgen.titles.minhash import BANDS, band_keys
from redditgen.titles.near_copies import differ_in_key_words, jaccard_similarity, trigrams

if TYPE_CHECKING:
    from numpy.typing import NDArray

INDEX_FILE = "training_titles.npz"
DEFAULT_THRESHOLD = 0.8

_FORMAT = 1  # another one whenever `normalised` or a hash changes
_CHUNK = 512  # titles hashed at a time: 4 MB of hashes, which stay in the cache
_PIECE = 1 << 20  # bytes of text checked at a time
_APOSTROPHES = frozenset("'‘’ʼ`′")


class _Folding(dict[int, str]):
    """For str.translate: what becomes of a character, found out when it is first met."""

    def __missing__(self, point: int) -> str:
        char = chr(point)
        kind = unicodedata.category(char)
        if char in _APOSTROPHES or kind in ("Cf", "Me") or 0xFE00 <= point <= 0xFE0F:  # those say how to draw another
            folded = ""
        else:
            folded = char if kind[0] in "LNM" else " "
        self[point] = folded
        return folded


_FOLDING = _Folding()


def normalise_title(title: str) -> str:
    """A title's letters and digits, without case, and single blanks; of one that has none, its other characters."""
    if title.isascii():
        folded = title.lower()
    else:
        plain = title.replace("´", "'")  # to NFKC a blank with an accent
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", plain).casefold())
    return " ".join(folded.translate(_FOLDING).split()) or " ".join(folded.split())


@dataclass(frozen=True)
class CopyMatch:
    """The title of the index that another one copies, and how."""

    kind: Literal["exact", "near"]
    similarity: float
    title: str


class _Arrays(NamedTuple):
    """What is kept of n titles."""

    text: "NDArray[np.uint8]"  # all titles as they were written, in UTF-8
    lengths: "NDArray[np.uint32]"  # (n,), bytes
    digests: "NDArray[np.uint64]"  # (n,), of the normalised titles
    sizes: "NDArray[np.uint32]"  # (n,), the numbers of their runs
    keys: "NDArray[np.uint32]"  # (n * BANDS,), ascending
    owners: "NDArray[np.uint32]"  # (n * BANDS,), the title of each key


_KINDS = (np.uint8, np.uint32, np.uint64, np.uint32, np.uint32, np.uint32)


class TitleIndex:
    """Titles, each once however it is written, in the order they came."""

    def __init__(self, arrays: _Arrays) -> None:
        self._arrays = arrays
        self._starts = np.concatenate([[0], np.cumsum(arrays.lengths, dtype=np.int64)])

    @classmethod
    def from_titles(cls, titles: Iterable[str]) -> "TitleIndex":
        nothing: list[NDArray[Any]] = [np.empty(0, kind) for kind in _KINDS]
        return cls(_Arrays(*nothing)).extended(titles)

    def extended(self, titles: Iterable[str]) -> "TitleIndex":
        """The index with more titles behind its own; itself if it has them all."""
        parts = [self._arrays]
        number = len(self)
        for chunk in _chunks(titles, set(self._arrays.digests.tolist())):
            parts.append(_hashed(chunk, number))
            number += len(chunk)
        return TitleIndex(_joined(parts)) if len(parts) > 1 else self

    def __len__(self) -> int:
        return len(self._arrays.lengths)

    def __iter__(self) -> Iterator[str]:
        """The titles as they were first written."""
        return map(self._title, range(len(self)))

    def find_copy(self, title: str, threshold: float = DEFAULT_THRESHOLD) -> CopyMatch | None:
        """The training title that this one copies, the most similar first; None if it copies none.

        A near one is found with a probability of at least 0.991 from 0.8 on, 0.91 from 0.7, 0.71 from 0.6.
        """
        return next(self.find_copies([title], threshold))

    def find_copies(self, titles: Sequence[str], threshold: float = DEFAULT_THRESHOLD) -> Iterator[CopyMatch | None]:
        """The same for each of some titles, whose keys are made together, which is faster."""
        texts = [normalise_title(title) for title in titles]
        hashed = iter(band_keys([text for text in texts if text]).T if any(texts) else ())
        yield from (self._similar(text, next(hashed), threshold) if text else None for text in texts)

    def _similar(self, text: str, wanted: "NDArray[np.uint32]", threshold: float) -> CopyMatch | None:
        runs = trigrams(text)
        best: CopyMatch | None = None
        for candidate in self._candidates(wanted, len(runs), threshold):
            other = normalise_title(candidate)
            if other == text:
                return CopyMatch("exact", 1.0, candidate)
            found = jaccard_similarity(runs, trigrams(other))
            is_better = found >= threshold and (best is None or found > best.similarity)
            if is_better and not differ_in_key_words(text, other):
                best = CopyMatch("near", found, candidate)
        return best

    def save(self, folder: Path) -> None:
        with atomic_write(folder / INDEX_FILE) as temporary, temporary.open("wb") as file:
            np.savez(file, format=_FORMAT, **self._arrays._asdict())

    @classmethod
    def load(cls, folder: Path) -> "TitleIndex":
        path = folder / INDEX_FILE
        try:
            with path.open("rb") as file:
                return cls(_read(file))
        except FileNotFoundError as error:
            raise MissingError(f"{path}: no such file; `redditgen finetune` on the run's dataset makes it") from error
        except OSError as error:
            raise InputError(f"{path}: can't be read: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: is broken or of another version; delete it, and `redditgen finetune` on the run's dataset "
                "makes it anew"
            ) from error

    def _candidates(self, wanted: "NDArray[np.uint32]", size: int, threshold: float) -> Iterator[str]:
        """Titles that may be as similar as that, and all that are the same, in their order."""
        arrays = self._arrays
        first, last = arrays.keys.searchsorted(wanted), arrays.keys.searchsorted(wanted, "right")
        spans = [arrays.owners[start:end] for start, end in zip(first, last, strict=True)]
        owners = np.unique(np.concatenate(spans))
        sizes = arrays.sizes[owners]
        # Two sets are at most as similar as their sizes are.
        may_be = np.minimum(sizes, size) >= threshold * np.maximum(sizes, size)
        yield from map(self._title, owners[may_be].tolist())

    def _title(self, number: int) -> str:
        start, end = self._starts[number : number + 2]
        return self._arrays.text[start:end].tobytes().decode("utf8", "surrogatepass")


def _chunks(titles: Iterable[str], known: set[int]) -> Iterator[list[tuple[str, str, int]]]:
    """Titles that are not known yet, normalised too, and their digests, which are then known."""

    def new() -> Iterator[tuple[str, str, int]]:
        for title in titles:
            text = normalise_title(title)
            digest = int.from_bytes(hashlib.blake2b(_utf8(text), digest_size=8).digest())
            if text and digest not in known:
                known.add(digest)
                yield title, text, digest

    rows = new()
    while chunk := list(itertools.islice(rows, _CHUNK)):
        yield chunk


def _utf8(text: str) -> bytes:
    return text.encode("utf8", "surrogatepass")  # JSON can hold half a pair


def _hashed(chunk: list[tuple[str, str, int]], first: int) -> _Arrays:
    """Arrays of a chunk of titles, of which the first has this number; the keys in their titles' order."""
    titles, texts, digests = zip(*chunk, strict=True)
    written = [_utf8(title) for title in titles]
    return _Arrays(
        text=np.frombuffer(b"".join(written), np.uint8),
        lengths=np.array([len(title) for title in written], np.uint32),
        digests=np.array(digests, np.uint64),
        sizes=np.array([len(trigrams(text)) for text in texts], np.uint32),
        keys=band_keys(texts).ravel(),
        owners=np.tile(np.arange(first, first + len(chunk), dtype=np.uint32), BANDS),
    )


def _joined(parts: Iterable[_Arrays]) -> _Arrays:
    joined = _Arrays(*map(np.concatenate, zip(*parts, strict=True)))
    order = joined.keys.argsort(kind="stable")
    return joined._replace(keys=joined.keys[order], owners=joined.owners[order])


def _read(file: BinaryIO) -> _Arrays:
    """The arrays of a file; raises ValueError, KeyError or TypeError where they aren't what `save` writes."""
    found = untrusted.read_arrays(file)
    if found["format"].shape or found["format"] != _FORMAT:
        raise ValueError("of another version")
    arrays = _Arrays(*(found[name] for name in _Arrays._fields))
    number = len(arrays.lengths)
    lengths = (int(arrays.lengths.sum(dtype=np.uint64)), number, number, number, number * BANDS, number * BANDS)
    shapes = [(array.dtype, array.shape) for array in arrays]
    if shapes != [(np.dtype(kind), (length,)) for kind, length in zip(_KINDS, lengths, strict=True)]:
        raise ValueError("of another shape")
    if number and arrays.owners.max() >= number:
        raise ValueError("names a title that is not there")
    _check_text(arrays)
    return arrays


def _check_text(arrays: _Arrays) -> None:
    """Raise ValueError unless the text is UTF-8 and each title begins with a character of its own."""
    decoder = codecs.getincrementaldecoder("utf8")("surrogatepass")
    for start in range(0, len(arrays.text), _PIECE):
        decoder.decode(arrays.text[start : start + _PIECE].tobytes())
    decoder.decode(b"", final=True)
    starts = np.cumsum(arrays.lengths, dtype=np.int64) - arrays.lengths
    begun = arrays.text[starts[starts < len(arrays.text)]]
    if np.any(begun & 0xC0 == 0x80):  # a byte that goes on with a character
        raise ValueError("parts a character")
