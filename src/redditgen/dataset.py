"""What a run learns from: files of records or of plain text, tokenized, and split into what is trained on and held out.

Each file is what it looks like: text with records in it, a CSV of one column, gpt-2-simple's `.npz` of tokens, or else
plain text. Records are learned one by one. Plain text is one stream; gpt-2-simple takes records as such a stream too.
"""

import csv
import glob
import io
import logging
import re
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from redditgen.errors import InputError, MissingError, UsageError
from redditgen.gpt2.examples import Examples, examples, is_held_out
from redditgen.gpt2.rundir import COMPACT, NO_RECORDS, Mark
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.gpt2.windows import Stream
from redditgen.markup import END, SECTIONS, START, Record, build
from redditgen.records import records, records_in
from redditgen.rows import reading
from redditgen.settings import FinetuneSettings

HELD_OUT_AT_MOST = 2000  # records measured
HEADER = re.compile(r"titles?|text|headline|post", re.IGNORECASE)  # a first row that is this alone is no title
_MADE_BY = "`redditgen encode` makes a file of records from a CSV of titles"
_HEAD = 1 << 16  # characters in which the first record of a file must begin

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """Tokens to train on, by record or as a stream, held-out records, and the mark of a run that learns from them."""

    train: Examples | Stream
    held_out: Examples
    mark: Mark


def read(settings: FinetuneSettings, mark: Mark, tokenizer: Tokenizer, context: int) -> Dataset:
    """Read the settings' dataset for a run of this mark and a model of `context` tokens.

    Raises MissingError or InputError naming the file, and UsageError where the run learned from another kind of text.
    """
    paths = files(settings.dataset)
    are_plain = [not _has_records(path, tokenizer) for path in paths]
    if any(are_plain) and not all(are_plain):
        plain, other = paths[are_plain.index(True)], paths[are_plain.index(False)]
        raise InputError(f"{settings.dataset}: {other} holds records and {plain} none; finetune on them one by one")
    if mark.sections is not None and all(are_plain) != (mark.record_tokens == NO_RECORDS):
        other_kind = "plain text" if all(are_plain) else "records"
        raise UsageError(f"{settings.dataset}: is {other_kind}, which run {settings.run} never saw; start another run")
    if all(are_plain):
        _log.warning("%s: holds no record, so it is learned as plain text", settings.dataset)
        mark = replace(mark, record_tokens=NO_RECORDS, sections=())
        return _plain(settings, paths, mark, tokenizer, min(settings.window, context))
    return _of_records(settings, paths, mark, tokenizer, context)


