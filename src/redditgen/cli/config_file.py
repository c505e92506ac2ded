"""Options from a TOML file: one table per command, whose keys are the option names without the leading dashes.

    [finetune]
    dataset = "data/reddit_titles_encoded.txt"
    batch-size = 16

Values are TOML values: text in quotes, true or false for a switch, an array for an option that may be given more than
once. Relative paths are relative to the working folder, as on the command line, not to the file.
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
"""Option values by command name, then by the name of the settings field, as the command line would pass them."""


def read_config(path: Path, commands: Mapping[str, tuple[type[Any], ...]]) -> Config:
    """Read a config file; `commands` maps each command name to the settings dataclasses that hold its options.

    Raises InputError where the file can't be read, UsageError where it is no TOML, names an unknown command or option,
    or holds a value of the wrong type.
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
    """Parse the text of a config file as `read_config` does; `source` names the file in messages.

    Raises tomllib.TOMLDecodeError where the text is no TOML, UsageError on unknown names and wrong types.
    """
    config: Config = {}
    for name, table in tomllib.loads(text).items():
        if name not in commands:
            problem = f"[{name}]: no such command" if isinstance(table, dict) else f"{name}: stands in no table"
            advice = did_you_mean(name, commands) if isinstance(table, dict) else "; put it below one, as [generate]"
            raise UsageError(f"{source}: {problem}{advice}")
        if not isinstance(table, dict):
            raise UsageError(f"{source}: {name} must be a table of options, [{name}]")
        config[name] = _read_table(table, f"{source}: [{name}]", options_by_key(commands[name]))
    return config


def options_by_key(kinds: tuple[type[Any], ...]) -> dict[str, tuple[str, Any]]:
    """Return the name and type of each option field of the dataclasses, by its key in a config file."""
    return {
        config_key(field): (field.name, typing.get_type_hints(kind)[field.name])
        for kind in kinds
        for field in dataclasses.fields(kind)
        if is_in_config_file(field)
    }


def is_in_config_file(field: "dataclasses.Field[Any]") -> bool:
    return field.name not in ("config", "print_config")  # these two are about the config file itself


def config_key(field: "dataclasses.Field[Any]") -> str:
    return field.name if field.metadata.get("positional") else flag(field).removeprefix("--")


def _read_table(table: dict[str, Any], location: str, known: dict[str, tuple[str, Any]]) -> dict[str, Any]:
    values = {}
    for name, value in table.items():
        if name not in known:
            suggestion = did_you_mean(name, known)
            raise UsageError(f"{location} {name}: no such option{suggestion}")
        field, hint = known[name]
        values[field] = _check_value(value, hint, f"{location} {name}")
    return values


def _check_value(value: Any, hint: Any, location: str) -> Any:
    """Return the value of an option whose field has the type `hint`. Raises UsageError where its type is wrong."""
    kinds = set(typing.get_args(hint)) - {type(None)} or {hint}
    if hint == tuple[str, ...]:
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            return value
        raise UsageError(f'{location}: must be an array of texts, as ["a", "b"], not {_describe(value)}')
    [kind] = kinds
    if kind in (str, Path):
        return _as_text(value, location)
    # Exact types, since in Python a bool is an int.
    if type(value) is kind or (kind is float and type(value) is int):
        return value
    raise UsageError(f"{location}: must be {_TYPE_NAMES[kind]}, not {_describe(value)}")


_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number"}


def _as_text(value: Any, location: str) -> str:
    """Return text; also accepts an unquoted integer or date, as in `batch-size = 8`, whose option also takes `auto`."""
    if isinstance(value, str):
        return value
    if type(value) is int or (isinstance(value, date) and not isinstance(value, datetime)):
        return str(value)
    raise UsageError(f"{location}: must be text in quotes, not {_describe(value)}")


def _describe(value: Any) -> str:
    return "a table" if isinstance(value, dict) else repr(value) if isinstance(value, str) else to_toml(value)


def to_toml(value: Any) -> str:
    """Return a value in TOML notation."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(to_toml, value))}]"
    if isinstance(value, int | float):
        return str(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", r"\u007f")  # which JSON allows
