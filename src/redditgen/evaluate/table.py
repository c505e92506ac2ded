"""An evaluation as rows that people read: each figure's words, its value, its interval and what to hold it against."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from redditgen.evaluate.statistics import GENERATED, HELD_OUT, QUANTILES, Figure

TABLE_COLUMNS = ("measure", "value", "95% interval", "held-out titles", "over")

# What each figure is called, and how its value is written.
_WORDS = {
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
_OF_THE_RUN = ("bits_per_char", "perplexity")  # measured on held-out titles, yet no reference for others


class TableRow(NamedTuple):
    """The cells below COLUMNS."""

    measure: str
    value: str
    interval: str
    held_out: str
    over: str


def table_rows(figures: Sequence[Figure]) -> Iterator[TableRow]:
    """A row each, but for those of held-out titles that stand beside the generated ones'."""
    beside = {figure.name: figure for figure in figures if figure.of == HELD_OUT and figure.name not in _OF_THE_RUN}
    for figure in figures:
        if figure.of == GENERATED or figure.name in _OF_THE_RUN:
            yield _row(figure, beside.get(figure.name))


def _row(figure: Figure, reference: Figure | None) -> TableRow:
    words, form = _WORDS[figure.name]
    asked = "" if figure.keywords is None else f", {figure.keywords} asked"
    interval = ""
    if figure.low is not None and figure.high is not None:
        interval = f"{form.format(figure.low)} to {form.format(figure.high)}"
    held_out = form.format(reference.value) if reference else ""
    return TableRow(words + asked, form.format(figure.value), interval, held_out, str(figure.number))


def format_text_table(figures: Sequence[Figure]) -> str:
    """The rows in aligned columns, numbers to the right."""
    lines = [TableRow(*TABLE_COLUMNS), *table_rows(figures)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
    )
