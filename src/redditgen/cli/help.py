"""Help pages and usage errors: typer's groups and commands with other help layouts and messages."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from redditgen.errors import InputError, UsageError, did_you_mean
from redditgen.settings import GeneralSettings

_GENERAL_OPTIONS = [field.name for field in dataclasses.fields(GeneralSettings)]


class CommandGroup(TyperGroup):
    """The group of all commands: suggests a command for a mistyped one, and says why completion can't be installed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except (typer.Exit, typer.Abort):  # subclasses of RuntimeError, which is caught below
            raise
        except (OSError, RuntimeError) as error:  # from --install-completion; no other option here does any work
            reason = "no home folder is known; set HOME, or"
            if isinstance(error, OSError):
                reason = f"{error.filename}: can't be written: {error.strerror};"
            alternative = "--show-completion prints what you may put where your shell reads it"
            raise InputError(f"--install-completion: {reason} {alternative}") from error

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and not ctx.resilient_parsing:
            suggestion = did_you_mean(args[0], self.commands) or f"; there are {', '.join(self.commands)}"
            raise UsageError(f"{args[0]}: no such command{suggestion}")
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_section(formatter, ctx, "Options", self.get_params(ctx))
        self.format_commands(ctx, formatter)


class Command(TyperCommand):
    """A command whose help lists its own options first, and those of every command under a separate heading."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[Any]] = {"Arguments": [], "Options": [], "Options of every command": []}
        for parameter in self.get_params(ctx):
            is_general = parameter.name in _GENERAL_OPTIONS or parameter.name == "help"
            heading = "Arguments" if parameter.param_type_name == "argument" else "Options"
            sections["Options of every command" if is_general else heading].append(parameter)
        for heading, parameters in sections.items():
            if parameters:
                _write_section(formatter, ctx, heading, parameters)


def _write_section(formatter: Any, ctx: Any, heading: str, parameters: Iterable[Any]) -> None:
    with formatter.section(heading):
        formatter.write_dl([_help_record(parameter, ctx) for parameter in parameters if not _is_hidden(parameter)])


def _is_hidden(parameter: Any) -> bool:
    return bool(getattr(parameter, "hidden", False))


def _help_record(parameter: Any, ctx: Any) -> tuple[str, str]:
    """Return an option's names and help text. The `--no-...` name of a switch that is off by default is left out."""
    names, text = parameter.get_help_record(ctx)
    return names.partition(" / ")[0] if parameter.default is False else names, text


def usage_error_message(error: TyperException) -> str:
    """Return typer's error about a command line as one line, with a suggestion or a pointer to --help."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    help_hint = f"; see {context.command_path} --help" if context else ""
    if hasattr(error, "option_name") and hasattr(error, "possibilities"):
        options = context.command.get_params(context) if context else []
        known = [name for option in options for name in (*option.opts, *option.secondary_opts)]
        return f"{error.option_name}: no such option{did_you_mean(error.option_name, known) or help_hint}"
    if parameter is None:
        message = " ".join(error.format_message().split()).rstrip(".")
        return f"{message[:1].lower()}{message[1:]}{help_hint}"
    name = parameter.metavar or max(parameter.opts, key=len)
    problem = error.message.partition(",")[0]
    return f"{name}: {problem[:1].lower()}{problem[1:]}{help_hint}" if problem else f"{name}: is missing{help_hint}"
