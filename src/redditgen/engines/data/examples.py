"""Records as token sequences.

With compact record tokens a record is the model's one `<|endoftext|>`, its sections, and `<|endoftext|>` again. With
literal ones it is the text of its line, both tokens in pieces, as gpt-2-simple reads it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from redditgen.engines.data.batches import Sequences
from redditgen.errors import UsageError
from redditgen.gpt2.run_info import COMPACT_TOKENS
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.titles.keyword_draws import KeywordPool
from redditgen.titles.record import DELIMITERS, END_TOKEN, START_TOKEN, Record, build, escape, format_sections

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Encoding

_AT_ONCE = 8192  # records tokenized together
_SHOWN = 60  # characters of a prompt that a message shows
_TOKENS = re.compile(f"{re.escape(START_TOKEN)}|{re.escape(END_TOKEN)}")


@dataclass(frozen=True)
class Examples:
    """Tokenized records: from which token to before which each one's title and its end go, and its characters."""

    sequences: Sequences
    title_starts: "NDArray[np.int32]"
    title_ends: "NDArray[np.int32]"
    title_chars: "NDArray[np.int32]"
    cut: int = 0  # records that were longer than the context

    @classmethod
    def from_rows(
        cls, rows: list[list[int]], titles: list[tuple[int, int]], chars: list[int], cut: int = 0
    ) -> "Examples":
        """Make it of token rows, where in each the title begins and ends, and how many characters it has."""
        places = np.array(titles, dtype=np.int32).reshape(-1, 2)
        return cls(Sequences.from_rows(rows), places[:, 0], places[:, 1], np.array(chars, dtype=np.int32), cut)

    @classmethod
    def joined(cls, parts: "list[Examples]") -> "Examples":
        def column(name: str) -> "NDArray[np.int32]":
            return np.concatenate([np.zeros(0, np.int32), *(getattr(part, name) for part in parts)])

        starts, ends, chars = map(column, ("title_starts", "title_ends", "title_chars"))
        sequences = Sequences.joined([part.sequences for part in parts])
        return cls(sequences, starts, ends, chars, cut=sum(part.cut for part in parts))

    def pool(self, epoch: int, numbers: "NDArray[np.int64]") -> "Examples":
        """Those of these numbers; they are the same in every epoch."""
        columns = (self.title_starts[numbers], self.title_ends[numbers], self.title_chars[numbers])
        return Examples(self.sequences.take(numbers), *columns)

    def __len__(self) -> int:
        return len(self.sequences)


@dataclass(frozen=True)
class DynamicExamples:
    """Records, of which those that are Undrawn get other keywords every epoch; tokenized only when they are needed.

    What is drawn follows from the seed, the epoch and the record's number alone.
    """

    records: Sequence[Record]
    tokenizer: Tokenizer
    record_tokens: str
    context: int
    seed: int
    least: int  # keywords of a record
    most: int

    def pool(self, epoch: int, numbers: Iterable[int]) -> Examples:
        """The records of these numbers, tokenized with their keywords of an epoch."""
        drawn = (self._drawn(epoch, int(number)) for number in numbers)
        return tokenize_records(drawn, self.tokenizer, self.record_tokens, self.context)

    def _drawn(self, epoch: int, number: int) -> Record:
        record = self.records[number]
        if not isinstance(record, KeywordPool):
            return record
        return record.draw(Random(f"{self.seed} epoch {epoch} record {number}"), self.least, self.most)

    def too_long(self) -> int:
        """How many records may be longer than the context in some epoch, and are then cut."""
        longest = (r.draw_longest(self.most) if isinstance(r, KeywordPool) else r for r in self.records)
        # No token is shorter than a byte, so only few are looked at.
        near = (r for r in longest if len(build(r).encode()) > self.context)
        return tokenize_records(near, self.tokenizer, self.record_tokens, self.context).cut

    def __len__(self) -> int:
        return len(self.records)


def tokenize_records(records: Iterable[Record], tokenizer: Tokenizer, record_tokens: str, context: int) -> Examples:
    """Tokenize records; what lies beyond `context` tokens is cut off."""
    return Examples.joined([_tokenized(some, tokenizer, record_tokens, context) for some in _batched(records)])


def _tokenized(records: list[Record], tokenizer: Tokenizer, record_tokens: str, context: int) -> Examples:
    texts, from_chars, to_chars = zip(*(_text(record, record_tokens) for record in records), strict=True)
    around = [tokenizer.end] if record_tokens == COMPACT_TOKENS else []
    rows: list[list[int]] = []
    titles: list[tuple[int, int]] = []
    for encoding, from_char, to_char in zip(tokenizer.encode(texts), from_chars, to_chars, strict=True):
        row = around + encoding.ids + around
        start = len(around) + _tokens_before(encoding, from_char)
        end = len(row) if to_char is None else len(around) + sum(start < to_char for start, _ in encoding.offsets)
        titles.append((min(start, context), min(end, context)))
        rows.append(row)
    cut = sum(len(row) > context for row in rows)
    chars = [len(record.title or "") for record in records]
    return Examples.from_rows([row[:context] for row in rows], titles, chars, cut)


def _tokens_before(encoding: "Encoding", char: int) -> int:
    """How many tokens end at or before a character."""
    token = encoding.char_to_token(char)
    return len(encoding) if token is None else token


def tokenize_prompts(texts: list[str], tokenizer: Tokenizer, record_tokens: str) -> list[list[int]]:
    """Tokenize what texts shall begin with; nothing becomes the end token, as in gpt-2-simple.

    With compact record tokens each start and end token in a text becomes the model's one.
    """
    if record_tokens != COMPACT_TOKENS:
        return [e.ids or [tokenizer.end] for e in tokenizer.encode(texts)]
    return [_compact(text, tokenizer) or [tokenizer.end] for text in texts]


def longest_prompt_length(ids: Sequence[Sequence[int]], prompts: Sequence[str], context: int) -> int:
    """The tokens of the longest prompt; raises UsageError, which names it, where it leaves no room in the context."""
    number = max(range(len(ids)), key=lambda row: len(ids[row]))
    longest = len(ids[number])
    if longest >= context:
        shown = repr(prompts[number][:_SHOWN]) + ("..." if len(prompts[number]) > _SHOWN else "")
        raise UsageError(f"a prompt of {longest} tokens fills the model's context of {context}: {shown}")
    return longest


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


def _text(record: Record, record_tokens: str) -> tuple[str, int, int | None]:
    """A record's text to tokenize, and the characters in it from its title through the mark that ends it.

    None for the latter is the text's end, and with it the token that ends the record.
    """
    text = format_sections(record)
    behind = 0 if record.body is None else len(DELIMITERS["body"]) + len(escape(record.body))
    from_char = len(text) - behind - len(escape(record.title or ""))
    to_char = None if record.body is None else len(text) - len(escape(record.body))
    if record_tokens == COMPACT_TOKENS:
        return text, from_char, to_char
    return (
        START_TOKEN + text + END_TOKEN,
        len(START_TOKEN) + from_char,
        None if to_char is None else len(START_TOKEN) + to_char,
    )
