"""A run's losses as a picture, from its reports: all its sessions in one."""

from collections.abc import Sequence
from pathlib import Path

from redditgen.files.atomic import atomic_write
from redditgen.gpt2.metrics import Report


def plot_losses(reports: Sequence[Report], path: Path) -> None:
    """Draw the loss and the held-out loss over the steps into a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss (nats a token)")
    learned = [(report.step, report.loss) for report in reports if report.loss is not None]
    measured = [(report.step, report.val_loss) for report in reports if report.val_loss is not None]
    if learned:
        axes.plot(*zip(*learned, strict=True), linewidth=1, color="tab:blue", label="training")
    if measured:
        axes.plot(*zip(*measured, strict=True), marker="o", markersize=4, color="tab:orange", label="held out")
    axes.grid(alpha=0.3)
    if learned or measured:
        axes.legend()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")
