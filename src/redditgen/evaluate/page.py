"""Renders evaluation.html: figures, plots and sampled titles in one file, which loads nothing and runs nothing.

All text from a model or a dataset is escaped, and the page's content security policy forbids scripts and loading.
"""

from collections.abc import Iterable, Sequence
from html import escape

from redditgen import __version__
from redditgen.evaluate import plots, table
from redditgen.evaluate.samples import Sample
from redditgen.evaluate.statistics import Figure, word_counts

TITLES_SHOWN = 30  # sampled titles listed on the page

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1rem 0; }
svg { max-width: 100%; height: auto; }
li { margin: .4rem 0; overflow-wrap: anywhere; }
li small { color: #666; }
.mark { font-size: .75rem; padding: .1rem .4rem; border-radius: .5rem; background: #eee; color: #555; }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render_page(
    run: str,
    step: int,
    figures: Sequence[Figure],
    counts: dict[str, int],
    titles: Sequence[Sample],
    real: Sequence[str],
) -> str:
    """Return the page as HTML. The plot of lengths counts all `titles`; the first TITLES_SHOWN of them are listed."""
    name = escape(f"Run {run}, step {step}")
    counted = ", ".join(f"{number} {escape(key.replace('_', ' '))}" for key, number in counts.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="redditgen {__version__}">
<link rel="icon" href="data:,">
<title>{name}: evaluation</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{name}</h1>
<p>{counted}. Intervals are bootstrapped over titles.</p>
{_table(figures)}
{_plots(figures, titles, real)}
<h2>Sampled titles</h2>
<p>All of them were written by a model.</p>
<ol>
{_items(titles[:TITLES_SHOWN])}
</ol>
</body>
</html>
"""


def _table(figures: Sequence[Figure]) -> str:
    head = _html_row("th", table.TABLE_COLUMNS)
    body = "\n".join(_html_row("td", row) for row in table.table_rows(figures))
    return f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _html_row(tag: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _plots(figures: Sequence[Figure], titles: Sequence[Sample], real: Sequence[str]) -> str:
    svg_of_caption = {
        "Keywords held, by the number asked": plots.plot_keyword_hits(figures),
        "Words a title": plots.plot_lengths(word_counts(sample.title for sample in titles), word_counts(real)),
    }
    return "\n".join(
        f"<figure>\n<figcaption>{escape(caption)}</figcaption>\n{svg}\n</figure>"
        for caption, svg in svg_of_caption.items()
        if svg
    )


def _items(titles: Iterable[Sample]) -> str:
    return "\n".join(
        f'<li><span class="mark">synthetic</span> <span class="title">{escape(sample.title)}</span> '
        f"<small>{escape(_prompt_in_words(sample))}</small></li>"
        for sample in titles
    )


def _prompt_in_words(sample: Sample) -> str:
    words = ", ".join(sample.keywords)
    return " · ".join(filter(None, (sample.category and f"for {sample.category}", words and f"keywords {words}")))
