"""The commands: one function per command, whose options are the fields of a settings dataclass.

Results are written to standard output, everything else to standard error. Only this package prints, exits and sets up
logging. The docstring of a command is its help text.
"""

import logging
import os
import shutil
import sys
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from redditgen import __version__, settings
from redditgen.cli import console
from redditgen.cli.commands import CommandLine, set_signature
from redditgen.cli.help import usage_error_message
from redditgen.errors import Interrupted, OutputClosed, RedditgenError, UsageError
from redditgen.runtime.signals import exit_immediately_on_ctrl_c, exit_on_second_ctrl_c

_log = logging.getLogger(__name__)

app = CommandLine(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "color": False},
    help="Turn Reddit titles into a GPT-2 that writes new ones: fetch, encode, finetune, generate, decode, evaluate.",
)


@app.command_for(settings.FetchSettings, "redditgen fetch --per-subreddit 50 --out data/titles.csv")
def fetch(options: settings.FetchSettings) -> None:
    """Fetch titles: the most popular ones of the most popular subreddits."""
    from redditgen.fetch.command import fetch, review

    if options.review:
        for line in review(options):
            print(line)
        return
    fetch(options)


@app.command_for(settings.EncodeSettings, "redditgen encode data/titles.csv")
def encode(options: settings.EncodeSettings) -> None:
    """Encode titles for training: each with its category and a few keywords."""
    from redditgen.encode.command import encode

    encode(options)


@app.command_for(settings.TokenizeSettings, "redditgen tokenize data/titles_encoded.txt")
def tokenize(options: settings.TokenizeSettings) -> None:
    """Write a dataset's tokens to a .npz, as gpt-2-simple does."""
    from redditgen.finetune.tokenize import tokenize

    tokenize(options)


@app.command_for(settings.FinetuneSettings, "redditgen finetune data/titles_encoded.txt --run first --steps 200")
def finetune(options: settings.FinetuneSettings) -> None:
    """Finetune a GPT-2 on encoded titles."""
    from redditgen.finetune.command import finetune

    finetune(options)


@app.command_for(settings.GenerateSettings, "redditgen generate --run first --keywords 'cat sofa' -n 5")
def generate(options: settings.GenerateSettings) -> None:
    """Generate new titles with a finetuned run."""
    from redditgen.generate import command
    from redditgen.generate.output import write_titles
    from redditgen.generate.title import format_title

    if options.out:
        write_titles(options)
        return
    titles = command.generate_interactively(options, _answer) if options.interactive else command.generate(options)
    for title in titles:
        print(f"{format_title(title, options)}\n{options.sample_delim}", end="", flush=True)


def _answer(question: str) -> str:
    """Ask the user a question and return the answer. Raises UsageError where standard input is no terminal."""
    if not sys.stdin.isatty():
        raise UsageError("--interactive: needs a terminal to ask at; --prompts FILE takes many prompts at once")
    print(question, end="", file=sys.stderr, flush=True)  # standard output holds only titles
    return input()


@app.command_for(settings.DecodeSettings, "redditgen decode data/titles_encoded.txt --sections category,title")
def decode(options: settings.DecodeSettings) -> None:
    """Decode encoded or generated text back to titles, or to other sections."""
    from redditgen.encode.decode import decode, decode_lines

    if options.out:
        decode(options)
        return
    for line in decode_lines(options):
        print(line)


@app.command_for(settings.EvaluateSettings, "redditgen evaluate --run first --against data/titles_encoded.txt -n 200")
def evaluate(options: settings.EvaluateSettings) -> None:
    """Measure a finetuned run: on titles that it never learned from, and on those that it writes."""
    from redditgen.evaluate import command

    if not (options.skip_existing and command.is_up_to_date(options)):
        print(command.format_table(command.write_evaluation(options)))


@app.command_for(settings.ExportSettings, "redditgen export --run first --to hf")
def export(options: settings.ExportSettings) -> None:
    """Export a run, or a base model, for other programs."""
    from redditgen.hub.export import export

    export(options)


@app.command_for(settings.DownloadSettings, "redditgen download 124M")
def download(options: settings.DownloadSettings) -> None:
    """Download one of OpenAI's models; a broken download goes on where it stopped."""
    from redditgen.hub.download import download

    download(options)


@app.command_for(settings.DoctorSettings, "redditgen doctor")
def doctor(options: settings.DoctorSettings) -> None:
    """Say what is there and what is not, with the command that mends each; or install what gpt-2-simple needs."""
    from redditgen.cli import doctor
    from redditgen.engines.gpt2simple import tf1_environment

    if options.install:
        tf1_environment.install_environment(options.python)
        return
    rows = doctor.check_all(options)
    print(doctor.format_table(rows, width=shutil.get_terminal_size().columns))
    doctor.require_working(rows)


@app.callback(invoke_without_command=True)
def _top(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    **options: Any,
) -> None:
    if version:
        print(f"redditgen {__version__}")
    elif not ctx.invoked_subcommand:
        print(ctx.get_help(), file=sys.stderr)
        raise typer.Exit(UsageError.exit_code)


set_signature(_top, app.general_parameters())


def main() -> None:
    """Run the command line and exit; every expected error becomes one line and an exit code."""
    # OpenMP threads that wait for each other sleep instead of spinning: 20 times as fast next to another busy program.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    console.open_streams()
    console.set_up_logging(settings.GeneralSettings())
    exit_on_second_ctrl_c(Interrupted.exit_code)
    code = _run_app()
    exit_immediately_on_ctrl_c(code)
    sys.exit(code)


def _run_app() -> int:
    """Run the command of `sys.argv`, log its error if any, and return the exit code."""
    try:
        result = app(prog_name="redditgen", standalone_mode=False)
        sys.stdout.flush()
    except OutputClosed as error:
        return error.exit_code
    except RedditgenError as error:
        console.open_log_of_command_line(sys.argv[1:])
        _log.error("%s", error)
        return error.exit_code
    except TyperException as error:
        console.open_log_of_command_line(sys.argv[1:])
        _log.error("%s", usage_error_message(error))
        return error.exit_code
    except KeyboardInterrupt:
        _log.error("interrupted")
        return Interrupted.exit_code
    except Exception as error:  # unexpected; the traceback is printed but not written to --log-json
        _log.critical("%s: %s", type(error).__name__, error)
        raise
    return result or 0
