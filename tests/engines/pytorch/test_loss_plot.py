from pathlib import Path

import numpy as np
import pytest

from redditgen.engines.pytorch.loss_plot import plot_losses
from redditgen.errors import InputError
from redditgen.gpt2.metrics import Report

LEARNED = [Report(step=step, loss=3 - step / 100) for step in range(10, 101, 10)]
MEASURED = [Report(step=step, val_loss=3.2 - step / 120) for step in (0, 50, 100)]


def pixels(reports: list[Report], folder: Path) -> np.ndarray:
    from matplotlib.image import imread

    path = folder / "loss.png"
    plot_losses(reports, path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    return np.round(np.asarray(imread(path)) * 255).astype(int)


def test_both_losses_are_drawn(tmp_path: Path) -> None:
    learned, measured, both = (pixels(reports, tmp_path) for reports in (LEARNED, MEASURED, [*LEARNED, *MEASURED]))
    assert both.shape[0] > 300 < both.shape[1]
    blue, orange = (31, 119, 180), (255, 127, 14)
    found = [{tuple(colour) for colour in image.reshape(-1, 4)[:, :3].tolist()} for image in (learned, measured, both)]
    assert [{blue, orange} & colours for colours in found] == [{blue}, {orange}, {blue, orange}]


def test_a_run_without_reports_has_an_empty_picture(tmp_path: Path) -> None:
    assert pixels([], tmp_path).min() < 200  # its axes


def test_a_picture_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf8")
    with pytest.raises(InputError, match=r"file/loss\.png: can't be written"):
        plot_losses(LEARNED, tmp_path / "file/loss.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
