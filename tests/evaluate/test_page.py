"""evaluation.html as a browser shows it: Chromium without a window, if there is one."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from redditgen.evaluate.page import render_page
from redditgen.evaluate.samples import Sample
from redditgen.evaluate.statistics import Figure

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
BLUE = (0x1F, 0x77, 0xB4)  # of the plots' bars
HOSTILE = "<script>console.error('run')</script><img src=http://127.0.0.1/x.png>"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (apt-get install chromium)"),
]


def shown(html: str, folder: Path) -> tuple["np.ndarray", str]:
    """The page's pixels, [height, width, red green blue] from 0 to 255, and what the browser's console says."""
    source, picture = folder / "page.html", folder / "page.png"
    source.write_text(html, encoding="utf8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,3000", "--enable-logging=stderr"]
    where = [f"--user-data-dir={folder / 'profile'}", f"--screenshot={picture}", source.as_uri()]
    done = subprocess.run([str(CHROMIUM), *options, *where], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return np.rint(imread(picture)[..., :3] * 255).astype(int), said


def evaluated(titles: list[str]) -> str:
    figures = [
        Figure("keyword_hits", 0.8, number=50, keywords=1, low=0.7, high=0.9),
        Figure("keyword_hits", 0.5, number=50, keywords=2, low=0.4, high=0.6),
    ]
    samples = [Sample("cats", ("cat",), title) for title in titles]
    return render_page("run1", 500, figures, {"titles": len(titles)}, samples, ["a real title of six words", "another"])


def near(pixels: "np.ndarray", color: tuple[int, int, int]) -> int:
    return int((np.abs(pixels - color).max(axis=-1) <= 12).sum())


def test_the_plots_are_seen_and_the_console_says_nothing(tmp_path: Path) -> None:
    pixels, said = shown(evaluated(["My cat sleeps", "Why does my cat hate the vacuum cleaner?"]), tmp_path)
    assert said == ""
    assert near(pixels, BLUE) > 5000
    without, _ = shown(evaluated(["My cat sleeps"]).replace("<svg", "<svg hidden style='display:none'"), tmp_path)
    assert near(without, BLUE) == 0


def test_what_a_title_holds_is_neither_run_nor_loaded(tmp_path: Path) -> None:
    _, said = shown(evaluated([HOSTILE]), tmp_path)
    assert said == ""
    _, said = shown(evaluated(["TITLE"]).replace("TITLE", HOSTILE), tmp_path)
    assert "Content Security Policy" in said  # so the browser would have said it