def files(path: Path) -> list[Path]:
    """The files that a path names: itself, those below a folder, or those that a pattern matches; sorted."""
    if path.is_file():
        return [path]
    # Not Path.glob: it refuses absolute patterns.
    pattern = f"{glob.escape(str(path))}/**" if path.is_dir() else str(path)
    found = (Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207
    paths = sorted(path for path in found if path.is_file() and not path.name.endswith(".meta.json"))
    if not paths:
        raise MissingError(f"{path}: {'no file in it' if path.is_dir() else 'no such file'}; {_MADE_BY}")
    return paths


def _of_records(
    settings: FinetuneSettings, paths: list[Path], mark: Mark, tokenizer: Tokenizer, context: int
) -> Dataset:
    kept: list[Record] = []
    held_out: list[Record] = []
    sections: set[str] = set(mark.sections or ())
    categories: Counter[str] = Counter()
    for record in (record for path in paths for record in _records(path, tokenizer)):
        is_out = is_held_out(record.title or "", settings.val_fraction, settings.seed)
        (held_out if is_out else kept).append(record)
        sections |= {name for name in SECTIONS if record.marked and getattr(record, name) is not None}
        if record.category is not None:
            categories[record.category] += 1
    if not kept:
        raise InputError(f"{settings.dataset}: every title is held out and none left to train on; lower --val-fraction")
    if not held_out and settings.val_fraction:
        _log.warning("%s: too few titles to hold any out, so no held-out loss is measured", settings.dataset)
    _log.info("%s: %d records to train on, %d held out", settings.dataset, len(kept), len(held_out))
    train, measured = (
        examples(part, tokenizer, mark.record_tokens, context) for part in (kept, held_out[:HELD_OUT_AT_MOST])
    )
    if train.cut:
        _log.warning("%s: %d records are longer than %d tokens and were cut", settings.dataset, train.cut, context)
    in_order = tuple(name for name in SECTIONS if name in sections)
    return Dataset(train, measured, replace(mark, sections=in_order, categories=mark.categories | categories))


def _records(path: Path, tokenizer: Tokenizer) -> Iterator[Record]:
    if path.suffix.lower() == ".csv":
        return _one_column(path)
    if path.suffix.lower() == ".npz":
        return records_in(io.StringIO(_decoded(path, tokenizer)), path)
    return records(path)


def _one_column(path: Path) -> Iterator[Record]:
    """A title a row, as records without marks; rows without text are passed over."""
    is_empty = True
    with reading(path, made_by=_MADE_BY) as file:
        rows = csv.reader(file, strict=True)
        try:
            for number, row in enumerate(row for row in rows if any(cell.strip() for cell in row)):
                if len(row) > 1:
                    raise InputError(
                        f"{path}, line {rows.line_num}: has {len(row)} columns, and finetune reads a CSV of one; "
                        f"make records of it with: redditgen encode {path}"
                    )
                if number == 0 and HEADER.fullmatch(row[0].strip()):
                    _log.info("%s: %r is taken for its header", path, row[0])
                    continue
                is_empty = False
                yield Record(title=row[0], marked=False)
        except csv.Error as error:
            raise InputError(f"{path}, line {rows.line_num}: is no CSV: {error}") from error
    if is_empty:
        raise InputError(f"{path}: holds no title")


def _plain(settings: FinetuneSettings, paths: list[Path], mark: Mark, tokenizer: Tokenizer, window: int) -> Dataset:
    kept, tails = [], []
    for chunk in chunks(paths, tokenizer, NO_RECORDS, settings.combine):
        end = len(chunk) - int(len(chunk) * settings.val_fraction)
        kept.append(chunk[:end])
        tails.append(chunk[end:])
    stream = Stream(tuple(kept))
    if not stream.places(window):
        raise InputError(
            f"{settings.dataset}: its longest text has {max(map(len, kept))} tokens to train on, and a window "
            f"{window}; lower --window, or --val-fraction, or give more text"
        )
    _log.info("%s: %d tokens to train on, %d held out", settings.dataset, stream.tokens, sum(map(len, tails)))
    return Dataset(stream, _held_out_windows(tails, window, tokenizer), mark)


def chunks(paths: list[Path], tokenizer: Tokenizer, record_tokens: str, combine: int) -> "Iterator[np.ndarray]":
    """Token arrays of files, small ones joined until they have `combine` characters, as gpt-2-simple joins them.

    The arrays of a `.npz` stay as they are. With compact record tokens each file, which must hold records, is an array.
    """
    if record_tokens == COMPACT:
        for path in paths:
            yield examples(_records(path, tokenizer), tokenizer, COMPACT, context=sys.maxsize).sequences.ids
        return
    are_arrays = {path: path.suffix.lower() == ".npz" for path in paths}
    for path in (path for path in paths if are_arrays[path]):
        for chunk in _arrays(path, tokenizer):
            yield chunk if tokenizer.end not in chunk else _tokens(_written_out(chunk, tokenizer), tokenizer)
    for text in _joined([path for path in paths if not are_arrays[path]], combine):
        yield _tokens(text, tokenizer)


def _joined(paths: list[Path], combine: int) -> Iterator[str]:
    text = ""
    for path in paths:
        text += _text(path)
        if len(text) >= combine:
            yield text
            text = ""
        elif path.suffix.lower() != ".csv":
            text += END  # also behind the last
    if text:
        yield text


def _tokens(text: str, tokenizer: Tokenizer) -> "np.ndarray":
    return np.array(tokenizer.encode([text])[0].ids, dtype=np.int32)


def _held_out_windows(tails: "list[np.ndarray]", window: int, tokenizer: Tokenizer) -> Examples:
    """The ends of the texts in windows, each measured behind its first token."""
    cuts = (tail[at : at + window].tolist() for tail in tails for at in range(0, len(tail), window))
    rows = [row for row in cuts if len(row) > 1][:HELD_OUT_AT_MOST]
    return Examples.of(rows, [(1, len(row)) for row in rows], [len(tokenizer.decode(row[1:])) for row in rows])


def _has_records(path: Path, tokenizer: Tokenizer) -> bool:
    if path.suffix.lower() == ".csv":
        return True
    if path.suffix.lower() == ".npz":
        return any(START in _written_out(chunk[:_HEAD], tokenizer) for chunk in _arrays(path, tokenizer)[:1])
    with reading(path, made_by=_MADE_BY) as file:
        return START in _not_empty(file.read(_HEAD), path)


def _text(path: Path) -> str:
    """All of a file as text, its line breaks as Python and so gpt-2-simple reads them; a title of a CSV as a line."""
    if path.suffix.lower() == ".csv":
        return "".join(f"{build(record)}\n" for record in _one_column(path))
    with reading(path, made_by=_MADE_BY) as file:
        return re.sub("\r\n?", "\n", _not_empty(file.read(), path))


def _not_empty(text: str, path: Path) -> str:
    if not text.strip():
        raise InputError(f"{path}: is empty; {_MADE_BY}")
    return text


def _decoded(path: Path, tokenizer: Tokenizer) -> str:
    return "".join(_written_out(chunk, tokenizer) for chunk in _arrays(path, tokenizer))


def _arrays(path: Path, tokenizer: Tokenizer) -> list[np.ndarray]:
    """The token arrays of a `.npz`, as gpt-2-simple's encode_dataset and `redditgen tokenize` write it."""
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("no whole zip archive")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            chunks = [np.asarray(arrays[name]) for name in arrays.files]
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: is no .npz of token arrays ({error}); make it with: redditgen tokenize") from error
    if not chunks or not all(_are_tokens(chunk, len(tokenizer)) for chunk in chunks):
        raise InputError(f"{path}: holds no tokens of this model; tokenize the text with the same --model")
    return [chunk.astype(np.int32) for chunk in chunks]


def _are_tokens(chunk: np.ndarray, vocabulary: int) -> bool:
    is_list = np.issubdtype(chunk.dtype, np.integer) and chunk.ndim == 1 and len(chunk) > 0
    return bool(is_list and 0 <= chunk.min() <= chunk.max() < vocabulary)


def _written_out(chunk: np.ndarray, tokenizer: Tokenizer) -> str:
    """Tokens as text; records in compact tokens, which stand between end tokens, get both of theirs back."""
    text = tokenizer.decode(chunk.tolist())
    if tokenizer.end not in chunk:
        return text
    return "".join(f"{START}{piece}{END}" for piece in text.split(END) if piece)
