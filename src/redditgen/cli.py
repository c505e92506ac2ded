"""The commands: options made from the settings, results to standard output, everything else to standard error.

The only module that prints, exits and sets up logging.
"""

import dataclasses
import inspect
import io
import logging
import os
import shutil
import sys
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer
from tqdm import tqdm

from redditgen import __version__, settings
from redditgen.errors import Interrupted, RedditgenError, UsageError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Turn Reddit titles into a GPT-2 that writes new ones: fetch, encode, finetune, generate, decode, evaluate.",
)


def _command(kind: type[Any]) -> Callable[[Callable[[Any], None]], None]:
    """Make a command of a function of settings: its options are the fields of the settings' dataclass."""

    def register(function: Callable[[Any], None]) -> None:
        def command(**options: Any) -> None:
            asked = kind(**{name: _given(value) for name, value in options.items()})
            try:
                function(asked)
            except KeyboardInterrupt as error:  # typer would end without a word
                raise Interrupted("interrupted") from error

        command.__doc__ = function.__doc__
        hints = typing.get_type_hints(kind)
        parameters = [_parameter(field, hints[field.name]) for field in dataclasses.fields(kind)]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(function.__name__)(command)

    return register


def _given(value: Any) -> Any:
    """An option's value as the settings want it: text as it was typed, also where the locale could not read it."""
    if isinstance(value, str) and any("\udc80" <= letter <= "\udcff" for letter in value):
        return os.fsencode(value).decode("utf8", "replace")
    return tuple(value) if isinstance(value, list) else value


def _parameter(field: "dataclasses.Field[Any]", hint: Any) -> inspect.Parameter:
    positional = field.metadata.get("positional", False)
    make = typer.Argument if positional else typer.Option
    metavar = field.name.upper() if positional else None
    info = make(*field.metadata.get("flags", ()), help=field.metadata["help"], metavar=metavar)
    kind: Any = list[str] if hint == tuple[str, ...] else hint
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if positional else default,
        annotation=Annotated[kind, info],
    )


@_command(settings.FetchSettings)
def fetch(options: settings.FetchSettings) -> None:
    """Fetch titles: the most popular ones of the most popular subreddits."""
    from redditgen.fetch import fetch, review

    if options.review:
        for line in review(options):
            print(line)
        return
    fetch(options)


@_command(settings.EncodeSettings)
def encode(options: settings.EncodeSettings) -> None:
    """Encode titles for training: each with its category and a few keywords."""
    from redditgen.encode import encode

    encode(options)


@_command(settings.TokenizeSettings)
def tokenize(options: settings.TokenizeSettings) -> None:
    """Write a dataset's tokens to a .npz, as gpt-2-simple does."""
    from redditgen.tokenize import tokenize

    tokenize(options)


@_command(settings.FinetuneSettings)
def finetune(options: settings.FinetuneSettings) -> None:
    """Finetune a GPT-2 on encoded titles."""
    from redditgen.finetune import finetune

    finetune(options)


@_command(settings.GenerateSettings)
def generate(options: settings.GenerateSettings) -> None:
    """Generate new titles with a finetuned run."""
    from redditgen import generate

    if options.out:
        generate.write(options)
        return
    made = generate.conversation(options, _answer) if options.interactive else generate.generate(options)
    for title in made:
        print(f"{generate.shown(title, options)}\n{options.sample_delim}", end="", flush=True)


def _answer(question: str) -> str:
    """What the user at the terminal answers; raises UsageError if there is none."""
    if not sys.stdin.isatty():
        raise UsageError("--interactive: needs a terminal to ask at; --prompts FILE takes many prompts at once")
    print(question, end="", file=sys.stderr, flush=True)  # standard output is for titles
    return input()


@_command(settings.DecodeSettings)
def decode(options: settings.DecodeSettings) -> None:
    """Decode encoded or generated text back to titles, or to other sections."""
    from redditgen.decode import decode, lines

    if options.out:
        decode(options)
        return
    for line in lines(options):
        print(line)


@_command(settings.EvaluateSettings)
def evaluate(options: settings.EvaluateSettings) -> None:
    """Measure a finetuned run: on titles that it never learned from, and on those that it writes."""
    from redditgen import evaluation

    if not (options.skip_existing and evaluation.is_made(options)):
        print(evaluation.table(evaluation.write(options)))


@_command(settings.ExportSettings)
def export(options: settings.ExportSettings) -> None:
    """Export a run, or a base model, for other programs."""
    from redditgen.export import export

    export(options)


@_command(settings.DownloadSettings)
def download(options: settings.DownloadSettings) -> None:
    """Download one of OpenAI's models; a broken download goes on where it stopped."""
    from redditgen.download import download

    download(options)


@_command(settings.DoctorSettings)
def doctor(options: settings.DoctorSettings) -> None:
    """Say what is there and what is not, with the command that mends each; or install what gpt-2-simple needs."""
    from redditgen import doctor, tf1

    if options.install:
        tf1.install(options.python)
        return
    rows = doctor.rows(options)
    print(doctor.table(rows, width=shutil.get_terminal_size().columns))
    doctor.require_needed(rows)


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        print(f"redditgen {__version__}")
        raise typer.Exit


class _AboveTheBar(logging.Handler):
    """Messages on standard error, each on a line of its own, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(record.getMessage(), file=sys.stderr)


def _set_up_logging() -> None:
    logger = logging.getLogger("redditgen")
    logger.handlers = [_AboveTheBar()]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def main() -> None:
    """Run the command line; every expected error is one line and an exit code."""
    # Threads that wait for each other sleep instead of spinning, which beside another busy program is 20 times as fast.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf8", errors="backslashreplace")  # titles hold any character, in any locale
    _set_up_logging()
    try:
        app()
    except RedditgenError as error:
        print(f"redditgen: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("redditgen: interrupted", file=sys.stderr)
        sys.exit(130)
