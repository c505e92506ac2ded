"""Reads and writes a run's `metrics.jsonl`, which holds the measurements of a training as one JSON object per report.

A continued training reads here all that it needs to know about the steps before: the held-out loss of each checkpoint,
and how many measurements have passed since the best one.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from redditgen.errors import InputError
from redditgen.files.atomic import atomic_write, sync_to_disk


@dataclass(frozen=True, kw_only=True)
class Report:
    """The measurements at one step of a training.

    Losses are in nats per token. `tokens` and `seconds` count from the start of the command. Speeds are those of the
    steps since the previous report, and `memory_bytes` is the peak of the memory in use.
    """

    step: int
    loss: float | None = None
    val_loss: float | None = None
    val_bits_per_char: float | None = None
    tokens: int = 0
    seconds: float = 0.0
    lr: float = 0.0
    tokens_per_second: float | None = None
    titles_per_second: float | None = None
    memory_bytes: int | None = None

    def __str__(self) -> str:
        values = [("loss", self.loss), ("held-out loss", self.val_loss), ("bits a character", self.val_bits_per_char)]
        shown = [f"{name} {value:.3f}" for name, value in values if value is not None]
        speeds = [("tokens/s", self.tokens_per_second), ("titles/s", self.titles_per_second)]
        shown += [f"{value:.0f} {name}" for name, value in speeds if value is not None]
        shown += [f"{self.memory_bytes / 1e9:.1f} GB"] if self.memory_bytes else []
        return f"[{self.step} | {self.seconds:.1f} s]  {'  '.join(shown)}"


_FIELDS = frozenset(field.name for field in fields(Report))


class MetricsFile:
    """A `metrics.jsonl`. It is opened anew for each report, so that a process that is killed leaves complete lines."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, report: Report) -> None:
        """Append a report; raises InputError where the file can't be written."""
        try:
            with self._path.open("a", encoding="utf8") as file:
                file.write(json.dumps(asdict(report)) + "\n")
        except OSError as error:
            raise InputError(f"{self._path}: can't be written: {error.strerror or error}") from error

    def sync_to_disk(self) -> None:
        """Wait until all reports are on the disk, so that after a power failure no checkpoint lacks its reports."""
        if self._path.exists():
            sync_to_disk(self._path)

    def delete_after(self, step: int) -> None:
        """Delete the reports of the steps after `step`, which the continued training will report again.

        Raises InputError where a line is not a report.
        """
        if not self._path.exists():
            return
        kept = [line for line in self._complete_lines() if self._parse_line(line)["step"] <= step]
        with atomic_write(self._path) as temporary:
            temporary.write_text("".join(kept), encoding="utf8")

    def reports(self) -> list[Report]:
        """Return all reports in the file's order; raises InputError where a line is not a report."""
        lines = map(self._parse_line, self._complete_lines())
        return [Report(**{name: value for name, value in line.items() if name in _FIELDS}) for line in lines]

    def _complete_lines(self) -> list[str]:
        """Return the complete lines, leaving out a last one that a killed process did not finish."""
        if not self._path.exists():
            return []
        try:
            lines = self._path.read_text(encoding="utf8").splitlines(keepends=True)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self._path}: can't be read: {error}") from error
        return [line for line in lines if line.endswith("\n")]

    def _parse_line(self, line: str) -> dict[str, Any]:
        try:
            content = json.loads(line)
            if not isinstance(content["step"], int):
                raise TypeError("its step is no number")
            if not all(_is_number(value) for name, value in content.items() if name in _FIELDS):
                raise TypeError("a figure is no number")
            return dict(content)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise InputError(f"{self._path}: holds a line that is no report; delete or mend the file") from error


def _is_number(value: Any) -> bool:
    """Whether a value is a number or None; raises OverflowError for an integer that is too large for a float."""
    return value is None or (isinstance(value, int | float) and float(value) is not None)


def best_report(reports: Iterable[Report]) -> Report | None:
    """Return the report with the lowest held-out loss, the earliest of equals; None where there is none.

    Step 0 does not count: it measures the weights that the training started from.
    """
    candidates = [report for report in _with_held_out_loss(reports) if report.step > 0]
    return min(candidates, key=lambda report: (report.val_loss, report.step), default=None)


def measurements_since_best(reports: Iterable[Report], after: int) -> int:
    """Return how many measurements after step `after` have followed the best one, none of them better than it."""
    lowest, count = math.inf, 0
    for report in _with_held_out_loss(reports):
        assert report.val_loss is not None
        is_better = report.val_loss < lowest
        lowest = min(lowest, report.val_loss)
        count = 0 if is_better else count + (report.step > after)
    return count


def _with_held_out_loss(reports: Iterable[Report]) -> list[Report]:
    return [report for report in reports if report.val_loss is not None and math.isfinite(report.val_loss)]
