import csv
import http.server
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from redditgen import __version__
from redditgen.encode import batches, workers
from redditgen.encode.batches import EncodeBatch
from redditgen.encode.command import encode
from redditgen.encode.workers import EncodedBatch, RayEncoder
from redditgen.errors import InputError, MissingError, RedditgenError
from redditgen.settings import EncodeSettings
from redditgen.titles.spacy_keywords import model_versions
from tests.support.ray_nodes import Cluster, cluster, free_port, wait_until

TITLES = ["A cat sleeps in the old garden", "Otters juggle stones", "How do you fix a bicycle?", "Ünïcödé 日本語 🎉"]
MARK = "REDDITGEN_TEST_MARK"

needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads Linux's /proc")


def write(path: Path, rows: int) -> Path:
    """Titles with keywords of their own, so that they need no spaCy."""
    with path.open("w", encoding="utf8", newline="") as file:
        csv.writer(file).writerow(["subreddit", "title", "tags"])
        for number in range(rows):
            title = f"{TITLES[number % len(TITLES)]} number {number * 7 % rows}"
            csv.writer(file).writerow([f"sub{number % 9}", title, f"one {number},two,three"])
    return path


@pytest.fixture
def ready(tmp_path: Path) -> EncodeSettings:
    return EncodeSettings(input=write(tmp_path / "ready.csv", 600), keywords_field="tags", workers="2")


@pytest.fixture
def expected(ready: EncodeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What one process writes; the batches are small ones, so that there are many."""
    monkeypatch.setattr(batches, "_BATCH", 20)
    out = tmp_path / "one_process.txt"
    encode(EncodeSettings(input=ready.input, keywords_field="tags", workers="1", out=out))
    content = out.read_bytes()
    assert content.count(b"\n") == 1800
    out.unlink()
    Path(f"{out}.meta.json").unlink()
    return content


class Mortal(RayEncoder):
    """Killed at the batch of row 300, as often as there are files to delete beside the output."""

    def work(self, job: EncodeBatch) -> EncodedBatch:
        if any(row.number == 300 for row in job.rows):
            for life in self._settings.output.parent.glob("life*"):
                life.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().work(job)


class Stillborn(RayEncoder):
    def ready(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("deaths", [0, 1, 2])
def test_a_batch_whose_worker_is_killed_is_done_again(
    running_ray: Any,
    ready: EncodeSettings,
    expected: bytes,
    deaths: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(workers, "RayEncoder", Mortal)
    for life in range(deaths):
        (ready.output.parent / f"life{life}").touch()
    encode(ready)
    assert ready.output.read_bytes() == expected
    assert caplog.text.count("a ray worker died") == deaths
    assert not list(ready.output.parent.glob("life*"))
    assert running_ray.is_initialized()
    wait_until(lambda: running_ray.available_resources().get("CPU") == 2)


@pytest.mark.slow
def test_a_batch_that_kills_three_workers_ends_it(
    running_ray: Any, ready: EncodeSettings, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "RayEncoder", Mortal)
    for life in range(9):
        (tmp_path / f"life{life}").touch()
    message = r"^a batch of 20 texts, the longest of \d+ characters, ended 3 ray workers: .*; fewer --workers leave"
    with pytest.raises(RedditgenError, match=message) as caught:
        encode(ready)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"ready.csv", *(path.name for path in tmp_path.glob("life*"))}
    assert len(list(tmp_path.glob("life*"))) == 6
    wait_until(lambda: running_ray.available_resources().get("CPU") == 2)


@pytest.mark.slow
def test_workers_that_never_start_end_it(
    running_ray: Any, ready: EncodeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "RayEncoder", Stillborn)
    with pytest.raises(RedditgenError, match=r"^starting ended 3 ray workers: .*; fewer --workers leave"):
        encode(ready)
    assert not ready.output.exists()


@pytest.mark.slow
def test_errors_of_a_worker_are_those_of_one_process(running_ray: Any, ready: EncodeSettings, tmp_path: Path) -> None:
    model = tmp_path / "broken_model"
    model.mkdir()
    (model / "config.cfg").write_text("[nlp]\n")
    for count in ("1", "2"):
        with pytest.raises(InputError, match=r"^spaCy model '.*broken_model' can't be loaded: ") as caught:
            encode(EncodeSettings(input=ready.input, spacy_model=str(model), workers=count))
        assert "ray" not in str(caught.value)
    assert running_ray.is_initialized()


def test_a_worker_with_other_versions_is_refused(ready: EncodeSettings) -> None:
    settings = EncodeSettings(input=ready.input, ray_address="auto")
    package_versions = {"redditgen": "0.0", **model_versions(settings.spacy_model)}
    error = RayEncoder(settings, None, package_versions).ready()
    assert isinstance(error, MissingError)
    assert str(error).startswith("ray node ")
    assert str(error).endswith(f": redditgen is {__version__}, and here 0.0; have the same there")


def test_a_ray_that_does_not_start_is_said_to_be_the_cause(
    ready: EncodeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**options: object) -> None:
        raise OSError("no room in /tmp/ray")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", refuse)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    with pytest.raises(RedditgenError, match="ray does not start: no room in /tmp/ray; --workers 1 does without ray"):
        encode(ready)
    assert list(ready.input.parent.iterdir()) == [ready.input]


@dataclass
class Command:
    """Runs `redditgen encode` in `folder`, with a mark in the environment that all processes it starts have too."""

    folder: Path
    environment: dict[str, str]

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=200)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "redditgen", "encode", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def processes(self) -> list[str]:
        """The command lines of the processes that have the mark."""
        mark = f"{MARK}={self.environment[MARK]}".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # ended meanwhile, or another user's
                continue
        return found


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    """In a home of its own, and with a temporary folder whose name is short enough for ray's sockets."""
    home = tmp_path / "home"
    home.mkdir()
    with TemporaryDirectory(prefix="rg-", dir="/tmp") as temporary:
        own = {"HOME": str(home), "TMPDIR": temporary, MARK: uuid.uuid4().hex}
        yield Command(tmp_path, {name: value for name, value in os.environ.items() if name[:4] != "RAY_"} | own)
        assert list(home.glob(".ray")) == []


@pytest.mark.slow
@needs_proc
def test_the_number_of_workers_leaves_the_bytes_as_they_are(command: Command) -> None:
    source = write(command.folder / "many.csv", 1800)
    for count in (1, 2, 4):
        done = command(source, "--workers", count, "--out", f"{count}.txt")
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr.startswith(f"{count}.txt: 5400 records of 1800 titles")
        assert done.stderr.count("\n") == 1
        wait_until(lambda: not command.processes(), 10)
        assert list(Path(command.environment["TMPDIR"]).iterdir()) == []
    first, *others = ((command.folder / f"{count}.txt").read_bytes() for count in (1, 2, 4))
    assert all(other == first for other in others)


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_ray_ends_quietly(command: Command, number: signal.Signals) -> None:
    source = write(command.folder / "many.csv", 15_000)
    with command.start(source, "--workers", 2, "--out", "out.txt") as process:
        wait_until(lambda: any(line.startswith("ray::RayEncoder") for line in command.processes()))
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err in ("", "redditgen: interrupted\n")
    wait_until(lambda: not command.processes(), 10)
    assert not (command.folder / "out.txt").exists()


def on(found: Cluster, command: Command, **environment: str) -> Command:
    return Command(command.folder, command.environment | {"RAY_AUTH_MODE": "disabled"} | environment)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["host:port", "ray://", "auto", "one worker"])
