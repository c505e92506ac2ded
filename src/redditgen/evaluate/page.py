"""evaluation.html: figures, plots and sampled titles in one file, which loads nothing and runs nothing.

What a model or a dataset wrote is escaped, and the page's policy lets no script run nor anything be loaded.
"""

from collections.abc import Iterable, Sequence
from html import escape

from redditgen import __version__
from redditgen.evaluate import plots, table
from redditgen.evaluate.samples import Sample
from redditgen.evaluate.statistics import Figure, word_counts

TITLES_SHOWN = 30  # titles

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
    """The page of a run's figures and of sampled titles; all `titles` are counted, and the first ones shown."""
    name = escape(f"Run {run}, step {step}")
    counted = ", ".join(f"{number} {escape(what.replace('_', ' '))}" for what, number in counts.items())
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
    head = _cells("th", table.TABLE_COLUMNS)
    body = "\n".join(_cells("td", row) for row in table.table_rows(figures))
    return f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _cells(tag: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _plots(figures: Sequence[Figure], titles: Sequence[Sample], real: Sequence[str]) -> str:
    drawn = {
        "Keywords held, by the number asked": plots.plot_keyword_hits(figures),
        "Words a title": plots.plot_lengths(word_counts(sample.title for sample in titles), word_counts(real)),
    }
    return "\n".join(
        f"<figure>\n<figcaption>{escape(caption)}</figcaption>\n{svg}\n</figure>"
        for caption, svg in drawn.items()
        if svg
    )


def _items(titles: Iterable[Sample]) -> str:
    return "\n".join(
        f'<li><span class="mark">synthetic</span> <span class="title">{escape(sample.title)}</span> '
        f"<small>{escape(_asked(sample))}</small></li>"
        for sample in titles
    )


def _asked(sample: Sample) -> str:
    words = ", ".join(sample.keywords)
    return " · ".join(filter(None, (sample.category and f"for {sample.category}", words and f"keywords {words}")))
