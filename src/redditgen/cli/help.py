"""The parser of the command line: what it shows as help, and what it says of mistakes."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from redditgen.errors import InputError, UsageError, did_you_mean
from redditgen.settings import GeneralSettings

_GENERAL = [field.name for field in dataclasses.fields(GeneralSettings)]


class CommandGroup(TyperGroup):
    """Tells of a mistyped command which one may be meant, and of completion why it is not installed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except (typer.Exit, typer.Abort):  # which are RuntimeErrors
            raise
        except (OSError, RuntimeError) as error:  # of --install-completion: no other option here does a thing
            why = "no home folder is known; set HOME, or"
            if isinstance(error, OSError):
                why = f"{error.filename}: can't be written: {error.strerror};"
            instead = "--show-completion prints what you may put where your shell reads it"
            raise InputError(f"--install-completion: {why} {instead}") from error

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and not ctx.resilient_parsing:
            near = did_you_mean(args[0], self.commands) or f"; there are {', '.join(self.commands)}"
            raise UsageError(f"{args[0]}: no such command{near}")
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write(formatter, ctx, "Options", self.get_params(ctx))
        self.format_commands(ctx, formatter)


class Command(TyperCommand):
    """Shows the options that are its own first, and those of every command under a heading of their own."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        shown: dict[str, list[Any]] = {"Arguments": [], "Options": [], "Options of every command": []}
        for parameter in self.get_params(ctx):
            is_general = parameter.name in _GENERAL or parameter.name == "help"
            own = "Arguments" if parameter.param_type_name == "argument" else "Options"
            shown["Options of every command" if is_general else own].append(parameter)
        for heading, parameters in shown.items():
            if parameters:
                _write(formatter, ctx, heading, parameters)


def _write(formatter: Any, ctx: Any, heading: str, parameters: Iterable[Any]) -> None:
    with formatter.section(heading):
        formatter.write_dl([_record(parameter, ctx) for parameter in parameters])


def _record(parameter: Any, ctx: Any) -> tuple[str, str]:
    """How help shows an option; that what is off by default can be turned off goes without saying."""
    names, text = parameter.get_help_record(ctx)
    return names.partition(" / ")[0] if parameter.default is False else names, text


def usage_error_message(error: TyperException) -> str:
    """In one line what typer finds wrong with a command line."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    see = f"; see {context.command_path} --help" if context else ""
    if hasattr(error, "option_name") and hasattr(error, "possibilities"):
        options = context.command.get_params(context) if context else []
        known = [name for option in options for name in (*option.opts, *option.secondary_opts)]
        return f"{error.option_name}: no such option{did_you_mean(error.option_name, known) or see}"
    if parameter is None:
        message = " ".join(error.format_message().split()).rstrip(".")
        return f"{message[:1].lower()}{message[1:]}{see}"
    name = parameter.metavar or max(parameter.opts, key=len)
    wrong = error.message.partition(",")[0]
    return f"{name}: {wrong[:1].lower()}{wrong[1:]}{see}" if wrong else f"{name}: is missing{see}"
