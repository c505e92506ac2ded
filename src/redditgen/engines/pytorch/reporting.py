"""Reports of a training, written to metrics.jsonl, TensorBoard and the log, and the note on the progress bar."""

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
    """Collects the losses, token counts and times of one command's steps, and reports them.

    Speeds are of the steps alone, without the time of measuring, sampling and saving.
    """

    def __init__(self, metrics: MetricsFile, events: EventWriter, device: "torch.device") -> None:
        self._metrics, self._events, self._device = metrics, events, device
        self._losses: list[float] = []  # of the steps since the last report, in nats a token
        self._counts = {"tokens": 0, "titles": 0}  # in the same steps
        self._step_seconds = 0.0  # spent in the same steps
        self._total_tokens = 0
        self._speeds: dict[str, float | None] = {"tokens": None, "titles": None}
        self._held_out_loss: HeldOutLoss | None = None
        self._peak_memory: int | None = None
        self._started_at = self._step_started_at = time.monotonic()

    def begin_step(self) -> None:
        """Note the time at which a step begins, with the making of its batches."""
        self._step_started_at = time.monotonic()

    def end_step(self, loss: float, *, tokens: int, titles: int) -> None:
        """Count a finished step: its mean loss in nats a token, and its tokens and titles."""
        self._step_seconds += time.monotonic() - self._step_started_at
        self._losses.append(loss)
        self._counts["tokens"] += tokens
        self._counts["titles"] += titles
        self._total_tokens += tokens
        for name, count in self._counts.items():
            self._speeds[name] = count / self._step_seconds if count and self._step_seconds else None

    def note(self) -> str:
        """Return the note for the progress bar: the last loss and held-out loss, the speeds and the peak memory."""
        parts = [f"loss {self._losses[-1]:.3f}"] if self._losses else []
        if self._held_out_loss:
            parts.append(f"held out {self._held_out_loss.loss:.3f} ({self._held_out_loss.bits_per_char:.2f} bits/char)")
        parts += [f"{speed:.0f} {name}/s" for name, speed in self._speeds.items() if speed]
        parts += [f"{self._peak_memory / 1e9:.1f} GB"] if self._peak_memory else []
        return ", ".join(parts)

    def report(self, step: int, learning_rate: float, measured: "HeldOutLoss | None") -> None:
        """Report the steps since the last report, and the held-out loss where it was `measured` at this step."""
        self._held_out_loss = measured or self._held_out_loss
        self._peak_memory = peak_device_memory(self._device)
        has_steps = bool(self._losses)
        report = Report(
            step=step,
            loss=sum(self._losses) / len(self._losses) if has_steps else None,
            val_loss=measured.loss if measured else None,
            val_bits_per_char=measured.bits_per_char if measured else None,
            tokens=self._total_tokens,
            seconds=round(time.monotonic() - self._started_at, 3),
            lr=learning_rate,
            tokens_per_second=_rounded(self._speeds["tokens"]) if has_steps else None,
            titles_per_second=_rounded(self._speeds["titles"]) if has_steps else None,
            memory_bytes=self._peak_memory,
        )
        self._losses, self._step_seconds, self._counts = [], 0.0, dict.fromkeys(self._counts, 0)
        self._metrics.add(report)
        self._events.add(report)
        _log.info("%s", report)


def _rounded(speed: float | None) -> float | None:
    return None if speed is None else round(speed, 1)
