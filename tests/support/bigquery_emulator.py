"""The BigQuery emulator: an environment of its own, made once in the user's cache folder, and the server in it.

REDDITGEN_BQ_EMULATOR names another folder for the environment. It needs Python 3.13, from PATH or pyenv's versions.
"""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock

from redditgen.engines.gpt2simple import interpreters

PROJECT, DATASET = "fh-bigquery", "reddit_posts"

_REQUIREMENTS = Path(__file__).with_name("bigquery-emulator-requirements.txt")
_MARKER = "redditgen-whole"
_PATIENCE = 60  # seconds until it answers
# The emulator would download them; the wheels hold them.
_EXTENSIONS = """
from duckdb_extensions import import_extension
for name in ("icu", "ducklake", "spatial"):
    import_extension(name)
"""


class Missing(Exception):
    """There is no emulator and none can be installed; the message says why."""


@dataclass(frozen=True)
class Emulator:
    url: str
    storage: str
    """The address of the Storage Read API."""

    def client(self) -> Any:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import bigquery

        return bigquery.Client(
            PROJECT, AnonymousCredentials(), location="US", client_options={"api_endpoint": self.url}
        )

    def load(self, table: str, parquet: Path, dataset: str = DATASET) -> None:
        """Make or replace a table."""
        from google.cloud import bigquery

        how = bigquery.LoadJobConfig(source_format="PARQUET", write_disposition="WRITE_TRUNCATE")
        with self.client() as client, parquet.open("rb") as file:
            client.create_dataset(dataset, exists_ok=True)
            client.load_table_from_file(file, f"{PROJECT}.{dataset}.{table}", job_config=how).result()


@contextmanager
def running(folder: Path) -> Iterator[Emulator]:
    """An emulator with its data in `folder`; raises Missing."""
    place = _installed()
    rest, grpc = _free_port(), _free_port()
    emulator = Emulator(f"http://127.0.0.1:{rest}", f"127.0.0.1:{grpc}")
    command = [str(interpreters.python_in_environment(place).with_name("local-bigquery")), "--host", "127.0.0.1"]
    options = ["--port", str(rest), "--grpc-port", str(grpc), "--data-dir", str(folder / "data"), "serve"]
    environment = interpreters.clean_environment() | {"HOME": str(_home(place))}
    with (
        (folder / "emulator.log").open("wb") as log,
        subprocess.Popen([*command, *options], env=environment, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            _wait_until_ready(emulator.url, process, Path(log.name))
            yield emulator
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            # That its port is open, or another path answers, says nothing yet.
            with urllib.request.urlopen(f"{url}/bigquery/v2/projects", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the BigQuery emulator does not start: {log.read_text('utf8', 'replace')[-2000:]}")


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


# The environment


def _installed() -> Path:
    named = os.environ.get("REDDITGEN_BQ_EMULATOR")
    place = Path(named) if named else platformdirs.user_cache_path("redditgen", appauthor=False) / "bigquery-emulator"
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_name(f"{place.name}.lock")):
        marker = place / _MARKER
        if not marker.exists() or marker.read_text() != _digest():
            _install(place)
            marker.write_text(_digest())
    return place


def _install(place: Path) -> None:
    base = _python_3_13()
    shutil.rmtree(place, ignore_errors=True)
    python = interpreters.python_in_environment(place)
    _run(base, "-m", "venv", place)
    _run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--requirement", _REQUIREMENTS)
    _home(place).mkdir()
    _run(python, "-c", _EXTENSIONS, HOME=str(_home(place)))


def _run(*command: Path | str, **variables: str) -> None:
    environment = interpreters.clean_environment() | variables
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise Missing(f"the BigQuery emulator can't be installed: {done.stderr.strip()[-500:]}")


def _home(place: Path) -> Path:
    """Below which DuckDB looks for extensions."""
    return place / "home"


def _digest() -> str:
    return hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()


def _python_3_13() -> Path:
    for path in _candidates():
        try:
            if interpreters.run_code(path, "import ensurepip, json, sys; print(json.dumps(sys.version_info[:2]))") == [
                3,
                13,
            ]:
                return path
        except interpreters.InterpreterError:  # pyenv has a python3.13 on PATH that only runs where it is chosen
            continue
    raise Missing("the BigQuery emulator needs Python 3.13: none on PATH or in pyenv's versions")


def _candidates() -> Iterator[Path]:
    yield Path(sys.executable)
    for folder in os.get_exec_path():
        if found := shutil.which("python3.13", path=folder):
            yield Path(found)
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    yield from map(interpreters.python_in_environment, sorted(versions.glob("3.13.*"), reverse=True))
