"""Detects titles that copy a training title, by an index of the training titles that is saved in the run.

A title is an 'exact' copy of another if `normalise_title` returns the same for both, and a 'near' copy if the two meet
the conditions in module `near_copies`. Candidates are found by MinHash LSH (module `minhash`): the index holds the band
keys of all titles in one sorted numpy array, which a binary search looks up; each candidate is then compared.

The index takes 150 bytes a title, its text included. The tables of datasketch 2.0.0 take 3,200 and, being pickled sets,
500 times as long to load (scripts/bench/novelty.py --datasketch).
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

_FORMAT = 1  # to be raised whenever `normalise_title` or a hash function changes
_CHUNK = 512  # titles hashed at a time: their hashes take 4 MB, which fit in the CPU's cache
_CHECKED_BYTES = 1 << 20  # bytes of text checked at a time
_APOSTROPHES = frozenset("'‘’ʼ`′")


class _CharacterFolding(dict[int, str]):
    """A table for str.translate that computes and keeps the replacement of a character when it is first looked up.

    Removes apostrophes and invisible modifiers; replaces all but letters, marks and digits by a blank.
    """

    def __missing__(self, point: int) -> str:
        char = chr(point)
        category = unicodedata.category(char)
        # Format characters, enclosing marks and variation selectors only change how another character is drawn.
        if char in _APOSTROPHES or category in ("Cf", "Me") or 0xFE00 <= point <= 0xFE0F:
            folded = ""
        else:
            folded = char if category[0] in "LNM" else " "
        self[point] = folded
        return folded


_FOLDING = _CharacterFolding()


def normalise_title(title: str) -> str:
    """Return a title's letters and digits, case-folded, with single blanks between words.

    For a title that has no letter or digit, returns its other characters, case-folded.
    """
    if title.isascii():
        folded = title.lower()
    else:
        plain = title.replace("´", "'")  # NFKC would make it a blank with an accent
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", plain).casefold())
    return " ".join(folded.translate(_FOLDING).split()) or " ".join(folded.split())


@dataclass(frozen=True)
class CopyMatch:
    """The indexed title that another title copies, the kind of copy, and their similarity (1.0 for an exact copy)."""

    kind: Literal["exact", "near"]
    similarity: float
    title: str


class _Arrays(NamedTuple):
    """The arrays of an index of n titles; their names are those in the file."""

    text: "NDArray[np.uint8]"  # all titles as they were written, in UTF-8, without separators
    lengths: "NDArray[np.uint32]"  # (n,), bytes
    digests: "NDArray[np.uint64]"  # (n,), hashes of the normalised titles
    sizes: "NDArray[np.uint32]"  # (n,), how many distinct trigrams each title has
    keys: "NDArray[np.uint32]"  # (n * BANDS,), the band keys, ascending
    owners: "NDArray[np.uint32]"  # (n * BANDS,), the number of the title that each key belongs to


_DTYPES = (np.uint8, np.uint32, np.uint64, np.uint32, np.uint32, np.uint32)


class TitleIndex:
    """An index of titles in the order in which they were added. Titles that are equal when normalised are held once."""

    def __init__(self, arrays: _Arrays) -> None:
        self._arrays = arrays
        self._starts = np.concatenate([[0], np.cumsum(arrays.lengths, dtype=np.int64)])

    @classmethod
    def from_titles(cls, titles: Iterable[str]) -> "TitleIndex":
        """Return an index of titles."""
        empty: list[NDArray[Any]] = [np.empty(0, dtype) for dtype in _DTYPES]
        return cls(_Arrays(*empty)).extended_with(titles)

    def extended_with(self, titles: Iterable[str]) -> "TitleIndex":
        """Return an index of this one's titles followed by those of `titles` that are new; itself if none is."""
        parts = [self._arrays]
        count = len(self)
        for chunk in _new_title_chunks(titles, set(self._arrays.digests.tolist())):
            parts.append(_hash_chunk(chunk, count))
            count += len(chunk)
        return TitleIndex(_merge(parts)) if len(parts) > 1 else self

    def __len__(self) -> int:
        return len(self._arrays.lengths)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the titles as they were first written."""
        return map(self._title, range(len(self)))

    def find_copy(self, title: str, threshold: float = DEFAULT_THRESHOLD) -> CopyMatch | None:
        """Return the indexed title that a title copies: an exact copy, or else the most similar; None if there is none.

        `threshold` is the least Jaccard similarity of a near copy. A near copy is found with a probability of at least
        0.991 for a similarity from 0.8, 0.91 from 0.7, and 0.71 from 0.6.
        """
        return next(self.find_copies([title], threshold))

    def find_copies(self, titles: Sequence[str], threshold: float = DEFAULT_THRESHOLD) -> Iterator[CopyMatch | None]:
        """Yield for each title what `find_copy` returns. Hashes all the titles together, which is faster."""
        texts = [normalise_title(title) for title in titles]
        keys_of_texts = iter(band_keys([text for text in texts if text]).T if any(texts) else ())
        yield from (self._find_match(text, next(keys_of_texts), threshold) if text else None for text in texts)

    def _find_match(self, text: str, keys: "NDArray[np.uint32]", threshold: float) -> CopyMatch | None:
        """Return the title that a normalised text with these band keys copies, or None."""
        text_trigrams = trigrams(text)
        best: CopyMatch | None = None
        for candidate in self._candidates(keys, len(text_trigrams), threshold):
            other = normalise_title(candidate)
            if other == text:
                return CopyMatch("exact", 1.0, candidate)
            similarity = jaccard_similarity(text_trigrams, trigrams(other))
            is_better = similarity >= threshold and (best is None or similarity > best.similarity)
            if is_better and not differ_in_key_words(text, other):
                best = CopyMatch("near", similarity, candidate)
        return best

    def save(self, folder: Path) -> None:
        """Write the index to INDEX_FILE in a folder. Raises InputError where it can't be written."""
        with atomic_write(folder / INDEX_FILE) as temporary, temporary.open("wb") as file:
            np.savez(file, format=_FORMAT, **self._arrays._asdict())

    @classmethod
    def load(cls, folder: Path) -> "TitleIndex":
        """Read the index in a folder.

        Raises MissingError where there is none, InputError where it is broken, of another version, or can't be read.
        """
        path = folder / INDEX_FILE
        try:
            with path.open("rb") as file:
                return cls(_read_arrays(file))
        except FileNotFoundError as error:
            raise MissingError(f"{path}: no such file; `redditgen finetune` on the run's dataset makes it") from error
        except OSError as error:
            raise InputError(f"{path}: can't be read: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: is broken or of another version; delete it, and `redditgen finetune` on the run's dataset "
                "makes it anew"
            ) from error

    def _candidates(self, keys: "NDArray[np.uint32]", size: int, threshold: float) -> Iterator[str]:
        """Yield, in index order, the titles that share a band key with a title of `size` trigrams.

        Leaves out those whose numbers of trigrams differ too much for a similarity of `threshold`. Exact copies are
        always included.
        """
        arrays = self._arrays
        first, last = arrays.keys.searchsorted(keys), arrays.keys.searchsorted(keys, "right")
        spans = [arrays.owners[start:end] for start, end in zip(first, last, strict=True)]
        owners = np.unique(np.concatenate(spans))
        sizes = arrays.sizes[owners]
        # The Jaccard similarity of two sets is at most the ratio of their sizes.
        can_match = np.minimum(sizes, size) >= threshold * np.maximum(sizes, size)
        yield from map(self._title, owners[can_match].tolist())

    def _title(self, number: int) -> str:
        start, end = self._starts[number : number + 2]
        return self._arrays.text[start:end].tobytes().decode("utf8", "surrogatepass")


