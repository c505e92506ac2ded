"""Runs one job of gpt-2-simple under Python 3.7 with TensorFlow 1.15: `python -I gpt2simple_worker.py FOLDER`.

FOLDER becomes the working folder. Before the start the parent writes there:

    models/124M/    the model to start from
    job.json        the job, whose `command` is finetune or generate
    other files     those that the module of the command names

This process writes:

    events.jsonl    one JSON object per event, each on a line
    result.json     at the end: {} or {"error": "one line"}

A byte on standard input asks this process to save and stop. The end of standard input means that the parent has ended:
this process then deletes FOLDER and exits at once. Standard output and standard error are not part of the protocol;
TensorFlow prints there.

The library itself is not changed. Its defects are corrected by replacing functions at run time, with the reason given
at each place. The modules in this folder use the syntax of Python 3.7, and importing one doesn't import TensorFlow.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

_writing = threading.Lock()


class Parent(threading.Thread):
    """A thread that reads standard input: notes a request to stop, and ends the process when the parent has ended."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.asked_to_stop = threading.Event()

    def run(self) -> None:
        # sys.stdin isn't used: a thread that waits in it holds a lock that the interpreter needs when it exits.
        while os.read(0, 1):
            self.asked_to_stop.set()
        with _writing:
            shutil.rmtree(Path.cwd(), ignore_errors=True)
            os._exit(1)


def send(**event: Any) -> None:
    """Append an event to events.jsonl, which the parent reads."""
    with _writing, Path("events.jsonl").open("a", encoding="utf8") as file:
        file.write(json.dumps(event) + "\n")


def message(error: BaseException, job: dict[str, Any]) -> str:
    """Return a one-line message for an error.

    Classes of TensorFlow and of other modules are compared by name, since these modules may not be importable.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    text = (str(error).strip() or "no reason given").splitlines()[0]
    if "No space left on device" in str(error):  # for this too TensorFlow raises ResourceExhaustedError
        return "has no room left on the disk; make room, or name another --checkpoint-dir"
    if names & {"ResourceExhaustedError", "MemoryError"}:
        return f"ran out of memory; {job['if_memory_is_short']}"
    if "ImportError" in names:
        return f"{sys.executable} lacks what it needs ({text}); make it anew with: redditgen doctor --install tf1"
    if "Failure" in names:
        return text
    # gpt-2-simple calls exit() where it can't continue.
    return f"gave up: {text}" if isinstance(error, SystemExit) else f"{type(error).__name__}: {text}"


def do(job: dict[str, Any], parent: Parent) -> None:
    """Run the job's command."""
    sys.path.append(str(Path(__file__).parent))  # last, so that no file in this folder hides another module
    if job["command"] == "finetune":
        from gpt2simple_finetune import finetune

        finetune(job, send, parent.asked_to_stop.is_set)
    else:
        from gpt2simple_generate import generate

        generate(job, send)


def main(folder: str) -> None:
    """Run the job in `folder` and write its result."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent handles them, and asks this process to stop
    os.chdir(folder)
    parent = Parent()
    parent.start()
    job = json.loads(Path("job.json").read_text(encoding="utf8"))
    try:
        do(job, parent)
        result = {}
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        result = {"error": message(error, job)}
    Path("result.json.new").write_text(json.dumps(result), encoding="utf8")
    Path("result.json.new").replace("result.json")


if __name__ == "__main__":
    main(sys.argv[1])
