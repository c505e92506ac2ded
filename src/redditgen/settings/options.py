"""How settings are declared and checked: fields that know their help text, and checks that name the option."""

import re
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, dataclass_transform

from redditgen.errors import UsageError

_Settings = TypeVar("_Settings")

_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(?:([kmgt])(i?))?b?")
_DURATION = re.compile(r"(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?")


def option(default: Any, help: str, *flags: str) -> Any:
    """A field that is an option; `flags` replaces the name made from the field's."""
    return field(default=default, metadata={"help": help, "flags": flags})


def argument(help: str) -> Any:
    """A field that is a positional argument."""
    return field(metadata={"help": help, "positional": True})


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def command_settings(cls: type[_Settings]) -> type[_Settings]:
    """Make a frozen, keyword-only dataclass of a class of options, and write each option's flag into its metadata."""
    made = dataclass(frozen=True, kw_only=True)(cls)
    for declared in fields(made):  # type: ignore[arg-type]
        declared.metadata = MappingProxyType({**declared.metadata, "flag": _flag(declared)})
    return made


def _flag(declared: "Field[Any]") -> str:
    if declared.metadata.get("positional"):
        return declared.name.upper()
    flags = declared.metadata["flags"] or (f"--{declared.name.replace('_', '-')}",)
    return str(flags[0]).partition("/")[0]


def flag(declared: "Field[Any]") -> str:
    """The name of an option on the command line: --min-score, or INPUT for an argument."""
    name: str = declared.metadata["flag"]
    return name


def require(holds: bool, message: str) -> None:
    if not holds:
        raise UsageError(message)


def require_at_least(least: int, settings: Any, name: str) -> None:
    value = getattr(settings, name)
    flag = f"--{name.replace('_', '-')}"
    require(value is None or value >= least, f"{flag} must be {least} or more, not {value}")


def require_auto_or_count(settings: Any, name: str) -> None:
    value = getattr(settings, name)
    flag = f"--{name.replace('_', '-')}"
    is_one = re.fullmatch("auto|[1-9][0-9]*", value)
    require(is_one is not None, f"{flag} must be auto or a number from 1, not {value!r}")


def choose(name: str, value: str | None, *choices: str | None) -> None:
    require(value in choices, f"{name} must be {' or '.join(filter(None, choices))}, not {value!r}")


def require_step(value: str | None) -> None:
    """Which checkpoint of a run is meant, by its step or as the best."""
    is_one = value is None or re.fullmatch("best|[0-9]+", value)
    require(bool(is_one), f"--step must be a number, 0 or more, or best, not {value!r}")


def require_name(name: str, value: str) -> None:
    """Runs and models are folders in a folder, so their names must not lead out of it."""
    require(
        value not in ("", ".", "..") and Path(value).name == value, f"{name} must be a plain folder name, not {value!r}"
    )


def byte_count(name: str, text: str) -> int:
    """The bytes of a text such as 4GB, 1.5 GiB or 1000000; raises UsageError naming the option."""
    amount = _AMOUNT.fullmatch(text.strip().lower())
    require(amount is not None and float(amount[1]) > 0, f"{name} must be an amount like 4GB, not {text!r}")
    assert amount is not None
    return int(float(amount[1]) * (1024 if amount[3] else 1000) ** " kmgt".index(amount[2] or " "))


def duration(name: str, text: str) -> int:
    """The seconds of a text such as 8h, 90m, 30s or 1h30m; raises UsageError naming the option."""
    parts = _DURATION.fullmatch(text.strip().lower())
    hours, minutes, seconds = (int(number or 0) for number in parts.groups()) if parts else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    require(total > 0, f"{name} must be a time like 8h, 90m or 1h30m, not {text!r}")
    return total
