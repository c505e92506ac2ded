"""A PNG of a run's losses, drawn from the reports of all its sessions."""

from collections.abc import Sequence
from pathlib import Path

from redditgen.files.atomic import atomic_write
from redditgen.gpt2.metrics import Report


def plot_losses(reports: Sequence[Report], path: Path) -> None:
    """Plot the training loss and the held-out loss over the steps, and write a PNG of 960 x 600 pixels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss (nats a token)")
    training_points = [(report.step, report.loss) for report in reports if report.loss is not None]
    held_out_points = [(report.step, report.val_loss) for report in reports if report.val_loss is not None]
    if training_points:
        axes.plot(*zip(*training_points, strict=True), linewidth=1, color="tab:blue", label="training")
    if held_out_points:
        axes.plot(*zip(*held_out_points, strict=True), marker="o", markersize=4, color="tab:orange", label="held out")
    axes.grid(alpha=0.3)
    if training_points or held_out_points:
        axes.legend()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")
