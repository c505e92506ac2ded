"""Records and prompts as token sequences.

With compact record tokens, a record is the model's single token `<|endoftext|>`, the tokens of its sections, and
`<|endoftext|>` again. With literal record tokens, it is the text of its line as gpt-2-simple tokenizes it: the start
and end tokens are ordinary text, of several tokens each.
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

_TOKENIZER_BATCH = 8192  # records tokenized together
_SHOWN_CHARS = 60  # characters of a prompt that a message shows
_RECORD_TOKENS = re.compile(f"{re.escape(START_TOKEN)}|{re.escape(END_TOKEN)}")


@dataclass(frozen=True)
class Examples:
    """Tokenized records, and where the title is in each; all arrays are [records]."""

    sequences: Sequences
    title_starts: "NDArray[np.int32]"
    """The first token of the title, counted from the start of the record."""
    title_ends: "NDArray[np.int32]"
    """The token after the title and the delimiter or end token that ends it."""
    title_chars: "NDArray[np.int32]"
    """Characters of the title."""
    cut: int = 0
    """How many of the records were longer than the context and were cut."""

    @classmethod
    def from_rows(
        cls, rows: list[list[int]], titles: list[tuple[int, int]], chars: list[int], cut: int = 0
    ) -> "Examples":
        """Return examples of lists of tokens, each with its title's (start, end) tokens and number of characters."""
        spans = np.array(titles, dtype=np.int32).reshape(-1, 2)
        return cls(Sequences.from_rows(rows), spans[:, 0], spans[:, 1], np.array(chars, dtype=np.int32), cut)

    @classmethod
    def joined(cls, parts: "list[Examples]") -> "Examples":
        """Return the examples of all parts, in order; none where there are no parts."""

        def column(name: str) -> "NDArray[np.int32]":
            return np.concatenate([np.zeros(0, np.int32), *(getattr(part, name) for part in parts)])

        starts, ends, chars = map(column, ("title_starts", "title_ends", "title_chars"))
        sequences = Sequences.joined([part.sequences for part in parts])
        return cls(sequences, starts, ends, chars, cut=sum(part.cut for part in parts))

    def pool(self, epoch: int, numbers: "NDArray[np.int64]") -> "Examples":
        """Return the examples with these numbers, in the given order; they are the same in every `epoch`."""
        columns = (self.title_starts[numbers], self.title_ends[numbers], self.title_chars[numbers])
        return Examples(self.sequences.take(numbers), *columns)

    def __len__(self) -> int:
        return len(self.sequences)


@dataclass(frozen=True)
class DynamicExamples:
    """Records that are tokenized when they are needed; each KeywordPool gets newly drawn keywords in every epoch.

    The keywords drawn follow from the seed, the epoch and the record's number alone.
    """

    records: Sequence[Record]
    tokenizer: Tokenizer
    record_tokens: str
    """The kind of record tokens: compact or literal."""
    context: int
    """The most tokens of a record."""
    seed: int
    min_keywords: int
    """The fewest keywords drawn for a record."""
    max_keywords: int
    """The most keywords drawn for a record."""

    def pool(self, epoch: int, numbers: Iterable[int]) -> Examples:
        """Return the records with these numbers, in the given order, tokenized with the keywords of this epoch."""
        drawn = (self._with_keywords(epoch, int(number)) for number in numbers)
        return tokenize_records(drawn, self.tokenizer, self.record_tokens, self.context)

    def _with_keywords(self, epoch: int, number: int) -> Record:
        record = self.records[number]
        if not isinstance(record, KeywordPool):
            return record
        return record.draw(Random(f"{self.seed} epoch {epoch} record {number}"), self.min_keywords, self.max_keywords)

    def count_too_long(self) -> int:
        """Return how many records may be cut: those longer than the context with the longest keywords they can get."""
        longest = (r.draw_longest(self.max_keywords) if isinstance(r, KeywordPool) else r for r in self.records)
        # A token is at least one byte long, so records of few bytes needn't be tokenized.
        candidates = (r for r in longest if len(build(r).encode()) > self.context)
        return tokenize_records(candidates, self.tokenizer, self.record_tokens, self.context).cut

    def __len__(self) -> int:
        return len(self.records)


