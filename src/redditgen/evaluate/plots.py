"""Plots of an evaluation as SVG for embedding in an HTML page.

The XML header, namespaces and metadata that matplotlib writes are removed, and each plot's ids get a prefix of its own.
"""

import io
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from redditgen.evaluate.statistics import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

_MAX_BARS = 60  # in a histogram
_BLUE, _GREY = "tab:blue", "0.6"
_ID_START = re.compile(r'(\bid="|url\(#|xlink:href="#)')


def plot_keyword_hits(figures: Iterable[Figure]) -> str | None:
    """Plot the share of requested keywords that titles hold, by how many were requested.

    Returns None where no figure has such a share.
    """
    hits = [figure for figure in figures if figure.name == "keyword_hits" and figure.keywords is not None]
    if not hits:
        return None
    drawing, axes = _axes("keywords asked", "share of them held (95% interval)")
    values = np.array([(figure.value, figure.low, figure.high) for figure in hits], np.float64)
    errors = np.abs(values[:, 1:] - values[:, :1]).T
    names = [str(figure.keywords) for figure in hits]
    axes.bar(names, values[:, 0], yerr=errors, capsize=4, color=_BLUE, width=0.6)
    axes.set_ylim(0, 1.05)
    return _svg(drawing, "hits", "Keywords held, by the number asked")


def plot_lengths(written: Sequence[int], real: Sequence[int]) -> str:
    """Plot histograms of the words per title: `written` for generated titles, `real` for held-out ones."""
    drawing, axes = _axes("words a title", "share of the titles")
    longest = max(*written, *real)
    bins = np.arange(0, longest + 1 + (step := longest // _MAX_BARS + 1), step) + 0.5
    for counts, color, label in ((real, _GREY, "held-out"), (written, _BLUE, "generated")):
        weights = np.full(len(counts), 1 / len(counts))
        axes.hist(counts, bins.tolist(), weights=weights, color=color, alpha=0.6, label=label)
    axes.legend()
    return _svg(drawing, "lengths", "Words a title, generated and held-out")


def _axes(x: str, y: str) -> "tuple[Drawing, Axes]":
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=(6, 3.6), layout="constrained")
    axes = drawing.add_subplot(xlabel=x, ylabel=y)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    return drawing, axes


def _svg(drawing: "Drawing", name: str, label: str) -> str:
    """Return the drawing as SVG text, byte for byte equal for equal figures.

    `name` is the prefix of its ids, and `label` what screen readers say.
    """
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        drawing.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    _, start, rest = file.getvalue().partition("<svg ")
    text = re.sub(r"<metadata>.*?</metadata>", "", start + rest, flags=re.DOTALL)
    text = re.sub(r'\s+xmlns(:xlink)?="[^"]*"', "", text)
    text = _ID_START.sub(rf"\g<1>{name}-", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
