"""Finds the files of a dataset, and reads their records; the suffix decides between text, CSV, JSONL and `.npz`."""

import csv
import glob
import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path

from redditgen.errors import InputError, MissingError
from redditgen.files.text import open_text
from redditgen.finetune.dataset.json_records import read_json_records
from redditgen.finetune.dataset.token_arrays import decode_with_record_tokens, read_token_arrays
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.titles.keyword_draws import KeywordPool
from redditgen.titles.record import START_TOKEN, Record
from redditgen.titles.record_reader import read_records, read_records_from

MADE_BY = "`redditgen encode` makes a file of records from a CSV of titles"
HEADER_PATTERN = re.compile(r"titles?|text|headline|post", re.IGNORECASE)  # a first row of only such a word is no title
_MAX_CELL = 1 << 26  # characters; after a quote left open, all the rest of a file is one cell
_HEAD = 1 << 16  # characters, or tokens of a .npz, in which the first record of a file must begin

_log = logging.getLogger(__name__)


def find_files(path: Path) -> list[Path]:
    """Return the files that a path names, sorted: itself, those below a folder, or those that a glob pattern matches.

    Sidecars are left out. Raises MissingError where no file is found.
    """
    if path.is_file():
        return [path]
    # Not Path.glob: it refuses absolute patterns.
    pattern = f"{glob.escape(str(path))}/**" if path.is_dir() else str(path)
    matches = (Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207
    paths = sorted(path for path in matches if path.is_file() and not path.name.endswith(".meta.json"))
    if not paths:
        raise MissingError(f"{path}: {'no file in it' if path.is_dir() else 'no such file'}; {MADE_BY}")
    return paths


def has_records(path: Path, tokenizer: Tokenizer) -> bool:
    """Return whether a file holds records: a CSV or JSONL always, others where a record begins near their start."""
    match path.suffix.lower():
        case ".csv" | ".jsonl":
            return True
        case ".npz":
            return any(
                START_TOKEN in decode_with_record_tokens(chunk[:_HEAD], tokenizer)
                for chunk in read_token_arrays(path, tokenizer)[:1]
            )
    with open_text(path, made_by=MADE_BY) as file:
        return START_TOKEN in require_text(file.read(_HEAD), path)


def has_keyword_pools(path: Path) -> bool:
    """Return whether the first record of a file has all keywords of its title, of which each epoch draws some."""
    return path.suffix.lower() == ".jsonl" and isinstance(next(read_json_records(path)), KeywordPool)


def records_in_file(path: Path, tokenizer: Tokenizer) -> Iterator[Record]:
    """Return an iterator over the records of a file; it raises InputError where the file is malformed or has none."""
    match path.suffix.lower():
        case ".csv":
            return _read_one_column(path)
        case ".jsonl":
            return read_json_records(path)
        case ".npz":
            text = "".join(decode_with_record_tokens(chunk, tokenizer) for chunk in read_token_arrays(path, tokenizer))
            return read_records_from(io.StringIO(text), path)
    return read_records(path)


def _read_one_column(path: Path) -> Iterator[Record]:
    """Yield each title of a CSV of one column, as a record without sections; rows without text are skipped."""
    is_empty = True
    csv.field_size_limit(_MAX_CELL)
    with open_text(path, made_by=MADE_BY) as file:
        rows = csv.reader(file, strict=True)
        try:
            for number, row in enumerate(row for row in rows if any(cell.strip() for cell in row)):
                if len(row) > 1:
                    raise InputError(
                        f"{path}, line {rows.line_num}: has {len(row)} columns, and finetune reads a CSV of one; "
                        f"make records of it with: redditgen encode {path}"
                    )
                if number == 0 and HEADER_PATTERN.fullmatch(row[0].strip()):
                    _log.info("%s: %r is taken for its header", path, row[0])
                    continue
                is_empty = False
                yield Record(title=row[0], has_sections=False)
        except csv.Error as error:
            raise InputError(f"{path}, line {rows.line_num}: is no CSV: {error}") from error
    if is_empty:
        raise InputError(f"{path}: holds no title")


def require_text(text: str, path: Path) -> str:
    """Return `text`, or raise InputError where it is blank."""
    if not text.strip():
        raise InputError(f"{path}: is empty; {MADE_BY}")
    return text
