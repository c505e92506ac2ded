"""How settings are declared and checked: fields that know their help text, and checks that name the option."""

from dataclasses import field
from pathlib import Path
from typing import Any

from redditgen.errors import UsageError


def option(default: Any, help: str, *flags: str) -> Any:
    """A field that is an option; `flags` replaces the name made from the field's."""
    return field(default=default, metadata={"help": help, "flags": flags})


def argument(help: str) -> Any:
    """A field that is a positional argument."""
    return field(metadata={"help": help, "positional": True})


def require(holds: bool, message: str) -> None:
    if not holds:
        raise UsageError(message)


def require_at_least(least: int, settings: Any, name: str) -> None:
    value = getattr(settings, name)
    flag = f"--{name.replace('_', '-')}"
    require(value is None or value >= least, f"{flag} must be {least} or more, not {value}")


def choose(name: str, value: str | None, *choices: str | None) -> None:
    require(value in choices, f"{name} must be {' or '.join(filter(None, choices))}, not {value!r}")


def require_name(name: str, value: str) -> None:
    """Runs and models are folders in a folder, so their names must not lead out of it."""
    require(
        value not in ("", ".", "..") and Path(value).name == value, f"{name} must be a plain folder name, not {value!r}"
    )
