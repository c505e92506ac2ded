import dataclasses
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from redditgen import __version__, settings
from redditgen.cli.app import app
from redditgen.settings.options import flag
from redditgen.titles.record import Record, build
from tests.support.fixture_types import Redditgen

COMMANDS: dict[str, type[Any]] = {
    "fetch": settings.FetchSettings,
    "encode": settings.EncodeSettings,
    "tokenize": settings.TokenizeSettings,
    "finetune": settings.FinetuneSettings,
    "generate": settings.GenerateSettings,
    "decode": settings.DecodeSettings,
    "evaluate": settings.EvaluateSettings,
    "export": settings.ExportSettings,
    "download": settings.DownloadSettings,
    "doctor": settings.DoctorSettings,
}
HEAVY = {"torch", "spacy", "ray", "duckdb", "ctranslate2", "transformers", "pandas", "pyarrow", "tokenizers", "numpy"}


def help_of(*command: str) -> str:
    """A command's help without its line breaks and blanks, which depend on the terminal's width."""
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    return re.sub(r"\s", "", result.output)


@pytest.fixture
def encoded(tmp_path: Path) -> Path:
    path = tmp_path / "encoded.txt"
    path.write_text(build(Record(category="cats", title="A nap")) + "\n", encoding="utf8")
    return path


