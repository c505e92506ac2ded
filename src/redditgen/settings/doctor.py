"""The options of `redditgen doctor`."""

from dataclasses import dataclass
from pathlib import Path

from redditgen.options import choose, option, require
from redditgen.settings import fields


@dataclass(frozen=True, kw_only=True)
class DoctorSettings:
    install: str | None = option(
        None, "tf1: make the Python 3.7 environment with TensorFlow 1.15 for --engine gpt-2-simple, instead of looking."
    )
    python: Path | None = option(
        None, "With --install: the Python 3.7 to make it with.  [default: from PATH, pyenv or uv]"
    )
    tf1_python: Path | None = fields.tf1_python()
    model_dir: Path = fields.model_dir()

    def __post_init__(self) -> None:
        choose("--install", self.install, None, "tf1")
        require(self.python is None or self.install is not None, "--python needs --install tf1")
