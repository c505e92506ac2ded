"""Commands built from functions of one argument, a settings dataclass, whose fields become the options.

The value of an option is that of the command line, else that of the config file (see config_file.py), else the field's
default.
"""

import dataclasses
import inspect
import logging
import os
import platform
import re
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from redditgen import __version__
from redditgen.cli import config_file, console
from redditgen.cli.help import Command, CommandGroup
from redditgen.errors import Interrupted, UnusedOption, UsageError
from redditgen.runtime.http import redact_url
from redditgen.runtime.signals import signals_raise_keyboard_interrupt
from redditgen.settings import GeneralSettings
from redditgen.settings.options import flag

# Origins of a value; the third one is the path of the config file.
_COMMAND_LINE, _DEFAULT = "command line", "default"
# Key of the config file's path in `ctx.meta`, a dictionary that the contexts of one command line share.
_PATH_KEY = "redditgen.cli.config_file"

_GENERAL_OPTIONS = [field.name for field in dataclasses.fields(GeneralSettings)]

_log = logging.getLogger(__name__)


class CommandLine(typer.Typer):
    """The group of commands; `settings_types` maps each command name to the class of its settings."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=CommandGroup, **options)
        self.settings_types: dict[str, type[Any]] = {}

    def command_for(self, settings_type: type[Any], example: str) -> Callable[[Callable[[Any], None]], None]:
        """Return a decorator that makes a command from a function of settings; `example` ends its help page."""

        def register(function: Callable[[Any], None]) -> None:
            def command(ctx: typer.Context, **options: Any) -> None:
                _run_command(function, settings_type, ctx, options)

            command.__doc__ = function.__doc__
            set_signature(command, [*_parameters(settings_type), *self.general_parameters()])
            self.settings_types[function.__name__] = settings_type
            about = inspect.getdoc(function)  # in full: the list of commands would truncate it
            self.command(function.__name__, cls=Command, short_help=about, epilog=f"\b\nExample:\n  {example}")(command)

        return register

    def general_parameters(self) -> list[inspect.Parameter]:
        """Return the parameters of the options that every command has."""
        return list(_parameters(GeneralSettings, config=self._load_config))

    def _load_config(self, ctx: typer.Context, path: Path | None) -> Path | None:
        """Make the values in the config file the command's defaults. Runs before its other options are parsed.

        The file is `path`, else the one given before the command's name, else redditgen.toml where it exists.
        """
        path = (
            path or ctx.meta.get(_PATH_KEY) or (config_file.DEFAULT_PATH if config_file.DEFAULT_PATH.exists() else None)
        )
        if path is None or ctx.resilient_parsing:
            return path
        ctx.meta[_PATH_KEY] = path
        if ctx.parent:
            tables = {name: (settings_type, GeneralSettings) for name, settings_type in self.settings_types.items()}
            ctx.default_map = config_file.read_config(path, tables).get(ctx.info_name or "")
        return path


def set_signature(function: Callable[..., None], options: Iterable[inspect.Parameter]) -> None:
    """Replace the `**options` in a function's signature, which typer reads, with the parameters `options`."""
    own = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind != parameter.VAR_KEYWORD
    ]
    parameters = [*own, *options]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


def _parameters(settings_type: type[Any], **eager_callbacks: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    """Yield a parameter per field; `eager_callbacks` maps names to functions called before other options are parsed."""
    hints = typing.get_type_hints(settings_type)
    for field in dataclasses.fields(settings_type):
        yield _parameter(field, hints[field.name], eager_callbacks.get(field.name))


def _parameter(field: "dataclasses.Field[Any]", hint: Any, callback: Callable[..., Any] | None) -> inspect.Parameter:
    positional = field.metadata.get("positional", False)
    make = typer.Argument if positional else typer.Option
    is_off_switch = field.default is False
    declaration = make(
        *(_switch_flags(field) if is_off_switch else field.metadata.get("flags", ())),
        show_default=not is_off_switch,
        help=field.metadata["help"],
        metavar=field.name.upper() if positional else None,
        hidden=field.metadata.get("hidden", False),
        callback=callback,
        is_eager=callback is not None,
        readable=False,  # no check by typer: an unreadable file is no usage error, and its reader reports it
    )
    kind: Any = list[str] if hint == tuple[str, ...] else hint
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if positional else default,
        annotation=Annotated[kind, declaration],
    )


def _switch_flags(field: "dataclasses.Field[Any]") -> tuple[str, ...]:
    """Return the flags of a switch that is off by default; one that a config file can turn on has a --no- form."""
    on = flag(field)
    return (f"{on}/--no-{on.removeprefix('--')}" if config_file.is_in_config_file(field) else on,)


