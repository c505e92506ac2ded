import dataclasses
import json
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from redditgen import settings
from redditgen.cli import config_file
from redditgen.cli.app import app
from redditgen.errors import InputError, UsageError
from redditgen.settings.options import argument, command_settings, option
from tests.support.fixture_types import Redditgen


@command_settings
class Bake:
    """A command of all kinds of options."""

    cake: Path = argument("What to bake.")
    heat: float = option(180.0, "Degrees.")
    min_minutes: int | None = option(None, "Minutes.")
    shape: str = option("round", "Shape.", "--in-shape", "-s")
    toppings: tuple[str, ...] = option((), "On it. Repeatable.", "--with")
    sugar: bool | None = option(None, "Sugar?", "--sugar/--no-sugar")


COMMANDS: Mapping[str, tuple[type[Any], ...]] = {"bake": (Bake, settings.GeneralSettings), "eat": ()}


def values(text: str) -> dict[str, Any]:
    return config_file.parse_config(f"[bake]\n{text}", "c.toml", COMMANDS)["bake"]


def test_keys_are_the_options_names_and_values_those_of_toml() -> None:
    text = 'cake = "a/b"\nheat = 200\nmin-minutes = 5\nin-shape = "flat"\nwith = ["nuts", "jam"]\nsugar = false\n'
    assert values(text + "quiet = true\n") == {
        "cake": "a/b", "heat": 200, "min_minutes": 5, "shape": "flat", "toppings": ["nuts", "jam"], "sugar": False,
        "quiet": True,
    }  # fmt: skip
    assert values("in-shape = 8") == {"shape": "8"}  # as of --batch-size, a number or auto
    assert values("in-shape = 2024-01-31") == {"shape": "2024-01-31"}  # as of --after
    assert config_file.parse_config("", "c.toml", COMMANDS) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[bakee]", r"c\.toml: \[bakee\]: no such command; did you mean bake\?"),
        ("[zzz]", r"c\.toml: \[zzz\]: no such command"),
        ("heat = 5", r"c\.toml: heat: stands in no table; put it below one, as \[generate\]"),
        ("bake = 5", r"c\.toml: bake must be a table of options, \[bake\]"),
        ("[[bake]]", r"c\.toml: bake must be a table of options, \[bake\]"),
        ("[bake]\nmin_minutes = 1", r"c\.toml: \[bake\] min_minutes: no such option; did you mean min-minutes\?"),
        ("[bake]\nzzz = 1", r"c\.toml: \[bake\] zzz: no such option"),
        ('[bake]\nconfig = "x"', r"c\.toml: \[bake\] config: no such option"),
        ("[bake]\nprint-config = true", r"c\.toml: \[bake\] print-config: no such option"),
        ("[bake]\nheat = true", r"c\.toml: \[bake\] heat: must be a number, not true"),
        ('[bake]\nheat = "5"', r"c\.toml: \[bake\] heat: must be a number, not '5'"),
        ("[bake]\nmin-minutes = 1.5", r"c\.toml: \[bake\] min-minutes: must be a whole number, not 1\.5"),
        ("[bake]\nmin-minutes = false", r"c\.toml: \[bake\] min-minutes: must be a whole number, not false"),
        ("[bake]\nsugar = 1", r"c\.toml: \[bake\] sugar: must be true or false, not 1"),
        ("[bake]\ncake = 1.5", r"c\.toml: \[bake\] cake: must be text in quotes, not 1\.5"),
        ("[bake]\ncake = true", r"c\.toml: \[bake\] cake: must be text in quotes, not true"),
        ("[bake]\ncake = {}", r"c\.toml: \[bake\] cake: must be text in quotes, not a table"),
        (
            "[bake]\ncake = 2024-01-31T10:00:00",
            r"c\.toml: \[bake\] cake: must be text in quotes, not \"2024-01-31 10.*",
        ),
        ('[bake]\nwith = "nuts"', r"c\.toml: \[bake\] with: must be an array of texts, as \[.*\], not 'nuts'"),
        ("[bake]\nwith = [1]", r"c\.toml: \[bake\] with: must be an array of texts, as \[.*\], not \[1\]"),
    ],
)
def test_what_is_no_option_or_of_another_kind_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}$"):
        config_file.parse_config(text, "c.toml", COMMANDS)


