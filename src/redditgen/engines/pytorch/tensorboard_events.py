"""Event files for TensorBoard, written in the run's folder, where gpt-2-simple writes its own.

    checkpoint/run1/events.out.tfevents.1600000000.HOST.PID

Each command writes a file of its own: TFRecords of Event messages, each report as one scalar for each of its numbers.
The file begins with the version of the format, `brain.Event:2`, and a SessionLog of status START, which names the first
step of the command. On reading it, TensorBoard drops the events of that step and later ones from earlier files, so a
resumed run shows one curve.
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
_UNPLOTTED = ("step", "tokens", "seconds")


class EventWriter:
    """Writes the event file of one command with TensorBoard's own record writer; use it in a `with` block."""

    def __init__(self, folder: Path, start: int) -> None:
        """Create a file in an existing folder for the steps after `start`.

        Raises InputError where it can't be written.
        """
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._path = folder / f"{_PREFIX}{_file_timestamp(folder):010d}.{socket.gethostname()}.{os.getpid()}"
        with write_errors(self._path):
            self._writer = RecordWriter(self._path.open("ab"))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        session = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=start + 1, session_log=session))

    def add(self, report: Report) -> None:
        """Write a report, each number as a scalar named by its key. Raises InputError where it can't be written."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        numbers = {name: value for name, value in asdict(report).items() if name not in _UNPLOTTED}
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


def _file_timestamp(folder: Path) -> int:
    """Return the present second, or one later than in the name of any event file of the folder.

    TensorBoard reads the files in the order of their names.
    """
    seconds = (path.name.removeprefix(_PREFIX).partition(".")[0] for path in folder.glob(f"{_PREFIX}*"))
    return max([int(time.time()), *(int(second) + 1 for second in seconds if second.isdigit())])
