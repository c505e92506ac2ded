"""The options of `redditgen doctor`."""

from pathlib import Path

from redditgen.settings import shared
from redditgen.settings.options import command_settings, option, require, require_choice


@command_settings
class DoctorSettings:
    install: str | None = option(
        None, "tf1: make the Python 3.7 environment with TensorFlow 1.15 for --engine gpt-2-simple, instead of looking."
    )
    python: Path | None = option(
        None, "With --install: the Python 3.7 to make it with.  [default: from PATH, pyenv or uv]"
    )
    tf1_python: Path | None = shared.tf1_python()
    model_dir: Path = shared.model_dir()

    def __post_init__(self) -> None:
        require_choice("--install", self.install, None, "tf1")
        require(self.python is None or self.install is not None, "--python needs --install tf1")