def test_what_is_no_toml_is_refused_with_the_files_name(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[bake]\nheat = \n", encoding="utf8")
    with pytest.raises(UsageError, match=r"c\.toml: is no TOML: Invalid value \(at line 2, column 8\)"):
        config_file.read_config(path, COMMANDS)
    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"c\.toml: is no TOML: it is not in UTF-8"):
        config_file.read_config(path, COMMANDS)
    with pytest.raises(
        InputError, match=r"gone\.toml: can't be read: No such file or directory; --config names another file"
    ):
        config_file.read_config(tmp_path / "gone.toml", COMMANDS)
    path.write_bytes(b"\xef\xbb\xbf[bake]\r\nheat = 1\r\n")  # as Windows' editor writes it
    assert config_file.read_config(path, COMMANDS) == {"bake": {"heat": 1}}


@given(st.text() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.lists(st.text()))
def test_values_are_shown_as_toml_has_them(value: Any) -> None:
    assert tomllib.loads(f"a = {config_file.to_toml(value)}")["a"] == value


def test_options_of_every_command_have_keys_of_their_own() -> None:
    for kind in app.settings_types.values():
        asked = [*dataclasses.fields(kind), *dataclasses.fields(settings.GeneralSettings)]
        assert (
            len({field.name for field in asked})
            == len({config_file.config_key(field) for field in asked})
            == len(asked)
        )


# What follows runs commands.


def origins(done: Any) -> dict[str, tuple[str, str]]:
    """Option by option its value and its origin, as --print-config shows them."""
    rows = (line.rpartition("  # ") for line in done.stdout.splitlines()[1:])
    return {key: (value, origin) for row, _, origin in rows for key, _, value in [row.partition(" = ")]}


def test_the_command_line_outdoes_the_file_and_the_file_the_defaults(redditgen: Redditgen, tmp_path: Path) -> None:
    (tmp_path / "redditgen.toml").write_text(
        '[generate]\nrun = "cats"\ntop-k = 3\nsfw = false\n[fetch]\nfrom = ["sample"]\n', encoding="utf8"
    )
    done = redditgen("generate", "--top-k", "5", "-n", "2", "--print-config")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("[generate]\n")
    shown = origins(done)
    assert shown["run"] == ('"cats"', "redditgen.toml")
    assert shown["top-k"] == ("5", "command line")
    assert shown["n"] == ("2", "command line")
    assert shown["sfw"] == ("false", "redditgen.toml")
    assert shown["temperature"] == ("0.7", "default")
    assert shown["# keywords"] == ("none", "default")
    assert origins(redditgen("--quiet", "fetch", "--print-config")).items() >= {
        ("from", ('["sample"]', "redditgen.toml")),
        ("quiet", ("true", "command line")),
    }


def test_another_file_is_read_instead_wherever_it_is_named(redditgen: Redditgen, tmp_path: Path) -> None:
    (tmp_path / "redditgen.toml").write_text("[decode]\npartial = true\nsections = 'category'\n", encoding="utf8")
    (tmp_path / "other.toml").write_text('[decode]\ninput = "gone.txt"\n', encoding="utf8")
    for line in (["--config=other.toml", "decode"], ["decode", "--config=other.toml"]):
        shown = origins(redditgen(*line, "--print-config"))
        assert shown["input"] == ('"gone.txt"', "other.toml")
        assert shown["partial"] == ("false", "default")
        assert redditgen(*line).stderr.startswith("redditgen: gone.txt: no such file;")
    assert origins(redditgen("decode", "x", "--config=/dev/null", "--print-config"))["partial"][1] == "default"


def test_print_config_does_nothing_and_gives_a_file_that_is_read_again(redditgen: Redditgen, tmp_path: Path) -> None:
    before = redditgen("fetch", "--from=a.csv", "--from=b c.csv", "--min-score=7", "--log-json=a/b", "--print-config")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "redditgen.toml").write_text(before.stdout, encoding="utf8")
    again = redditgen("fetch", "--print-config")
    assert {key: value for key, (value, _) in origins(again).items()} == {
        key: value for key, (value, _) in origins(before).items()
    }
    assert origins(again)["from"] == ('["a.csv", "b c.csv"]', "redditgen.toml")


def test_no_password_is_shown(redditgen: Redditgen) -> None:
    done = redditgen("download", "124M", "--base-url=https://me:secret@here/x?key=1", "--print-config")
    assert origins(done)["base-url"] == ('"https://here/x"', "command line")


def test_a_file_is_refused_whole_whatever_command_is_run(redditgen: Redditgen, tmp_path: Path) -> None:
    (tmp_path / "redditgen.toml").write_text("[encode]\nrepeats = 2\n", encoding="utf8")
    done = redditgen("fetch")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "redditgen: redditgen.toml: [encode] repeats: no such option; did you mean repeat?\n"
    assert redditgen("fetch", "--help").returncode == redditgen("--version").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["redditgen.toml"]


