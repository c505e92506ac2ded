"""The login for BigQuery: what is missing or wrong is said in one line, and nothing of what is secret ever shows."""

import json
import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from redditgen.errors import MissingError, RedditgenError
from redditgen.fetch.bigquery.posts import BigQueryPosts
from tests.support.google_logins import log_out, service_account
from tests.support.local_server import Handler, LocalServer, serving

ACCOUNT, TOKEN = "marker-account", "marker-token"
EMAIL = f"{ACCOUNT}@marker-project.iam.gserviceaccount.com"
LOGIN = "gcloud auth application-default login"
LOCAL = "or read local files: --from FILE"

Login = Callable[..., Path]


class TokenServer(LocalServer):
    """Google's login server, as far as a service account needs it."""

    def __init__(self) -> None:
        super().__init__(_TokenHandler)
        self.status = 200
        self.answer: dict[str, Any] = {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600}
        self.asked: list[tuple[str, str | None]] = []  # path, and what it was shown of a login


class _TokenHandler(Handler):
    server: TokenServer

    def do_POST(self) -> None:
        self.server.asked.append((self.path.partition("?")[0], self.headers["Authorization"]))
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_json(self.server.status, json.dumps(self.server.answer).encode())


@pytest.fixture
def token_server() -> Iterator[TokenServer]:
    with serving(TokenServer()) as server:
        yield server


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log_out(monkeypatch, tmp_path / "gcloud")
    monkeypatch.setenv("PATH", str(tmp_path))  # no gcloud to ask for a project


@pytest.fixture
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Login:
    """Writes the key of a service account, and names it as Google's libraries want it."""

    def write(**changes: Any) -> Path:
        path = tmp_path / f"{ACCOUNT}.json"
        content = service_account(EMAIL, "http://127.0.0.1:9/token") | changes
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        return path

    return write


def refusal(**options: Any) -> str:
    """The message of the error that a query ends with."""
    with pytest.raises(RedditgenError) as error, BigQueryPosts(**{"patience": 1, **options}) as posts:
        list(posts.run("SELECT 1", {}))
    assert error.value.exit_code == 1
    assert "\n" not in str(error.value)
    return str(error.value)


def test_nobody_is_logged_in(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    assert refusal() == f"BigQuery: no login of a Google account; log in with: {LOGIN}, {LOCAL}"
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


@pytest.mark.slow
def test_a_network_that_swallows_the_question_for_googles_machines_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own: Google's library reads the variables when it is loaded."""
    monkeypatch.delenv("NO_GCE_CHECK")
    monkeypatch.delenv("GCE_METADATA_DETECT_RETRIES", raising=False)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{silent.getsockname()[1]}")
        command = [sys.executable, "-m", "redditgen", "fetch", "--from=bigquery"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()
    assert done.returncode == 1
    assert done.stderr == f"redditgen: BigQuery: no login of a Google account; log in with: {LOGIN}, {LOCAL}\n"


def test_the_named_key_is_not_there(key_file: Login) -> None:
    key_file().unlink()
    assert refusal() == (
        f"BigQuery: the file that GOOGLE_APPLICATION_CREDENTIALS names is not there; correct it, or unset it and "
        f"log in with: {LOGIN}"
    )


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"type": "marker"}', '{"type": "service_account"}', "\udcff"]
)
def test_the_named_key_is_none(key_file: Login, content: str) -> None:
    key_file().write_text(content, encoding="utf8", errors="surrogateescape")
    assert refusal() == (
        "BigQuery: the file that GOOGLE_APPLICATION_CREDENTIALS names holds no credentials that Google's library can "
        f"read; correct it, or unset it and log in with: {LOGIN}"
    )


@pytest.mark.parametrize(
    "changes", [{"private_key": "marker"}, {"private_key": None}, {"client_email": None}, {"token_uri": None}]
)
def test_the_named_key_is_broken(key_file: Login, changes: dict[str, Any]) -> None:
    key_file(**changes)
    assert "names holds no credentials that Google's library can read" in refusal()


def test_the_named_key_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path))
    assert "names holds no credentials that Google's library can read" in refusal()


def test_no_project(tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    login = {"type": "authorized_user", "client_id": "x", "client_secret": "marker", "refresh_token": "marker"}
    (tmp_path / "gcloud").mkdir()
    (tmp_path / "gcloud/application_default_credentials.json").write_text(json.dumps(login))
    assert refusal() == (
        "BigQuery: no project is known that pays for the query; name yours with --project or GOOGLE_CLOUD_PROJECT, "
        + LOCAL
    )
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_the_project_is_the_named_one_or_that_of_the_login(key_file: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    key_file()
    with BigQueryPosts() as posts:
        assert posts.project == "marker-project"
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "of-the-environment")
    with BigQueryPosts() as posts:
        assert posts.project == "of-the-environment"
    with BigQueryPosts(project="of-the-option") as posts:
        assert posts.project == "of-the-option"


@pytest.mark.parametrize("reason", ["Invalid JWT Signature.", f"account not found: {EMAIL}"])
def test_the_login_was_taken_back(key_file: Login, token_server: TokenServer, reason: str) -> None:
    key_file(token_uri=f"{token_server.url}/token")
    token_server.status = 400
    token_server.answer = {"error": "invalid_grant", "error_description": reason}
    assert refusal() == (
        "BigQuery: the login has expired, or was taken back (invalid_grant); name a key that is valid with "
        f"GOOGLE_APPLICATION_CREDENTIALS, or unset it and log in with: {LOGIN}"
    )


def test_no_connection_to_the_login_server(key_file: Login) -> None:
    key_file()
    assert refusal() == (
        "BigQuery: no connection to Google's login server (oauth2.googleapis.com), tried for 1 s; check the network "
        f"and the proxy, {LOCAL}"
    )


def test_nothing_secret_shows(
    key_file: Login,
    token_server: TokenServer,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With a login that is good, and no way to BigQuery itself: the tests have no network."""
    caplog.set_level(logging.INFO)
    key_file(token_uri=f"{token_server.url}/token")
    with pytest.raises(RedditgenError) as error, BigQueryPosts(patience=1) as posts:
        list(posts.run("SELECT 1", {}))
    assert token_server.asked == [("/token", None)]
    assert str(error.value) == (
        f"BigQuery: no connection (ConnectionError), tried for 1 s; check the network and the proxy, {LOCAL}"
    )
    shown = (str(error.value), caplog.text, *capfd.readouterr(), json.dumps(posts.facts()), repr(posts))
    assert "ConnectionError; trying again" in caplog.text
    for text in shown:
        assert not [word for word in ("marker", "PRIVATE KEY") if word in text]


def test_an_emulator_is_not_shown_the_login(
    key_file: Login, token_server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_file(token_uri=f"{token_server.url}/token")
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", token_server.url)
    token_server.status = 403
    assert refusal(project="p").startswith("BigQuery: ")
    assert token_server.asked == [("/bigquery/v2/projects/p/jobs", None)]
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere")
    with BigQueryPosts() as posts:
        assert posts.project == "redditgen"


def test_missing_is_an_error_that_another_command_mends() -> None:
    with pytest.raises(MissingError):
        BigQueryPosts()
