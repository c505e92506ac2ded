"""The rows of a table of titles that are worth a record, with what the record is made of."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from redditgen.errors import InputError
from redditgen.files.tables import Table
from redditgen.settings import EncodeSettings
from redditgen.titles import splits
from redditgen.titles.keywords import normalise_category


class TitleRow(NamedTuple):
    """What a record is made of; a section that is not asked for is None."""

    number: int  # in the file, from 0
    part: int  # of --split, from 1; 0 for what is trained on
    source: str  # the text that holds the keywords
    category: str | None
    title: str | None
    body: str | None


def read_rows(table: Table, settings: EncodeSettings, counts: Counter[str]) -> Iterator[TitleRow]:
    """The rows that have a text; `counts` grows as they are read.

    Raises InputError where a column is not there.
    """
    fields = [settings.text_field, _keyword_field(settings)]
    fields += [settings.category_field, settings.title_field, settings.body_field]
    _check(table, settings)
    counts.update(rows=0, skipped=0, titles=0, records=0, categories=0)
    categories: set[str] = set()
    shares = settings.shares
    asked = [field for field in fields if field]
    for number, cells in enumerate(table.rows(asked)):
        counts["rows"] += 1
        cell = dict(zip(asked, cells, strict=True)).get
        text = cell(settings.text_field) or ""
        if not text.strip():
            counts["skipped"] += 1
            continue
        counts["titles"] += 1
        name = cell(settings.category_field)
        row = TitleRow(
            number,
            part=splits.part_number(text, shares.values(), settings.seed) if shares else 0,
            source=cell(_keyword_field(settings)) or "",
            category=None if name is None else normalise_category(name),
            title=cell(settings.title_field),
            body=cell(settings.body_field),
        )
        if row.category is not None:
            categories.add(row.category)
            counts["categories"] = len(categories)
        yield row


def _keyword_field(settings: EncodeSettings) -> str:
    """The column in which the keywords are, or are looked for."""
    return settings.keywords_field or settings.keyword_gen or settings.text_field


def _check(table: Table, settings: EncodeSettings) -> None:
    options = ("keywords_field", "keyword_gen", "title_field", "body_field", "category_field")
    for option in options:
        name = getattr(settings, option)
        if name and name not in table.columns:
            flag = "--" + option.replace("_", "-")
            there = ", ".join(table.columns)
            raise InputError(f"{settings.input}: has no column '{name}' ({flag}); there are: {there}")
