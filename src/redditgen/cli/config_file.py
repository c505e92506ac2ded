"""Options from a TOML file: a table a command, its keys the options' names without the dashes in front.

    [finetune]
    dataset = "data/reddit_titles_encoded.txt"
    batch-size = 16

A value is written as TOML has it: text in quotes, true or false for a switch, an array for an option that may be given
more than once. Paths in it are relative to the working folder, as on the command line.
"""

import dataclasses
import json
import tomllib
import typing
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

from redditgen.errors import InputError, UsageError, did_you_mean
from redditgen.settings.options import flag

DEFAULT_PATH = Path("redditgen.toml")

Config = dict[str, dict[str, Any]]
"""Values by command and by the name of the settings' field, as the command line would give them."""


def read_config(path: Path, commands: Mapping[str, tuple[type[Any], ...]]) -> Config:
    """What a file says of `commands`, given with the dataclasses of their options.

    Raises UsageError on whatever they have no option for, InputError where the file can't be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}; --config names another file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is no TOML: it is not in UTF-8") from error
    try:
        return parse_config(text, str(path), commands)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: is no TOML: {' '.join(str(error).split())}") from error


def parse_config(text: str, source: str, commands: Mapping[str, tuple[type[Any], ...]]) -> Config:
    """The same of a file's text; `source` names it in messages."""
    config: Config = {}
    for name, table in tomllib.loads(text).items():
        if name not in commands:
            what = f"[{name}]: no such command" if isinstance(table, dict) else f"{name}: stands in no table"
            near = did_you_mean(name, commands) if isinstance(table, dict) else "; put it below one, as [generate]"
            raise UsageError(f"{source}: {what}{near}")
        if not isinstance(table, dict):
            raise UsageError(f"{source}: {name} must be a table of options, [{name}]")
        config[name] = _values(table, f"{source}: [{name}]", options_by_key(commands[name]))
    return config


def options_by_key(kinds: tuple[type[Any], ...]) -> dict[str, tuple[str, Any]]:
    """The fields of dataclasses by their keys in a file: each with its type."""
    return {
        config_key(field): (field.name, typing.get_type_hints(kind)[field.name])
        for kind in kinds
        for field in dataclasses.fields(kind)
        if is_in_config_file(field)
    }


def is_in_config_file(field: "dataclasses.Field[Any]") -> bool:
    return field.name not in ("config", "print_config")  # which are about the file itself


def config_key(field: "dataclasses.Field[Any]") -> str:
    return field.name if field.metadata.get("positional") else flag(field).removeprefix("--")


def _values(table: dict[str, Any], place: str, known: dict[str, tuple[str, Any]]) -> dict[str, Any]:
    values = {}
    for name, value in table.items():
        if name not in known:
            near = did_you_mean(name, known)
            raise UsageError(f"{place} {name}: no such option{near}")
        field, hint = known[name]
        values[field] = _value(value, hint, f"{place} {name}")
    return values


def _value(value: Any, hint: Any, place: str) -> Any:
    kinds = set(typing.get_args(hint)) - {type(None)} or {hint}
    if hint == tuple[str, ...]:
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            return value
        raise UsageError(f'{place}: must be an array of texts, as ["a", "b"], not {_shown(value)}')
    [kind] = kinds
    if kind in (str, Path):
        return _text(value, place)
    # To Python true is an int.
    if type(value) is kind or (kind is float and type(value) is int):
        return value
    raise UsageError(f"{place}: must be {_KINDS[kind]}, not {_shown(value)}")


_KINDS = {bool: "true or false", int: "a whole number", float: "a number"}


def _text(value: Any, place: str) -> str:
    """Text, also of a number or a date without quotes, as of `batch-size = 8`, which takes the word auto too."""
    if isinstance(value, str):
        return value
    if type(value) is int or (isinstance(value, date) and not isinstance(value, datetime)):
        return str(value)
    raise UsageError(f"{place}: must be text in quotes, not {_shown(value)}")


def _shown(value: Any) -> str:
    return "a table" if isinstance(value, dict) else repr(value) if isinstance(value, str) else to_toml(value)


def to_toml(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(to_toml, value))}]"
    if isinstance(value, int | float):
        return str(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", r"\u007f")  # JSON leaves that one as it is
