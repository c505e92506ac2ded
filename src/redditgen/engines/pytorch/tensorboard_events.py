"""What TensorBoard shows of a run, in a file of events where gpt-2-simple writes its own.

    checkpoint/run1/events.out.tfevents.1600000000.HOST.PID

Each command writes a file. The first event of a command that goes on says where, so that TensorBoard drops what earlier
files have of later steps.
"""

import os
import socket
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from redditgen.files.atomic import write_errors
from redditgen.gpt2.metrics import Report

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

_PREFIX = "events.out.tfevents."
_NOT_SHOWN = ("step", "tokens", "seconds")


class EventWriter:
    """The file of one command's events, through TensorBoard's own writer of records; use it in a `with` block."""

    def __init__(self, folder: Path, start: int) -> None:
        """Begin a file in an existing folder, for the steps behind `start`."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._path = folder / f"{_PREFIX}{_second(folder):010d}.{socket.gethostname()}.{os.getpid()}"
        with write_errors(self._path):
            self._writer = RecordWriter(self._path.open("ab"))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        session = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=start + 1, session_log=session))

    def add(self, report: Report) -> None:
        """Show a report, each of its numbers as a scalar by its key."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        numbers = {name: value for name, value in asdict(report).items() if name not in _NOT_SHOWN}
        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items() if value is not None]
        self._write(Event(wall_time=time.time(), step=report.step, summary=Summary(value=values)))

    def _write(self, event: "Event") -> None:
        with write_errors(self._path):
            self._writer.write(event.SerializeToString())
            self._writer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


def _second(folder: Path) -> int:
    """The time, but later than that of all files there are: TensorBoard reads them in the order of their names."""
    seconds = (path.name.removeprefix(_PREFIX).partition(".")[0] for path in folder.glob(f"{_PREFIX}*"))
    return max([int(time.time()), *(int(second) + 1 for second in seconds if second.isdigit())])
