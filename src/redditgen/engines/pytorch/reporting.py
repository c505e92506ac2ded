"""What a finetuning says of itself: reports in metrics.jsonl, to TensorBoard and in the log, and a note on the bar."""

import logging
import time
from typing import TYPE_CHECKING

from redditgen.engines.pytorch.device import peak_device_memory
from redditgen.engines.pytorch.tensorboard_events import EventWriter
from redditgen.gpt2.metrics import MetricsFile, Report

if TYPE_CHECKING:
    import torch

    from redditgen.engines.pytorch.training import HeldOutLoss

_log = logging.getLogger(__name__)


class StepReporter:
    """Counts what the steps of one command learn, and reports it.

    Speeds are of the steps alone: measuring, sampling and saving are not in them.
    """

    def __init__(self, metrics: MetricsFile, events: EventWriter, device: "torch.device") -> None:
        self._metrics, self._events, self._device = metrics, events, device
        self._losses: list[float] = []  # of the steps since the last report
        self._counts = {"tokens": 0, "titles": 0}  # of the same steps
        self._computed = 0.0  # seconds that they took
        self._tokens = 0
        self._speeds: dict[str, float | None] = {"tokens": None, "titles": None}
        self._measured: HeldOutLoss | None = None
        self._memory: int | None = None
        self._began = self._step_began = time.monotonic()

    def begin_step(self) -> None:
        self._step_began = time.monotonic()

    def end_step(self, loss: float, *, tokens: int, titles: int) -> None:
        self._computed += time.monotonic() - self._step_began
        self._losses.append(loss)
        self._counts["tokens"] += tokens
        self._counts["titles"] += titles
        self._tokens += tokens
        for name, number in self._counts.items():
            self._speeds[name] = number / self._computed if number and self._computed else None

    def note(self) -> str:
        """What stands on the bar: the last loss, and what was measured last."""
        parts = [f"loss {self._losses[-1]:.3f}"] if self._losses else []
        if self._measured:
            parts.append(f"held out {self._measured.loss:.3f} ({self._measured.bits_per_char:.2f} bits/char)")
        parts += [f"{speed:.0f} {name}/s" for name, speed in self._speeds.items() if speed]
        parts += [f"{self._memory / 1e9:.1f} GB"] if self._memory else []
        return ", ".join(parts)

    def report(self, step: int, learning_rate: float, measured: "HeldOutLoss | None") -> None:
        self._measured = measured or self._measured
        self._memory = peak_device_memory(self._device)
        has_learned = bool(self._losses)
        report = Report(
            step=step,
            loss=sum(self._losses) / len(self._losses) if has_learned else None,
            val_loss=measured.loss if measured else None,
            val_bits_per_char=measured.bits_per_char if measured else None,
            tokens=self._tokens,
            seconds=round(time.monotonic() - self._began, 3),
            lr=learning_rate,
            tokens_per_second=_rounded(self._speeds["tokens"]) if has_learned else None,
            titles_per_second=_rounded(self._speeds["titles"]) if has_learned else None,
            memory_bytes=self._memory,
        )
        self._losses, self._computed, self._counts = [], 0.0, dict.fromkeys(self._counts, 0)
        self._metrics.add(report)
        self._events.add(report)
        _log.info("%s", report)


def _rounded(speed: float | None) -> float | None:
    return None if speed is None else round(speed, 1)
