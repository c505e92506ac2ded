"""Records as token sequences, split into those to train on and those held out.

With compact record tokens a record is the model's one `<|endoftext|>`, its sections, and `<|endoftext|>` again. With
literal ones it is the text of its line, both tokens in pieces, as gpt-2-simple reads it.
"""

import hashlib
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


@dataclass(frozen=True)
class Examples:
    """Tokenized records: where each one's title starts (index of its first token) and how many characters it has."""

    sequences: Sequences
    title_starts: "NDArray[np.int32]"
    title_chars: "NDArray[np.int32]"
    cut: int  # records that were longer than the context

    def __len__(self) -> int:
        return len(self.sequences)


def is_held_out(title: str, fraction: float, seed: int) -> bool:
    """Whether a title is held out: by its own text, so that all its repeats are, in whatever order they come."""
    digest = hashlib.blake2b(f"{seed}:{title}".encode("utf8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) < fraction * 2**64


def examples(records: Iterable[Record], tokenizer: Tokenizer, record_tokens: str, context: int) -> Examples:
    """Tokenize records; what lies beyond `context` tokens is cut off."""
    rows: list[list[int]] = []
    starts: list[int] = []
    chars: list[int] = []
    cut = 0
    for some in _batched(records):
        prefixes, texts = zip(*(_texts(record, record_tokens) for record in some), strict=True)
        around = [tokenizer.end] if record_tokens == COMPACT else []
        for record, prefix, encoding in zip(some, prefixes, tokenizer.encode(texts), strict=True):
            row = around + encoding.ids + around
            cut += len(row) > context
            rows.append(row[:context])
            before = sum(end <= len(prefix) for _, end in encoding.offsets)
            starts.append(min(len(around) + before, context))
            chars.append(len(record.title or ""))
    return Examples(Sequences.of(rows), np.array(starts, dtype=np.int32), np.array(chars, dtype=np.int32), cut)


def prompt_ids(texts: list[str], tokenizer: Tokenizer, record_tokens: str) -> list[list[int]]:
    """Tokenize the starts of records, each beginning with the start token."""
    if record_tokens == COMPACT:
        return [[tokenizer.end, *e.ids] for e in tokenizer.encode([text.removeprefix(START) for text in texts])]
    return [e.ids for e in tokenizer.encode(texts)]


def _batched(records: Iterable[Record]) -> Iterator[list[Record]]:
    some: list[Record] = []
    for record in records:
        some.append(record)
        if len(some) == _AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def _texts(record: Record, record_tokens: str) -> tuple[str, str]:
    """A record's text to tokenize, and the part of it before its title."""
    text = sections_text(record)
    behind = "" if record.body is None else MARKS["body"] + escape(record.body)
    title = escape(record.title or "")
    before = text[: len(text) - len(behind) - len(title)]
    return (before, text) if record_tokens == COMPACT else (START + before, START + text + END)
