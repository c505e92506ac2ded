"""Records as token sequences, split into those to train on and those held out.

With compact record tokens a record is the model's one `<|endoftext|>`, its sections, and `<|endoftext|>` again. With
literal ones it is the text of its line, both tokens in pieces, as gpt-2-simple reads it.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from redditgen.gpt2.batches import Sequences
from redditgen.gpt2.rundir import COMPACT
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.markup import END, MARKS, START, Record, escape, sections_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

_AT_ONCE = 8192  # records tokenized together
_TOKENS = re.compile(f"{re.escape(START)}|{re.escape(END)}")


@dataclass(frozen=True)
class Examples:
    """Tokenized records: from which token to before which each one's title and its end go, and its characters."""

    sequences: Sequences
    title_starts: "NDArray[np.int32]"
    title_ends: "NDArray[np.int32]"
    title_chars: "NDArray[np.int32]"
    cut: int = 0  # records that were longer than the context

    @classmethod
    def of(cls, rows: list[list[int]], titles: list[tuple[int, int]], chars: list[int], cut: int = 0) -> "Examples":
        """Make it of token rows, where in each the title begins and ends, and how many characters it has."""
        places = np.array(titles, dtype=np.int32).reshape(-1, 2)
        return cls(Sequences.of(rows), places[:, 0], places[:, 1], np.array(chars, dtype=np.int32), cut)

    def __len__(self) -> int:
        return len(self.sequences)


def is_held_out(title: str, fraction: float, seed: int) -> bool:
    """Whether a title is held out: by its own text, so that all its repeats are, in whatever order they come."""
    digest = hashlib.blake2b(f"{seed}:{title}".encode("utf8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) < fraction * 2**64


def examples(records: Iterable[Record], tokenizer: Tokenizer, record_tokens: str, context: int) -> Examples:
    """Tokenize records; what lies beyond `context` tokens is cut off."""
    rows: list[list[int]] = []
    titles: list[tuple[int, int]] = []
    chars: list[int] = []
    cut = 0
    around = [tokenizer.end] if record_tokens == COMPACT else []
    for some in _batched(records):
        texts, from_chars, to_chars = zip(*(_text(record, record_tokens) for record in some), strict=True)
        encodings = tokenizer.encode(texts)
        for record, encoding, from_char, to_char in zip(some, encodings, from_chars, to_chars, strict=True):
            row = around + encoding.ids + around
            cut += len(row) > context
            rows.append(row[:context])
            start = len(around) + sum(end <= from_char for _, end in encoding.offsets)
            behind = around if record.body is None else []
            end = len(around) + sum(start < to_char for start, _ in encoding.offsets) + len(behind)
            titles.append((min(start, context), min(end, context)))
            chars.append(len(record.title or ""))
    return Examples.of(rows, titles, chars, cut)


def prompt_ids(texts: list[str], tokenizer: Tokenizer, record_tokens: str) -> list[list[int]]:
    """Tokenize what texts shall begin with; nothing becomes the end token, as in gpt-2-simple.

    With compact record tokens each start and end token in a text becomes the model's one.
    """
    if record_tokens != COMPACT:
        return [e.ids or [tokenizer.end] for e in tokenizer.encode(texts)]
    return [_compact(text, tokenizer) or [tokenizer.end] for text in texts]


def _compact(text: str, tokenizer: Tokenizer) -> list[int]:
    first, *others = tokenizer.encode(_TOKENS.split(text))
    return first.ids + [token for encoding in others for token in (tokenizer.end, *encoding.ids)]


def _batched(records: Iterable[Record]) -> Iterator[list[Record]]:
    some: list[Record] = []
    for record in records:
        some.append(record)
        if len(some) == _AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def _text(record: Record, record_tokens: str) -> tuple[str, int, int]:
    """A record's text to tokenize, and the characters in it from its title through the token or mark that ends it."""
    text = sections_text(record)
    body = "" if record.body is None else escape(record.body)
    to_char = len(text) - len(body)
    from_char = to_char - len(escape(record.title or "")) - (0 if record.body is None else len(MARKS["body"]))
    if record_tokens == COMPACT:
        return text, from_char, to_char
    end = len(END) if record.body is None else 0
    return START + text + END, len(START) + from_char, len(START) + to_char + end
