"""Reads text as a stream of tokens, to train on plain text and for `redditgen tokenize` to write."""

import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from redditgen.engines.data.examples import Examples, tokenize_records
from redditgen.engines.data.token_stream import TokenStream
from redditgen.errors import InputError
from redditgen.files.text import open_text
from redditgen.finetune.dataset.record_files import MADE_BY, has_keyword_pools, records_in_file, require_text
from redditgen.finetune.dataset.token_arrays import decode_with_record_tokens, read_token_arrays
from redditgen.gpt2.run_info import COMPACT_TOKENS, NO_RECORDS
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.settings import FinetuneSettings
from redditgen.titles.record import END_TOKEN, build

_log = logging.getLogger(__name__)


def read_token_streams(
    settings: FinetuneSettings, paths: list[Path], tokenizer: Tokenizer, window: int, *, at_most: int
) -> tuple[TokenStream, Examples]:
    """Return the token stream to train on, and the held-out ends of its chunks as windows.

    `window` is the length of a window in tokens; at most `at_most` windows are held out. Raises InputError where no
    chunk has enough tokens for a window to train on.
    """
    train, tails = [], []
    for chunk in read_token_chunks(paths, tokenizer, NO_RECORDS, settings.combine):
        end = len(chunk) - int(len(chunk) * settings.val_fraction)
        train.append(chunk[:end])
        tails.append(chunk[end:])
    stream = TokenStream(tuple(train))
    if not stream.window_count(window):
        raise InputError(
            f"{settings.dataset}: its longest text has {max(map(len, train))} tokens to train on, and a window "
            f"{window}; lower --window, or --val-fraction, or give more text"
        )
    _log.info("%s: %d tokens to train on, %d held out", settings.dataset, stream.tokens, sum(map(len, tails)))
    return stream, _held_out_windows(tails, window, tokenizer, at_most)


def read_token_chunks(
    paths: list[Path], tokenizer: Tokenizer, record_tokens: str, combine: int
) -> "Iterator[np.ndarray]":
    """Yield the token arrays of files; small files are joined until they have `combine` characters.

    gpt-2-simple joins files likewise. The arrays of a `.npz` are not joined. With compact record tokens, each file must
    hold records and becomes one array. Raises InputError for records whose keywords are drawn anew in every epoch.
    """
    for path in paths:
        if has_keyword_pools(path):
            raise InputError(f"{path}: its keywords are drawn anew every epoch; encode without --dynamic to tokenize")
    if record_tokens == COMPACT_TOKENS:
        for path in paths:
            yield tokenize_records(
                records_in_file(path, tokenizer), tokenizer, COMPACT_TOKENS, context=sys.maxsize
            ).sequences.ids
        return
    is_npz = {path: path.suffix.lower() == ".npz" for path in paths}
    for path in (path for path in paths if is_npz[path]):
        for chunk in read_token_arrays(path, tokenizer):
            yield (
                chunk if tokenizer.end not in chunk else _tokens(decode_with_record_tokens(chunk, tokenizer), tokenizer)
            )
    for text in _joined_texts([path for path in paths if not is_npz[path]], tokenizer, combine):
        yield _tokens(text, tokenizer)


def _joined_texts(paths: list[Path], tokenizer: Tokenizer, combine: int) -> Iterator[str]:
    text = ""
    for path in paths:
        text += _read_text(path, tokenizer)
        if len(text) >= combine:
            yield text
            text = ""
        elif not _is_table(path):
            text += END_TOKEN  # after the last file too, as gpt-2-simple does
    if text:
        yield text


def _read_text(path: Path, tokenizer: Tokenizer) -> str:
    """Return a file as text; a table becomes a line for each record.

    Every line break becomes a line feed, as in Python's text mode, with which gpt-2-simple reads files.
    """
    if _is_table(path):
        return "".join(f"{build(record)}\n" for record in records_in_file(path, tokenizer))
    with open_text(path, made_by=MADE_BY) as file:
        return re.sub("\r\n?", "\n", require_text(file.read(), path))


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in (".csv", ".jsonl")


def _tokens(text: str, tokenizer: Tokenizer) -> "np.ndarray":
    return np.array(tokenizer.encode([text])[0].ids, dtype=np.int32)


def _held_out_windows(tails: "list[np.ndarray]", window: int, tokenizer: Tokenizer, at_most: int) -> Examples:
    """Cut the held-out ends into windows; in each, all tokens after the first are measured."""
    windows = (tail[start : start + window].tolist() for tail in tails for start in range(0, len(tail), window))
    rows = [row for row in windows if len(row) > 1][:at_most]
    return Examples.from_rows(rows, [(1, len(row)) for row in rows], [len(tokenizer.decode(row[1:])) for row in rows])
