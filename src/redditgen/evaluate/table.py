"""Formats an evaluation as a table: each figure's description, value, interval and reference on held-out titles."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from redditgen.evaluate.statistics import GENERATED, HELD_OUT, QUANTILES, Figure

TABLE_COLUMNS = ("measure", "value", "95% interval", "held-out titles", "over")

# For each figure its description, and the format of its value.
_DESCRIPTIONS = {
    "bits_per_char": ("bits per character of held-out titles", "{:.3f}"),
    "perplexity": ("perplexity per token of held-out records", "{:.2f}"),
    "ended": ("texts stopped by the end token", "{:.1%}"),
    "whole": ("texts that are whole titles", "{:.1%}"),
    "keyword_hits": ("keywords held", "{:.1%}"),
    "all_keywords_held": ("titles with all their keywords", "{:.1%}"),
    "keyword_hits_by_chance": ("keywords held by other titles (chance)", "{:.1%}"),
    "copies": ("copies of known titles", "{:.1%}"),
    "near_copies": ("near copies of known titles", "{:.1%}"),
    "novel": ("novel titles", "{:.1%}"),
    "unsafe": ("hits of the sfw word list", "{:.1%}"),
    "duplicates": ("duplicates", "{:.1%}"),
    "distinct_1": ("distinct-1", "{:.3f}"),
    "distinct_2": ("distinct-2", "{:.3f}"),
    "words": ("words a title, mean", "{:.1f}"),
    **{f"words_p{percent}": (f"words a title, {percent}th percentile", "{:.0f}") for percent in QUANTILES},
    "words_gap": ("words a title, distance of distributions (Kolmogorov-Smirnov)", "{:.3f}"),
}
_RUN_FIGURES = ("bits_per_char", "perplexity")  # measured on held-out titles, but no reference for other figures


class TableRow(NamedTuple):
    """The cells of a row, below TABLE_COLUMNS."""

    measure: str
    value: str
    interval: str
    held_out: str
    over: str


def table_rows(figures: Sequence[Figure]) -> Iterator[TableRow]:
    """Yield a row for each figure; those of held-out titles are the references in the rows of generated titles."""
    references = {
        figure.name: figure for figure in figures if figure.of == HELD_OUT and figure.name not in _RUN_FIGURES
    }
    for figure in figures:
        if figure.of == GENERATED or figure.name in _RUN_FIGURES:
            yield _row(figure, references.get(figure.name))


def _row(figure: Figure, reference: Figure | None) -> TableRow:
    description, value_format = _DESCRIPTIONS[figure.name]
    condition = "" if figure.keywords is None else f", {figure.keywords} asked"
    interval = ""
    if figure.low is not None and figure.high is not None:
        interval = f"{value_format.format(figure.low)} to {value_format.format(figure.high)}"
    held_out = value_format.format(reference.value) if reference else ""
    return TableRow(description + condition, value_format.format(figure.value), interval, held_out, str(figure.number))


def format_text_table(figures: Sequence[Figure]) -> str:
    """Return the rows as text in aligned columns, all but the first aligned to the right."""
    lines = [TableRow(*TABLE_COLUMNS), *table_rows(figures)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
    )