def test_a_cluster_writes_the_same_bytes_and_stays(command: Command, two_nodes: Cluster, form: str) -> None:
    source = write(command.folder / "many.csv", 1200)
    address = {"ray://": two_nodes.client_address, "auto": "auto"}.get(form, two_nodes.address)
    here = command(source, "--out", "here.txt", "--workers", 1)
    assert here.returncode == 0
    on_cluster = on(two_nodes, command, RAY_ADDRESS=two_nodes.address if form == "auto" else "")
    count = 1 if form == "one worker" else "auto"
    done = on_cluster(source, "--out", "there.txt", "--workers", count, "--ray-address", address)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    # On a slow machine there are lines of progress besides, and a client may have to connect again.
    of_patience = ("encode: ", "waiting for a CPU")
    *others, last = (line for line in done.stderr.splitlines() if "could not start its server" not in line)
    assert last.startswith("there.txt: 3600 records of 1200 titles")
    assert all(line.startswith(of_patience) for line in others)
    assert (command.folder / "there.txt").read_bytes() == (command.folder / "here.txt").read_bytes()
    assert two_nodes.is_complete()


@pytest.mark.slow
def test_a_cluster_of_another_ray_is_refused(command: Command, two_nodes: Cluster) -> None:
    (command.folder / "sitecustomize.py").write_text("import ray\nray.__version__ = '2.0.99'\n")
    refused = on(two_nodes, command, PYTHONPATH=str(command.folder))
    done = refused(write(command.folder / "few.csv", 9), "--ray-address", two_nodes.address)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"redditgen: --ray-address {two_nodes.address}: Version mismatch: ")
    assert "Ray: 2.0.99" in done.stderr
    assert not (command.folder / "few_encoded.txt").exists()


@pytest.mark.slow
def test_a_node_without_redditgen_is_said_to_lack_it(command: Command) -> None:
    package = command.folder / "path" / "redditgen"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'redditgen'\")\n")
    with cluster(1, PYTHONPATH=str(package.parent)) as found:
        done = on(found, command)(write(command.folder / "few.csv", 9), "--ray-address", found.address)
        assert found.is_complete()
    wanted = f"redditgen: a node of the ray cluster has no redditgen; install redditgen {__version__} there\n"
    assert (done.returncode, done.stderr) == (1, wanted)
    assert not (command.folder / "few_encoded.txt").exists()


@contextmanager
def mute() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        yield server.getsockname()[1]


@contextmanager
def web_server() -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def closed() -> Iterator[int]:
    yield free_port()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("listening", "address", "cause"),
    [
        (closed, "127.0.0.1:{}", "no ray answers there within 12 s"),
        (closed, "ray://127.0.0.1:{}", "ray client connection timeout"),
        (mute, "ray://127.0.0.1:{}", "ray client connection timeout"),
        (mute, "127.0.0.1:{}", "no ray answers there within 12 s"),
        (web_server, "127.0.0.1:{}", "no ray answers there within 12 s"),
        (closed, "no-port", "Invalid address format: no-port"),
    ],
)
def test_an_address_where_no_ray_answers_is_refused(
    command: Command, listening: Callable[[], Any], address: str, cause: str
) -> None:
    source = write(command.folder / "few.csv", 9)
    with listening() as port:
        address = address.format(port)
        done = on_nothing(command)(source, "--keywords-field", "tags", "--ray-address", address)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"redditgen: --ray-address {address}: {cause}; `ray start --head` starts a cluster")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in command.folder.iterdir() if path.is_file()] == ["few.csv"]


def on_nothing(command: Command) -> Command:
    return Command(command.folder, command.environment | {"RAY_AUTH_MODE": "disabled"})
