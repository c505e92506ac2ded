"""Reads the rows of a table of titles that have a text to encode."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from redditgen.errors import InputError
from redditgen.files.tables import Table
from redditgen.settings import EncodeSettings
from redditgen.titles import splits
from redditgen.titles.keywords import normalise_category


class TitleRow(NamedTuple):
    """The values that a record is built from; a section that the settings leave out is None."""

    number: int  # of the row in the file, from 0
    part: int  # of --split, from 1; 0 for the training part
    source: str  # the text in which the keywords are, or are looked for
    category: str | None
    title: str | None
    body: str | None


def read_rows(table: Table, settings: EncodeSettings, counts: Counter[str]) -> Iterator[TitleRow]:
    """Yield the rows that have a text.

    While they are read, `counts` counts all rows, those skipped, titles and categories. Raises InputError where a
    column of the settings is missing.
    """
    fields = [settings.text_field, _keyword_field(settings)]
    fields += [settings.category_field, settings.title_field, settings.body_field]
    _check_columns(table, settings)
    counts.update(rows=0, skipped=0, titles=0, records=0, categories=0)
    categories: set[str] = set()
    shares = settings.shares
    columns = [field for field in fields if field]
    for number, cells in enumerate(table.rows(columns)):
        counts["rows"] += 1
        cell = dict(zip(columns, cells, strict=True)).get
        text = cell(settings.text_field) or ""
        if not text.strip():
            counts["skipped"] += 1
            continue
        counts["titles"] += 1
        category = cell(settings.category_field)
        row = TitleRow(
            number,
            part=splits.part_number(text, shares.values(), settings.seed) if shares else 0,
            source=cell(_keyword_field(settings)) or "",
            category=None if category is None else normalise_category(category),
            title=cell(settings.title_field),
            body=cell(settings.body_field),
        )
        if row.category is not None:
            categories.add(row.category)
            counts["categories"] = len(categories)
        yield row


def _keyword_field(settings: EncodeSettings) -> str:
    """Return the column in which the keywords are, or are looked for."""
    return settings.keywords_field or settings.keyword_gen or settings.text_field


def _check_columns(table: Table, settings: EncodeSettings) -> None:
    options = ("keywords_field", "keyword_gen", "title_field", "body_field", "category_field")
    for option in options:
        name = getattr(settings, option)
        if name and name not in table.columns:
            flag = "--" + option.replace("_", "-")
            existing = ", ".join(table.columns)
            raise InputError(f"{settings.input}: has no column '{name}' ({flag}); there are: {existing}")
