"""A run's `metrics.jsonl`: what was measured, a line a report.

All that must be known of a run's past to go on with it stands here: how good its checkpoints are, and since when it has
not become better.
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
    """What is known at a step; losses are in nats a token, tokens and seconds count since the command began.

    Speeds are of the steps since the report before, and the memory is the most that was taken at once.
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
    """The file, opened anew for each report, so that a killed run leaves whole lines."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, report: Report) -> None:
        try:
            with self._path.open("a", encoding="utf8") as file:
                file.write(json.dumps(asdict(report)) + "\n")
        except OSError as error:
            raise InputError(f"{self._path}: can't be written: {error.strerror or error}") from error

    def sync_to_disk(self) -> None:
        """Wait until all reports are on the disk, so that no checkpoint outlasts its reports in a power cut."""
        if self._path.exists():
            sync_to_disk(self._path)

    def cut(self, step: int) -> None:
        """Drop the reports of later steps, since these come again; raises InputError where a line is no report."""
        if not self._path.exists():
            return
        kept = [line for line in self._lines() if self._parsed(line)["step"] <= step]
        with atomic_write(self._path) as temporary:
            temporary.write_text("".join(kept), encoding="utf8")

    def reports(self) -> list[Report]:
        """All there are, in order; raises InputError where a line is no report."""
        lines = map(self._parsed, self._lines())
        return [Report(**{name: value for name, value in line.items() if name in _FIELDS}) for line in lines]

    def _lines(self) -> list[str]:
        """The whole lines: that of a report during which the run was killed is none."""
        if not self._path.exists():
            return []
        try:
            lines = self._path.read_text(encoding="utf8").splitlines(keepends=True)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self._path}: can't be read: {error}") from error
        return [line for line in lines if line.endswith("\n")]

    def _parsed(self, line: str) -> dict[str, Any]:
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
    """Whether it is one, or None; raises OverflowError for a whole number that is too large to count with."""
    return value is None or (isinstance(value, int | float) and float(value) is not None)


def best_report(reports: Iterable[Report]) -> Report | None:
    """That of the lowest held-out loss, the first if there are several, among those with weights of the run's own."""
    measured = [report for report in _measured(reports) if report.step > 0]
    return min(measured, key=lambda report: (report.val_loss, report.step), default=None)


def measurements_since_best(reports: Iterable[Report], after: int) -> int:
    """How many measurements in a row, of those `after` a step, have not been better than the best before them."""
    lowest, number = math.inf, 0
    for report in _measured(reports):
        assert report.val_loss is not None
        is_better = report.val_loss < lowest
        lowest = min(lowest, report.val_loss)
        number = 0 if is_better else number + (report.step > after)
    return number


def _measured(reports: Iterable[Report]) -> list[Report]:
    return [report for report in reports if report.val_loss is not None and math.isfinite(report.val_loss)]
