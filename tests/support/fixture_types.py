"""The types of what fixtures of conftest.py give."""

import subprocess
from collections.abc import Callable
from typing import Any

from redditgen.settings import FinetuneSettings, GenerateSettings
from tests.support.scripted_engine import ScriptedEngine

Settings = Callable[..., FinetuneSettings]
Redditgen = Callable[..., subprocess.CompletedProcess[str]]
TakesLong = Callable[[Any, str], None]
Generating = Callable[..., GenerateSettings]
Scripted = Callable[[Callable[[str, int], str]], ScriptedEngine]