def _run_command(
    function: Callable[[Any], None], settings_type: type[Any], ctx: typer.Context, options: dict[str, Any]
) -> None:
    parsed = _ParsedOptions(ctx, options)
    if not parsed.general.print_config:  # --print-config creates no file, not even that of --log-json
        console.set_up_logging(parsed.general)
    settings = parsed.settings(settings_type)
    if parsed.general.print_config:
        print(f"[{ctx.info_name}]")
        for name, value, origin in parsed.rows(settings, parsed.general):
            print(f"# {name} = none" if value is None else f"{name} = {value}", f"# {origin}", sep="  ")
        return
    _log.debug("redditgen %s, Python %s, %s", __version__, platform.python_version(), platform.platform())
    chosen = [f"{name} {value} ({origin})" for name, value, origin in parsed.rows(settings) if origin != _DEFAULT]
    _log.debug("%s: %s", ctx.info_name, ", ".join(chosen) or "all options by default")
    try:
        with signals_raise_keyboard_interrupt():
            function(settings)
    except KeyboardInterrupt as error:  # typer would exit without a message
        raise Interrupted("interrupted") from error
    _log.debug("%s: done", ctx.info_name)


class _ParsedOptions:
    """The option values of one command, and the origin of each."""

    def __init__(self, ctx: typer.Context, options: dict[str, Any]) -> None:
        self._values = {name: _decode_value(value) for name, value in options.items()}
        self._origins = {name: _origin(ctx, name) for name in options}
        for name in _GENERAL_OPTIONS:
            # An option before the command's name counts like one after it, unless it is given there too.
            if ctx.parent and self._origins[name] != _COMMAND_LINE == _origin(ctx.parent, name):
                self._values[name], self._origins[name] = _decode_value(ctx.parent.params[name]), _COMMAND_LINE
        self.general = self.settings(GeneralSettings)

    def settings(self, settings_type: type[Any]) -> Any:
        """Return an object of `settings_type`. Options of the config file without effect on the command are left out.

        Raises UsageError as `settings_type` does, and names the config file where the option was set there.
        """
        fields = dataclasses.fields(settings_type)
        try:
            return settings_type(**{field.name: self._values[field.name] for field in fields})
        except UnusedOption as error:
            if (origin := self._origins[error.field]) == _COMMAND_LINE:
                raise
            _log.debug("%s; that of %s is left out", error, origin)
            self._values |= {field.name: field.default for field in fields if field.name == error.field}
            self._origins[error.field] = _DEFAULT
            return self.settings(settings_type)
        except UsageError as error:
            mentioned = set(re.findall(r"-[\w-]+|[A-Z]{3,}", str(error)))
            for field in fields:
                origin = self._origins[field.name]
                if mentioned & _option_names(field) and origin not in (_COMMAND_LINE, _DEFAULT):
                    raise UsageError(f"{error} ({config_file.config_key(field)} stands in {origin})") from error
            raise

    def rows(self, *settings: Any) -> Iterator[tuple[str, str | None, str]]:
        """Yield for each option its name, its value in TOML notation (None where it has none) and its origin."""
        for group in settings:
            for field in filter(config_file.is_in_config_file, dataclasses.fields(group)):
                value = getattr(group, field.name)
                if "://" in str(value) and not isinstance(value, tuple):
                    value = redact_url(str(value))
                yield (
                    config_file.config_key(field),
                    None if value is None else config_file.to_toml(value),
                    self._origins[field.name],
                )


def _origin(ctx: Any, name: str) -> str:
    source = ctx.get_parameter_source(name)
    # By the names of click's ParameterSource, an enumeration that typer does not export.
    return {"COMMANDLINE": _COMMAND_LINE, "DEFAULT_MAP": str(ctx.meta.get(_PATH_KEY))}.get(
        source.name if source else "", _DEFAULT
    )


def _option_names(field: "dataclasses.Field[Any]") -> set[str]:
    """Return the names by which messages may call an option."""
    return {flag(field), *"/".join(field.metadata.get("flags", ())).split("/")}


def _decode_value(value: Any) -> Any:
    """Return an option's value as settings hold it: a list as a tuple, typed text as UTF-8.

    Where the locale can't decode the text, Python delivers its bytes as surrogate escapes (PEP 383).
    """
    if isinstance(value, str) and any("\udc80" <= letter <= "\udcff" for letter in value):
        return os.fsencode(value).decode("utf8", "replace")
    return tuple(value) if isinstance(value, list) else value
