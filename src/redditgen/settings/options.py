"""Declaration and checks of settings: fields with help texts, and checks whose errors name the option."""

import re
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, dataclass_transform

from redditgen.errors import UsageError

_Settings = TypeVar("_Settings")

_BYTE_COUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(?:([kmgt])(i?))?b?")
_DURATION = re.compile(r"(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?")


def option(default: Any, help: str, *flags: str, hidden: bool = False) -> Any:
    """Declare a field that is an option; `flags` replace the flag derived from the field's name.

    Help does not show a `hidden` option.
    """
    return field(default=default, metadata={"help": help, "flags": flags, "hidden": hidden})


def argument(help: str) -> Any:
    """Declare a field that is a positional argument."""
    return field(metadata={"help": help, "positional": True})


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def command_settings(cls: type[_Settings]) -> type[_Settings]:
    """Make a class of options a frozen, keyword-only dataclass, and add each option's flag to its field's metadata."""
    settings_class = dataclass(frozen=True, kw_only=True)(cls)
    for declared in fields(settings_class):  # type: ignore[arg-type]
        declared.metadata = MappingProxyType({**declared.metadata, "flag": _flag(declared)})
    return settings_class


def _flag(declared: "Field[Any]") -> str:
    if declared.metadata.get("positional"):
        return declared.name.upper()
    flags = declared.metadata["flags"] or (f"--{declared.name.replace('_', '-')}",)
    return str(flags[0]).partition("/")[0]


def flag(declared: "Field[Any]") -> str:
    """Return the name of an option on the command line, such as --min-score, or INPUT for a positional argument."""
    name: str = declared.metadata["flag"]
    return name


def require(holds: bool, message: str) -> None:
    """Raise UsageError with the message unless the condition holds."""
    if not holds:
        raise UsageError(message)


def require_at_least(least: int, settings: Any, name: str) -> None:
    """Raise UsageError where the field `name` is below `least`; None is valid."""
    value = getattr(settings, name)
    flag = f"--{name.replace('_', '-')}"
    require(value is None or value >= least, f"{flag} must be {least} or more, not {value}")


def require_auto_or_count(settings: Any, name: str) -> None:
    """Raise UsageError unless the field `name` is "auto" or a positive integer as text."""
    value = getattr(settings, name)
    flag = f"--{name.replace('_', '-')}"
    match = re.fullmatch("auto|[1-9][0-9]*", value)
    require(match is not None, f"{flag} must be auto or a number from 1, not {value!r}")


def require_choice(name: str, value: str | None, *choices: str | None) -> None:
    """Raise UsageError, naming the option `name`, unless the value is one of the choices."""
    require(value in choices, f"{name} must be {' or '.join(filter(None, choices))}, not {value!r}")


def require_step(value: str | None) -> None:
    """Raise UsageError unless the value names a checkpoint of a run: a step, "best", or None for the newest."""
    is_valid = value is None or re.fullmatch("best|[0-9]+", value)
    require(bool(is_valid), f"--step must be a number, 0 or more, or best, not {value!r}")


def require_name(name: str, value: str) -> None:
    """Raise UsageError unless a run's or model's name is a plain folder name, which can't lead elsewhere."""
    require(
        value not in ("", ".", "..") and Path(value).name == value, f"{name} must be a plain folder name, not {value!r}"
    )


def parse_byte_count(name: str, text: str) -> int:
    """Parse a number of bytes such as 4GB (decimal), 1.5 GiB (binary) or 1000000.

    Raises UsageError, naming the option `name`, where the text has another form or the number is 0.
    """
    amount = _BYTE_COUNT.fullmatch(text.strip().lower())
    require(amount is not None and float(amount[1]) > 0, f"{name} must be an amount like 4GB, not {text!r}")
    assert amount is not None
    return int(float(amount[1]) * (1024 if amount[3] else 1000) ** " kmgt".index(amount[2] or " "))


def parse_duration(name: str, text: str) -> int:
    """Parse a duration such as 8h, 90m, 30s or 1h30m into seconds.

    Raises UsageError, naming the option `name`, where the text has another form or the duration is 0.
    """
    parts = _DURATION.fullmatch(text.strip().lower())
    hours, minutes, seconds = (int(number or 0) for number in parts.groups()) if parts else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    require(total > 0, f"{name} must be a time like 8h, 90m or 1h30m, not {text!r}")
    return total
