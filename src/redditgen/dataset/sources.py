"""The files of a dataset, and the records in each by what its name says: text, CSV, JSONL or `.npz`."""

import csv
import glob
import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path

from redditgen.dataset.arrays import arrays, written_out
from redditgen.dataset.jsonl import json_records
from redditgen.draws import Undrawn
from redditgen.errors import InputError, MissingError
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.markup import START, Record
from redditgen.records import records, records_in
from redditgen.rows import reading

MADE_BY = "`redditgen encode` makes a file of records from a CSV of titles"
HEADER = re.compile(r"titles?|text|headline|post", re.IGNORECASE)  # a first row that is this alone is no title
_CELL_MAX = 1 << 26  # characters; behind a quote left open all the file is one cell
_HEAD = 1 << 16  # characters in which the first record of a file must begin

_log = logging.getLogger(__name__)


def files(path: Path) -> list[Path]:
    """The files that a path names: itself, those below a folder, or those that a pattern matches; sorted."""
    if path.is_file():
        return [path]
    # Not Path.glob: it refuses absolute patterns.
    pattern = f"{glob.escape(str(path))}/**" if path.is_dir() else str(path)
    found = (Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207
    paths = sorted(path for path in found if path.is_file() and not path.name.endswith(".meta.json"))
    if not paths:
        raise MissingError(f"{path}: {'no file in it' if path.is_dir() else 'no such file'}; {MADE_BY}")
    return paths


def has_records(path: Path, tokenizer: Tokenizer) -> bool:
    match path.suffix.lower():
        case ".csv" | ".jsonl":
            return True
        case ".npz":
            return any(START in written_out(chunk[:_HEAD], tokenizer) for chunk in arrays(path, tokenizer)[:1])
    with reading(path, made_by=MADE_BY) as file:
        return START in not_empty(file.read(_HEAD), path)


def is_dynamic(path: Path) -> bool:
    """Whether a file's records have all keywords of their titles, to be drawn from; its first one says it."""
    return path.suffix.lower() == ".jsonl" and isinstance(next(json_records(path)), Undrawn)


def records_of(path: Path, tokenizer: Tokenizer) -> Iterator[Record]:
    match path.suffix.lower():
        case ".csv":
            return _one_column(path)
        case ".jsonl":
            return json_records(path)
        case ".npz":
            text = "".join(written_out(chunk, tokenizer) for chunk in arrays(path, tokenizer))
            return records_in(io.StringIO(text), path)
    return records(path)


def _one_column(path: Path) -> Iterator[Record]:
    """A title a row, as records without marks; rows without text are passed over."""
    is_empty = True
    csv.field_size_limit(_CELL_MAX)
    with reading(path, made_by=MADE_BY) as file:
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


def not_empty(text: str, path: Path) -> str:
    if not text.strip():
        raise InputError(f"{path}: is empty; {MADE_BY}")
    return text