def test_a_value_out_of_range_is_refused_with_the_file_that_it_stands_in(redditgen: Redditgen, tmp_path: Path) -> None:
    (tmp_path / "redditgen.toml").write_text(
        "[generate]\ntop-k = -1\nn = 0\n[download]\nmodel = '1M'\n", encoding="utf8"
    )
    for line, message in (
        (["generate", "-n1"], "--top-k must be 0 or more, not -1 (top-k stands in redditgen.toml)"),
        (["generate", "--top-k=1"], "-n must be 1 or more, not 0 (n stands in redditgen.toml)"),
        (["generate", "--top-k=-2", "-n1"], "--top-k must be 0 or more, not -2"),
        (["download"], "MODEL must be 124M or 355M or 774M or 1558M, not '1M' (model stands in redditgen.toml)"),
    ):
        done = redditgen(*line)
        assert (done.returncode, done.stderr) == (2, f"redditgen: {message}\n")


@pytest.mark.parametrize("name", app.settings_types)
def test_every_switch_that_the_file_sets_is_unset_on_the_command_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = config_file.options_by_key((app.settings_types[name], settings.GeneralSettings))
    switches = [key for key, (_, hint) in known.items() if hint in (bool, bool | None)]
    assert {"quiet", "verbose"} <= set(switches)
    monkeypatch.chdir(tmp_path)
    Path("redditgen.toml").write_text(f"[{name}]\n" + "".join(f"{key} = true\n" for key in switches), encoding="utf8")
    example = shlex.split(CliRunner().invoke(app, [name, "--help"]).output.rpartition("Example:\n")[2])[1:]
    line = [*example, *(f"--no-{key}" for key in switches), "--print-config"]
    done = CliRunner().invoke(app, line, catch_exceptions=False)
    shown = tomllib.loads(done.output)[name]
    assert {key: shown[key] for key in switches} == dict.fromkeys(switches, False)


def test_what_the_file_says_of_another_source_is_for_that_one_alone(redditgen: Redditgen, tmp_path: Path) -> None:
    (tmp_path / "redditgen.toml").write_text(
        '[fetch]\nsubreddit = ["cats"]\nbase-url = "http://localhost:1"\nmax-bytes = "1GB"\nmonths = "2019_08"\n'
        'cache = "cache"\nper-subreddit = 3\n',
        encoding="utf8",
    )
    for line, used, unused in (
        (["--from=sample"], {"months", "cache"}, {"subreddit", "base-url", "max-bytes"}),
        (["--from=bigquery"], {"max-bytes", "months"}, {"subreddit", "base-url", "cache"}),
        (["--from=arctic-shift", "--after=2024-01-01"], {"subreddit", "base-url", "cache"}, {"max-bytes", "months"}),
    ):
        done = redditgen("fetch", *line, "--print-config")
        assert (done.returncode, done.stderr) == (0, "")
        shown = {key.removeprefix("# "): origin for key, (_, origin) in origins(done).items()}
        assert {shown[name] for name in used | {"per-subreddit"}} == {"redditgen.toml"}
        assert {shown[name] for name in unused} == {"default"}
    said = "--base-url is for --from arctic-shift alone"
    done = redditgen("fetch", "--from=sample", "--base-url=http://localhost:2", "--print-config")
    assert (done.returncode, done.stderr) == (2, f"redditgen: {said}\n")
    told = redditgen("fetch", "--from=gone.csv", "--verbose").stderr
    assert f"{said}; that of redditgen.toml is left out\n" in told


def test_options_that_contradict_each_other_are_refused_in_the_file_too(redditgen: Redditgen, tmp_path: Path) -> None:
    (tmp_path / "redditgen.toml").write_text('[fetch]\nsql = "mine.sql"\ncolumns = "title"\n', encoding="utf8")
    done = redditgen("fetch", "--print-config")
    said = "--columns does not go with --sql: the query names its columns and filters itself"
    assert (done.returncode, done.stderr) == (2, f"redditgen: {said} (columns stands in redditgen.toml)\n")


def test_sidecars_hold_the_settings_as_they_came_out(redditgen: Redditgen, tmp_path: Path) -> None:
    (tmp_path / "titles.csv").write_text("subreddit,title,tags\ncats,A nap,nap\n", encoding="utf8")
    (tmp_path / "redditgen.toml").write_text(
        '[encode]\ninput = "titles.csv"\nkeywords-field = "tags"\nrepeat = 2\nseed = 5\n', encoding="utf8"
    )
    done = redditgen("encode", "--repeat=1")
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "titles_encoded.txt.meta.json").read_text(encoding="utf8"))["settings"]
    assert (written["input"], written["keywords_field"], written["repeat"], written["seed"]) == (
        "titles.csv",
        "tags",
        1,
        5,
    )
