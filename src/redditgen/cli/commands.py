"""Commands made of functions of settings: their options, on the command line or in a file."""

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

_LINE, _DEFAULT = "command line", "default"
_CONFIG = "redditgen.cli.config_file"  # the file's path, in what the contexts of one command line share

_GENERAL = [field.name for field in dataclasses.fields(GeneralSettings)]

_log = logging.getLogger(__name__)


class CommandLine(typer.Typer):
    """Commands, each a function of settings whose fields are its options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=CommandGroup, **options)
        self.kinds: dict[str, type[Any]] = {}

    def command_of(self, kind: type[Any], example: str) -> Callable[[Callable[[Any], None]], None]:
        """Make a command of a function of `kind`; `example` stands at the end of its help."""

        def register(function: Callable[[Any], None]) -> None:
            def command(ctx: typer.Context, **options: Any) -> None:
                _run(function, kind, ctx, options)

            command.__doc__ = function.__doc__
            set_signature(command, [*_parameters(kind), *self.general()])
            self.kinds[function.__name__] = kind
            does = inspect.getdoc(function)  # or else the list of commands would cut it off
            self.command(function.__name__, cls=Command, short_help=does, epilog=f"\b\nExample:\n  {example}")(command)

        return register

    def general(self) -> list[inspect.Parameter]:
        """The options that every command has."""
        return list(_parameters(GeneralSettings, config=self._read))

    def _read(self, ctx: typer.Context, path: Path | None) -> Path | None:
        """Take what a file says for the defaults of a command, which is asked before its other options are."""
        path = (
            path or ctx.meta.get(_CONFIG) or (config_file.DEFAULT_PATH if config_file.DEFAULT_PATH.exists() else None)
        )
        if path is None or ctx.resilient_parsing:
            return path
        ctx.meta[_CONFIG] = path
        if ctx.parent:
            tables = {name: (kind, GeneralSettings) for name, kind in self.kinds.items()}
            ctx.default_map = config_file.read_config(path, tables).get(ctx.info_name or "")
        return path


def set_signature(function: Callable[..., None], options: Iterable[inspect.Parameter]) -> None:
    """Put parameters that typer is to read in the place of a function's `**options`."""
    own = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind != parameter.VAR_KEYWORD
    ]
    parameters = [*own, *options]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


def _parameters(kind: type[Any], **asked_first: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    """A parameter a field; `asked_first` gives functions that see the values of some before there are others."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        yield _parameter(field, hints[field.name], asked_first.get(field.name))


def _parameter(field: "dataclasses.Field[Any]", hint: Any, callback: Callable[..., Any] | None) -> inspect.Parameter:
    positional = field.metadata.get("positional", False)
    make = typer.Argument if positional else typer.Option
    is_off = field.default is False
    info = make(
        *(_on_and_off(field) if is_off else field.metadata.get("flags", ())),
        show_default=not is_off,
        help=field.metadata["help"],
        metavar=field.name.upper() if positional else None,
        callback=callback,
        is_eager=callback is not None,
        readable=False,  # no check of typer's: a file that can't be read is no wrong usage, and is said by its reader
    )
    kind: Any = list[str] if hint == tuple[str, ...] else hint
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if positional else default,
        annotation=Annotated[kind, info],
    )


def _on_and_off(field: "dataclasses.Field[Any]") -> tuple[str, ...]:
    """The flags of a switch that is off; what may stand in a file can be turned off again."""
    on = flag(field)
    return (f"{on}/--no-{on.removeprefix('--')}" if config_file.is_in_config_file(field) else on,)


def _run(function: Callable[[Any], None], kind: type[Any], ctx: typer.Context, options: dict[str, Any]) -> None:
    given = _Given(ctx, options)
    if not given.general.print_config:  # which makes no file, not even that of --log-json
        console.set_up_logging(given.general)
    asked = given.settings(kind)
    if given.general.print_config:
        print(f"[{ctx.info_name}]")
        for name, value, origin in given.rows(asked, given.general):
            print(f"# {name} = none" if value is None else f"{name} = {value}", f"# {origin}", sep="  ")
        return
    _log.debug("redditgen %s, Python %s, %s", __version__, platform.python_version(), platform.platform())
    told = [f"{name} {value} ({origin})" for name, value, origin in given.rows(asked) if origin != _DEFAULT]
    _log.debug("%s: %s", ctx.info_name, ", ".join(told) or "all options by default")
    try:
        with signals_raise_keyboard_interrupt():
            function(asked)
    except KeyboardInterrupt as error:  # typer would end without a word
        raise Interrupted("interrupted") from error
    _log.debug("%s: done", ctx.info_name)


class _Given:
    """The options of one command as they came out, and where each value comes from."""

    def __init__(self, ctx: typer.Context, options: dict[str, Any]) -> None:
        self._values = {name: _read_as_typed(value) for name, value in options.items()}
        self._origins = {name: _origin(ctx, name) for name in options}
        for name in _GENERAL:
            # Before the command's name an option is worth as much as behind it, unless it stands there too.
            if ctx.parent and self._origins[name] != _LINE == _origin(ctx.parent, name):
                self._values[name], self._origins[name] = _read_as_typed(ctx.parent.params[name]), _LINE
        self.general = self.settings(GeneralSettings)

    def settings(self, kind: type[Any]) -> Any:
        """Raises UsageError as `kind` does, saying also which of the options that it names are in a file.

        What a file says that is for something else is as if it did not stand there.
        """
        fields = dataclasses.fields(kind)
        try:
            return kind(**{field.name: self._values[field.name] for field in fields})
        except UnusedOption as error:
            if (origin := self._origins[error.field]) == _LINE:
                raise
            _log.debug("%s; that of %s is left out", error, origin)
            self._values |= {field.name: field.default for field in fields if field.name == error.field}
            self._origins[error.field] = _DEFAULT
            return self.settings(kind)
        except UsageError as error:
            named = set(re.findall(r"-[\w-]+|[A-Z]{3,}", str(error)))
            for field in fields:
                origin = self._origins[field.name]
                if named & _names(field) and origin not in (_LINE, _DEFAULT):
                    raise UsageError(f"{error} ({config_file.config_key(field)} stands in {origin})") from error
            raise

    def rows(self, *settings: Any) -> Iterator[tuple[str, str | None, str]]:
        """Option by option its name, its value as TOML, None where there is none, and where that comes from."""
        for each in settings:
            for field in filter(config_file.is_in_config_file, dataclasses.fields(each)):
                value = getattr(each, field.name)
                if "://" in str(value) and not isinstance(value, tuple):
                    value = redact_url(str(value))
                yield (
                    config_file.config_key(field),
                    None if value is None else config_file.to_toml(value),
                    self._origins[field.name],
                )


def _origin(ctx: Any, name: str) -> str:
    source = ctx.get_parameter_source(name)
    # By click's names, whose home typer keeps to itself.
    return {"COMMANDLINE": _LINE, "DEFAULT_MAP": str(ctx.meta.get(_CONFIG))}.get(
        source.name if source else "", _DEFAULT
    )


def _names(field: "dataclasses.Field[Any]") -> set[str]:
    """What messages call an option."""
    return {flag(field), *"/".join(field.metadata.get("flags", ())).split("/")}


def _read_as_typed(value: Any) -> Any:
    """An option's value as the settings want it: text as it was typed, also where the locale could not read it."""
    if isinstance(value, str) and any("\udc80" <= letter <= "\udcff" for letter in value):
        return os.fsencode(value).decode("utf8", "replace")
    return tuple(value) if isinstance(value, list) else value