def _new_title_chunks(titles: Iterable[str], known: set[int]) -> Iterator[list[tuple[str, str, int]]]:
    """Yield in chunks the titles whose digests are not in `known`, as (title, normalised title, digest).

    Adds the digests to `known`. Titles that are empty when normalised are left out.
    """

    def new_titles() -> Iterator[tuple[str, str, int]]:
        for title in titles:
            text = normalise_title(title)
            digest = int.from_bytes(hashlib.blake2b(_utf8(text), digest_size=8).digest())
            if text and digest not in known:
                known.add(digest)
                yield title, text, digest

    rows = new_titles()
    while chunk := list(itertools.islice(rows, _CHUNK)):
        yield chunk


def _utf8(text: str) -> bytes:
    return text.encode("utf8", "surrogatepass")  # JSON can hold half a surrogate pair


def _hash_chunk(chunk: list[tuple[str, str, int]], first: int) -> _Arrays:
    """Return the arrays of a chunk of titles, the first of which has number `first`; the keys are not sorted yet."""
    titles, texts, digests = zip(*chunk, strict=True)
    encoded = [_utf8(title) for title in titles]
    return _Arrays(
        text=np.frombuffer(b"".join(encoded), np.uint8),
        lengths=np.array([len(title) for title in encoded], np.uint32),
        digests=np.array(digests, np.uint64),
        sizes=np.array([len(trigrams(text)) for text in texts], np.uint32),
        keys=band_keys(texts).ravel(),
        owners=np.tile(np.arange(first, first + len(chunk), dtype=np.uint32), BANDS),
    )


def _merge(parts: Iterable[_Arrays]) -> _Arrays:
    """Concatenate arrays and sort the keys."""
    merged = _Arrays(*map(np.concatenate, zip(*parts, strict=True)))
    order = merged.keys.argsort(kind="stable")
    return merged._replace(keys=merged.keys[order], owners=merged.owners[order])


def _read_arrays(file: BinaryIO) -> _Arrays:
    """Read the arrays of a file. Raises ValueError, KeyError or TypeError where they aren't as `save` writes them."""
    contents = untrusted.read_arrays(file)
    if contents["format"].shape or contents["format"] != _FORMAT:
        raise ValueError("of another version")
    arrays = _Arrays(*(contents[name] for name in _Arrays._fields))
    count = len(arrays.lengths)
    lengths = (int(arrays.lengths.sum(dtype=np.uint64)), count, count, count, count * BANDS, count * BANDS)
    shapes = [(array.dtype, array.shape) for array in arrays]
    if shapes != [(np.dtype(dtype), (length,)) for dtype, length in zip(_DTYPES, lengths, strict=True)]:
        raise ValueError("of another shape")
    if count and arrays.owners.max() >= count:
        raise ValueError("names a title that is not there")
    _check_text(arrays)
    return arrays


def _check_text(arrays: _Arrays) -> None:
    """Raise ValueError unless the text is UTF-8 and no title begins in the middle of a character."""
    decoder = codecs.getincrementaldecoder("utf8")("surrogatepass")
    for start in range(0, len(arrays.text), _CHECKED_BYTES):
        decoder.decode(arrays.text[start : start + _CHECKED_BYTES].tobytes())
    decoder.decode(b"", final=True)
    starts = np.cumsum(arrays.lengths, dtype=np.int64) - arrays.lengths
    first_bytes = arrays.text[starts[starts < len(arrays.text)]]
    if np.any(first_bytes & 0xC0 == 0x80):  # a continuation byte of UTF-8
        raise ValueError("parts a character")
