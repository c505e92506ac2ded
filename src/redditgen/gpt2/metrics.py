"""A run's `metrics.jsonl`: what was measured, a line a report."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from redditgen.errors import InputError
from redditgen.output import whole


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is known at a step; losses are in nats a token, tokens and seconds count since the command began."""

    step: int
    loss: float | None = None
    val_loss: float | None = None
    val_bits_per_char: float | None = None
    tokens: int = 0
    seconds: float = 0.0
    lr: float = 0.0

    def __str__(self) -> str:
        values = [("loss", self.loss), ("held-out loss", self.val_loss), ("bits a character", self.val_bits_per_char)]
        shown = "  ".join(f"{name} {value:.3f}" for name, value in values if value is not None)
        return f"[{self.step} | {self.seconds:.1f} s]  {shown}"


class Metrics:
    """The file, opened anew for each report, so that a killed run leaves whole lines."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, report: Report) -> None:
        try:
            with self._path.open("a", encoding="utf8") as file:
                file.write(json.dumps(asdict(report)) + "\n")
        except OSError as error:
            raise InputError(f"{self._path}: can't be written: {error.strerror or error}") from error

    def cut(self, step: int) -> None:
        """Drop the reports of later steps, since these come again; raises InputError where a line is no report."""
        if not self._path.exists():
            return
        lines = self._path.read_text(encoding="utf8").splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            lines.pop()
        try:
            kept = [line for line in lines if json.loads(line)["step"] <= step]
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{self._path}: holds a line that is no report; delete or mend the file") from error
        with whole(self._path) as temporary:
            temporary.write_text("".join(kept), encoding="utf8")