def tokenize_records(records: Iterable[Record], tokenizer: Tokenizer, record_tokens: str, context: int) -> Examples:
    """Tokenize records. Those longer than `context` tokens are cut, and `Examples.cut` counts them."""
    return Examples.joined([_tokenize_batch(batch, tokenizer, record_tokens, context) for batch in _batched(records)])


def _tokenize_batch(records: list[Record], tokenizer: Tokenizer, record_tokens: str, context: int) -> Examples:
    texts, from_chars, to_chars = zip(*(_text_and_title_span(record, record_tokens) for record in records), strict=True)
    record_token = [tokenizer.end] if record_tokens == COMPACT_TOKENS else []
    rows: list[list[int]] = []
    titles: list[tuple[int, int]] = []
    for encoding, from_char, to_char in zip(tokenizer.encode(texts), from_chars, to_chars, strict=True):
        row = record_token + encoding.ids + record_token
        start = len(record_token) + _tokens_before(encoding, from_char)
        end = len(row) if to_char is None else len(record_token) + sum(start < to_char for start, _ in encoding.offsets)
        titles.append((min(start, context), min(end, context)))
        rows.append(row)
    cut = sum(len(row) > context for row in rows)
    chars = [len(record.title or "") for record in records]
    return Examples.from_rows([row[:context] for row in rows], titles, chars, cut)


def _tokens_before(encoding: "Encoding", char: int) -> int:
    """Return how many tokens come before the one that holds a character; all of them for the end of the text."""
    token = encoding.char_to_token(char)
    return len(encoding) if token is None else token


def tokenize_prompts(texts: list[str], tokenizer: Tokenizer, record_tokens: str) -> list[list[int]]:
    """Tokenize prompts, one list of tokens each. An empty prompt becomes the end token, as in gpt-2-simple.

    With compact record tokens, each start and end token in a prompt becomes the model's single token.
    """
    if record_tokens != COMPACT_TOKENS:
        return [e.ids or [tokenizer.end] for e in tokenizer.encode(texts)]
    return [_tokenize_compact(text, tokenizer) or [tokenizer.end] for text in texts]


def longest_prompt_length(ids: Sequence[Sequence[int]], prompts: Sequence[str], context: int) -> int:
    """Return the number of tokens of the longest prompt.

    `ids` are the tokens of `prompts`. Raises UsageError, which names the prompt, where it leaves no room in a context
    of `context` tokens.
    """
    number = max(range(len(ids)), key=lambda row: len(ids[row]))
    longest = len(ids[number])
    if longest >= context:
        excerpt = repr(prompts[number][:_SHOWN_CHARS]) + ("..." if len(prompts[number]) > _SHOWN_CHARS else "")
        raise UsageError(f"a prompt of {longest} tokens fills the model's context of {context}: {excerpt}")
    return longest


def _tokenize_compact(text: str, tokenizer: Tokenizer) -> list[int]:
    first, *rest = tokenizer.encode(_RECORD_TOKENS.split(text))
    return first.ids + [token for encoding in rest for token in (tokenizer.end, *encoding.ids)]


def _batched(records: Iterable[Record]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    for record in records:
        batch.append(record)
        if len(batch) == _TOKENIZER_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _text_and_title_span(record: Record, record_tokens: str) -> tuple[str, int, int | None]:
    """Return the text of a record to tokenize, and where its title starts and ends in it, in characters.

    The end includes the delimiter of the body that follows the title. It is None for a title that ends with the record,
    and then includes the record's end token.
    """
    text = format_sections(record)
    body_length = 0 if record.body is None else len(DELIMITERS["body"]) + len(escape(record.body))
    from_char = len(text) - body_length - len(escape(record.title or ""))
    to_char = None if record.body is None else len(text) - len(escape(record.body))
    if record_tokens == COMPACT_TOKENS:
        return text, from_char, to_char
    return (
        START_TOKEN + text + END_TOKEN,
        len(START_TOKEN) + from_char,
        None if to_char is None else len(START_TOKEN) + to_char,
    )