def assert_one_line(done: subprocess.CompletedProcess[str], exit_code: int, message: str) -> None:
    """An expected error: its exit code, one line on standard error and nothing on standard output."""
    assert done.returncode == exit_code
    assert done.stdout == ""
    assert re.fullmatch(rf"redditgen: {message}\n", done.stderr), done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["finetune", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom redditgen.cli.app import main\ntry:\n    main()\nfinally:\n"
        "    print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    loaded = set(done.stderr.split())
    assert "redditgen" in loaded
    assert loaded & HEAVY == set()


def test_every_module_is_imported_without_anything_heavy_but_numpy() -> None:
    source = Path(settings.__file__).parent.parent
    names = [
        ".".join(path.relative_to(source.parent).with_suffix("").parts)
        for path in sorted(source.rglob("*.py"))
        if path.name != "__main__.py" and path.parent.name != "worker"  # which is for Python 3.7
    ]
    assert "redditgen.engines.pytorch.engine" in names
    code = f"import sys, {', '.join(names)}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert set(done.stdout.split()) & HEAVY <= {"numpy"}


def test_there_are_the_commands_of_the_stages() -> None:
    assert {command.callback.__name__ for command in app.registered_commands if command.callback} == {"command"}
    assert {command.name for command in app.registered_commands} == set(COMMANDS)
    assert all(name in help_of() for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_setting_with_its_description_and_default(name: str) -> None:
    text = help_of(name)
    for field in dataclasses.fields(COMMANDS[name]):
        is_argument = field.metadata.get("positional", False)
        flags = field.metadata.get("flags") or ("--" + field.name.replace("_", "-"),)
        shown = field.name.upper() if is_argument else flags[0].partition("/")[0]
        if field.metadata.get("hidden"):
            assert shown not in text, shown
            continue
        assert shown in text, shown
        assert re.sub(r"\s", "", field.metadata["help"]) in text, field.name
        if isinstance(field.default, int | float | str | Path) and field.default not in (False, True, ""):
            assert f"[default:{field.default}]" in text, field.name


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_the_options_of_every_command_behind_a_commands_own(name: str) -> None:
    own, general = help_of(name).split("Optionsofeverycommand:")
    for field in dataclasses.fields(settings.GeneralSettings):
        assert flag(field) not in own
        assert flag(field) + re.sub(r"\s", "", field.metadata["help"]) in general.replace("<path>", "")


def test_the_version_is_the_packages(redditgen: Redditgen) -> None:
    done = redditgen("--version")
    assert (done.returncode, done.stdout) == (0, f"redditgen {__version__}\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("generate --keyword x", "--keyword: no such option; did you mean --keywords?"),
        ("generate --temprature=1", "--temprature: no such option; did you mean --temperature?"),
        ("fetch --no-sfv", "--no-sfv: no such option; did you mean --no-sfw?"),
        ("--quite generate", "--quite: no such option; did you mean --quiet?"),
        ("generate --zzz", "--zzz: no such option; see redditgen generate --help"),
        ("generate -x", "-x: no such option; see redditgen generate --help"),
        ("generate -n many", "--n: input should be a valid integer; see redditgen generate --help"),
        ("generate --top-p=hot", "--top-p: input should be a valid number; see redditgen generate --help"),
        ("generate --run", "option '--run' requires an argument"),
        ("generate --sfw=yes", "option '--sfw' does not take a value"),
        ("decode", "INPUT: is missing; see redditgen decode --help"),
        ("decode a b", "got unexpected extra argument(s) (b); see redditgen decode --help"),
        ("genrate", "genrate: no such command; did you mean generate?"),
        ("bake", f"bake: no such command; there are {', '.join(COMMANDS)}"),
    ],
)
def test_a_wrong_command_line_is_one_line_that_says_what_may_be_meant(
    redditgen: Redditgen, line: str, message: str
) -> None:
    assert_one_line(redditgen(*line.split()), 2, re.escape(message))


def test_no_command_at_all_shows_which_there_are(redditgen: Redditgen) -> None:
    for arguments in ([], ["--quiet"]):
        done = redditgen(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert all(f"\n  {name} " in done.stderr for name in COMMANDS)


def test_a_mistyped_run_is_told_from_those_there_are(redditgen: Redditgen, checkpoint_dir: Path) -> None:
    done = redditgen("generate", "--run=traned", f"--checkpoint-dir={checkpoint_dir}")
    assert_one_line(done, 1, r"run traned: no .* \(runs there are: (\w+, )*trained\); did you mean trained\?")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_each_commands_help_is_a_command_line(redditgen: Redditgen, name: str) -> None:
    shown = redditgen(name, "--help").stdout
    program, *line = shlex.split(shown.rpartition("Example:\n")[2])
    assert (program, line[0]) == ("redditgen", name)
    done = redditgen(*line, "--print-config")
    assert (done.returncode, done.stderr) == (0, "")


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    program = tmp_path / "redditgen"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m redditgen "$@"\n', encoding="utf8")
    program.chmod(0o755)
    script = """
        eval "$(redditgen --show-completion)"
        ask() { COMP_WORDS=(redditgen "$@"); COMP_CWORD=$#; _redditgen_completion redditgen; echo "${COMPREPLY[*]}"; }
        ask gen; ask generate --keyw; ask --quiet decode --par; ask fetch --no-; ask decode enc; complete -p redditgen
    """
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "generate",
        "--keywords --keywords-from",
        "--partial",
        "--no-sfw --no-review --no-dry-run --no-refresh --no-skip-existing --no-overwrite --no-quiet --no-verbose",
        "",  # so that bash looks for files
        "complete -o default -F _redditgen_completion redditgen",
    ]


def test_an_expected_error_is_one_line_and_its_exit_code(redditgen: Redditgen, encoded: Path) -> None:
    assert_one_line(redditgen("generate", "--run=run9"), 1, r"run run9: no checkpoint/run9/checkpoint; .*")
    assert_one_line(redditgen("decode", "gone.txt"), 1, r"gone\.txt: no such file; .*")
    assert_one_line(redditgen("finetune", "d.txt", "--steps=0"), 2, r"--steps must be 1 or more, not 0")
    assert_one_line(redditgen("decode", encoded, "--out=o.xlsx"), 2, r"o\.xlsx: unknown kind of file; .*")
    assert_one_line(redditgen("decode", encoded, f"--out={encoded}"), 1, r".*encoded\.txt: already exists; .*")


def test_tokenize_writes_tokens_and_says_how_many(redditgen: Redditgen, encoded: Path, model_dir: Path) -> None:
    options = ["--model=tiny", f"--model-dir={model_dir}"]
    done = redditgen("tokenize", encoded, *options)
    output = encoded.with_suffix(".npz")
    assert (done.returncode, done.stdout) == (0, "")
    assert re.fullmatch(rf"{output}: \d+ tokens in 1 chunks\n", done.stderr)
    assert output.exists()
    assert_one_line(redditgen("tokenize", encoded, *options), 1, rf"{output}: already exists; pass --overwrite .*")


def test_errors_of_tokenize_are_one_line(redditgen: Redditgen, encoded: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("no record", encoding="utf8")
    for arguments, exit_code, message in (
        (["gone.txt"], 1, r"gone\.txt: no such file; `redditgen encode` makes a file of records from a CSV of titles"),
        (["plain.txt", "--record-tokens=compact"], 1, r"plain\.txt: holds no record; .*"),
        (["plain.txt", "--model=124M"], 1, r"model 124M: no models/124M/hparams\.json; .* redditgen download 124M"),
        (["plain.txt", "--record-tokens=both"], 2, r"--record-tokens must be literal or compact, not 'both'"),
        (["plain.txt", "--out=a.txt"], 2, r"--out must end in \.npz, not a\.txt"),
        (["."], 2, r"--out: is needed, since \. is no name for a file"),
    ):
        assert_one_line(redditgen("tokenize", *arguments), exit_code, message)
    assert sorted(tmp_path.iterdir()) == [encoded, tmp_path / "plain.txt"]


@pytest.mark.parametrize("command", [["finetune", "d.txt"], ["generate"]])
def test_a_mistyped_engine_is_named_with_those_there_are(redditgen: Redditgen, command: list[str]) -> None:
    done = redditgen(*command, "--engine=gpt2-simple")
    assert_one_line(done, 2, r"--engine must be torch or gpt-2-simple, not 'gpt2-simple'")


def test_results_alone_go_to_standard_output(redditgen: Redditgen, encoded: Path) -> None:
    encoded.write_text(encoded.read_text(encoding="utf8") + "<|startoftext|>~@cut off", encoding="utf8")
    done = redditgen("decode", encoded, "--sections=category,title")
    assert (done.returncode, done.stdout) == (0, '{"category": "cats", "title": "A nap"}\n')
    assert "1 unfinished and 0 malformed" in done.stderr
    quiet = redditgen("decode", encoded, "--out=titles.txt")
    assert (quiet.returncode, quiet.stdout) == (0, "")


def test_titles_of_any_language_are_printed_whatever_the_locale(tmp_path: Path, encoded: Path) -> None:
    encoded.write_text(build(Record(title="Ünïcödé 日本語 🎉")), encoding="utf8")
    done = subprocess.run(
        [sys.executable, "-m", "redditgen", "decode", str(encoded)],
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.decode()) == (0, "Ünïcödé 日本語 🎉\n")


def test_options_of_any_language_are_read_whatever_the_locale(checkpoint_dir: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "redditgen",
        "generate",
        "--run=trained",
        "-n1",
        f"--checkpoint-dir={checkpoint_dir}",
    ]
    done = subprocess.run(
        [*command, "--include-prefix", "--prefix=Ünïcödé 日本語"],
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().startswith("Ünïcödé 日本語")


def test_ctrl_c_exits_130_without_a_traceback(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "redditgen", "decode", str(pipe)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
        pipe.open("w", encoding="utf8"),  # opens when the command reads it
    ):
        time.sleep(1)  # a signal just before the first read would be noticed only after it
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err


def test_a_reader_that_has_seen_enough_is_no_error_to_speak_of(tmp_path: Path, encoded: Path) -> None:
    encoded.write_text((build(Record(title="A nap")) + "\n") * 50_000, encoding="utf8")
    command = [sys.executable, "-m", "redditgen", "decode", str(encoded)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == "A nap\n"
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_any_command_that_a_signal_ends_says_so_and_takes_its_unfinished_output_away(
    tmp_path: Path, encoded: Path, number: signal.Signals
) -> None:
    encoded.write_text((build(Record(title="A nap")) + "\n") * 1_000_000, encoding="utf8")
    out = tmp_path / "out/titles.txt"
    command = [sys.executable, "-m", "redditgen", "decode", str(encoded), "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (out.parent.exists() and list(out.parent.iterdir())):
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "redditgen: interrupted\n")
    assert not out.parent.exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_encode_says_how_it_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    titles = tmp_path / "titles.csv"
    titles.write_text("subreddit,title,tags\n" + "".join(f"a,Title {n},x\n" for n in range(400_000)))
    command: list[str | Path] = [sys.executable, "-m", "redditgen", "encode", titles, "--keywords-field", "tags"]
    state = tmp_path / ".titles_encoded.txt.partial/state.json"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not state.exists():
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines() == [
        f"{titles.with_name('titles_encoded.txt')}: not whole yet; the same command goes on with it",
        "redditgen: interrupted",
    ]
    assert subprocess.run(command).returncode == 0
    assert (tmp_path / "titles_encoded.txt").read_bytes().count(b"\n") == 1_200_000
