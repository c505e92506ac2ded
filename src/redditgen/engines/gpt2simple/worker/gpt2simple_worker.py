"""gpt-2-simple at one job, in a Python 3.7 with TensorFlow 1.15: `python -I gpt2simple_worker.py FOLDER`.

FOLDER becomes the working folder. The parent puts models/124M/ there, the model to start from, job.json, whose
`command` is finetune or generate, and what else that command's module names. This process writes events.jsonl, a line
for whatever happens, and last result.json, {} or {"error": "one line"}.

A byte on standard input asks to save and stop; its end means that the parent is gone, and so ends this process at once.
Standard output and error are outside the protocol: TensorFlow says there what it likes.

The library runs as it is. What it gets wrong is mended by replacing functions at run time, each with its reason. Here
and beside stands Python 3.7's grammar, and importing a module loads no TensorFlow.
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
    """Listens to the parent, which may ask to stop and may die."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.asked_to_stop = threading.Event()

    def run(self) -> None:
        # Not sys.stdin: a thread waiting in it holds a lock that the interpreter wants at its end.
        while os.read(0, 1):
            self.asked_to_stop.set()
        with _writing:
            shutil.rmtree(Path.cwd(), ignore_errors=True)
            os._exit(1)


def send(**event: Any) -> None:
    """Write a line for the parent."""
    with _writing, Path("events.jsonl").open("a", encoding="utf8") as file:
        file.write(json.dumps(event) + "\n")


def message(error: BaseException, job: dict[str, Any]) -> str:
    """One line on what went wrong; foreign classes go by their names, since TensorFlow may not be there."""
    names = {kind.__name__ for kind in type(error).__mro__}
    text = (str(error).strip() or "no reason given").splitlines()[0]
    if "No space left on device" in str(error):  # to TensorFlow a resource as memory is
        return "has no room left on the disk; make room, or name another --checkpoint-dir"
    if names & {"ResourceExhaustedError", "MemoryError"}:
        return f"ran out of memory; {job['if_memory_is_short']}"
    if "ImportError" in names:
        return f"{sys.executable} lacks what it needs ({text}); make it anew with: redditgen doctor --install tf1"
    if "Failure" in names:
        return text
    # The library calls exit() on what it can't do.
    return f"gave up: {text}" if isinstance(error, SystemExit) else f"{type(error).__name__}: {text}"


def do(job: dict[str, Any], parent: Parent) -> None:
    sys.path.append(str(Path(__file__).parent))  # at the end: nothing here stands in the way of an import
    if job["command"] == "finetune":
        from gpt2simple_finetune import finetune

        finetune(job, send, parent.asked_to_stop.is_set)
    else:
        from gpt2simple_generate import generate

        generate(job, send)


def main(folder: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are for the parent, which asks to stop
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
