"""redditgen under a disturbance: disturbed.py HOW COMMAND...

HOW is JSON. The process sends itself the signal `signal` just before it touches files of its working folder for the
`touch`-th time, or `seconds` after it has begun. It can't write files of more than `largest` bytes. How often it
touched files is written to the file `count`, if it ends by itself.
"""

import atexit
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

TOUCHES = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.utime", "shutil.rmtree"}


def main() -> None:
    how = json.loads(sys.argv.pop(1))
    from redditgen.cli.app import main as command_line

    touches = _Touches(how)
    sys.addaudithook(touches.watch)
    atexit.register(touches.end)
    if "largest" in how:
        _limit_files(how["largest"])
    if "seconds" in how:
        timer = threading.Timer(how["seconds"], os.kill, (os.getpid(), how["signal"]))
        timer.daemon = True
        timer.start()
    command_line()


class _Touches:
    def __init__(self, how: dict[str, Any]) -> None:
        self._how, self._folder = how, f"{Path.cwd()}{os.sep}"
        self._count, self._is_over = 0, False

    def watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook."""
        if self._is_over or event not in TOUCHES or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        if f"{Path.cwd() / os.fsdecode(arguments[0])}".startswith(self._folder):
            self._count += 1
            if self._count == self._how.get("touch"):
                os.kill(os.getpid(), self._how["signal"])

    def end(self) -> None:
        self._is_over = True
        if "count" in self._how:
            Path(self._how["count"]).write_text(f"{self._count}", encoding="utf8")


def _limit_files(size: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # Python ignores SIGXFSZ, so that writing fails


if __name__ == "__main__":
    main()
