"""fetch --from bigquery as a user runs it: each error is a line, an exit code and no output, and no secret shows.

The logins are real ones to Google's libraries: what they send over TLS to Google's hosts goes to the emulator instead.
"""

import datetime
import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from redditgen.errors import RedditgenError
from redditgen.fetch import sources
from redditgen.fetch.bigquery.posts import BigQueryPosts
from redditgen.fetch.command import fetch
from redditgen.settings import FetchSettings
from tests.fetch.bigquery.test_posts import API_OFF, BILLING, DENIED, FAULTS, FREE, PASSING
from tests.support import bigquery_proxy
from tests.support.bigquery_emulator import PROJECT, Emulator
from tests.support.bigquery_proxy import Fault, Proxy
from tests.support.fixture_types import Redditgen
from tests.support.google_logins import log_out, pem, service_account
from tests.support.local_server import serving
from tests.support.posts import expected, read_rows, write_parquet
from tests.support.posts import posts as reddit_posts

pytestmark = [pytest.mark.bigquery, pytest.mark.slow, pytest.mark.timeout(900)]

DATASET = "commands"  # of the emulator
TABLE = f"{PROJECT}.{DATASET}.2019_08"
FETCH = ("fetch", "--from=bigquery", f"--project={PROJECT}", f"--table={TABLE}", "--out=out/titles.csv")
LOGIN = "gcloud auth application-default login"

ACCOUNT = "o'marker.jane@marker-corp.example.com"
PAYING = "paying-4711"


@pytest.fixture(scope="session")
def emulator(bigquery_emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    path = tmp_path_factory.mktemp("table") / "posts.parquet"
    write_parquet(path, reddit_posts(7, 600))
    bigquery_emulator.load("2019_08", path, DATASET)
    return bigquery_emulator


@pytest.fixture(autouse=True)
def nobody(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nobody is logged in on this machine, and it is none of Google's; gives the folder of gcloud's logins."""
    folder = tmp_path_factory.mktemp("gcloud")
    log_out(monkeypatch, folder)
    return folder


def outputs(folder: Path) -> list[str]:
    """The files, hidden ones too, below the folder."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


# --- errors ---


@pytest.fixture
def proxy(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with serving(Proxy(emulator.url)) as proxy:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", proxy.url)
        yield proxy


@pytest.fixture
def settings(tmp_path: Path) -> FetchSettings:
    return FetchSettings(source=("bigquery",), project=PROJECT, table=TABLE, out=tmp_path / "out/titles.csv")


def in_haste(monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Without the 45 s for which a request is tried again."""
    monkeypatch.setattr(sources, "BigQueryPosts", partial(BigQueryPosts, **{"patience": 1, **options}))


@pytest.mark.parametrize("passed_on", [0, 1, 2], ids=["columns", "estimate", "job"])
@pytest.mark.parametrize("name", [*FAULTS, *PASSING])
def test_whatever_job_meets_a_fault_nothing_is_written(
    proxy: Proxy, settings: FetchSettings, monkeypatch: pytest.MonkeyPatch, name: str, passed_on: int
) -> None:
    in_haste(monkeypatch)
    proxy.first = [None] * passed_on
    proxy.ever = FAULTS[name][0] if name in FAULTS else PASSING[name][0]
    with pytest.raises(RedditgenError) as error:
        fetch(settings)
    if name in FAULTS:
        of_table = FAULTS[name][2].replace("fh-bigquery.reddit_posts.2019_08", TABLE)
    else:
        of_table = f"BigQuery: busy or out of order ({PASSING[name][1]}), tried for 1 s; try again later"
    assert str(error.value).partition("; if the job has started")[0] == of_table
    assert error.value.exit_code == 1
    assert outputs(settings.out.parent) == []


def test_a_result_that_breaks_off_leaves_nothing(
    proxy: Proxy, settings: FetchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_haste(monkeypatch, page_rows=10)
    proxy.of_pages = Fault(503, "backendError", "gone")
    with pytest.raises(
        RedditgenError, match=r"busy or out of order \(backendError\), tried for 1 s; .* --job \S+ reads"
    ):
        fetch(settings)
    assert outputs(settings.out.parent) == []


def test_no_server(settings: FetchSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    in_haste(monkeypatch)
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(RedditgenError, match=r"^BigQuery: no connection \(ConnectionError\), tried for 1 s; check the"):
        fetch(settings)
    assert outputs(settings.out.parent) == []


def ever(fault: Fault) -> Mapping[str, Any]:
    return {"ever": fault}


def of_job(reason: str, message: str) -> Mapping[str, Any]:
    return {"of_job": {"reason": reason, "message": message}}


COMMANDS: dict[str, tuple[Mapping[str, Any], tuple[str, ...], str]] = {
    "denied": (ever(Fault(403, "accessDenied", DENIED)), (), "either the account may not run jobs in project"),
    "billing": (ever(Fault(403, "billingNotEnabled", BILLING)), (), "enable it at https://console.cloud.google.com"),
    "API off": (ever(Fault(403, "accessNotConfigured", API_OFF)), (), "library/bigquery.googleapis.com?project="),
    "quota": (of_job("quotaExceeded", FREE), (), "it is renewed on the first of the next month, or enable billing"),
    "forecast": ({"bytes": 60 * 10**9}, (), "needs 60.0 GB, more than --max-bytes, 50.0 GB, and was not run"),
    "bytes billed": ({"bytes": 10**6}, ("--max-bytes=5MB",), "needs 10.5 MB, more than --max-bytes, 5.0 MB, and was"),
    "table": ({}, (f"--table={PROJECT}.{DATASET}.2019_07",), "there are 2019_08; correct --table or --months"),
    "dataset": ({}, (f"--table={PROJECT}.nowhere.2019_08",), "Not found: Dataset fh-bigquery:nowhere was not found"),
    "no match": ({}, (f"--table={PROJECT}.{DATASET}.99*",), "99* does not match any table; correct --table"),
    "months": ({}, ("--months=2020_01:2020_03",), f"{DATASET} has no table for 2020_01 to 2020_03; it has 2019_08 to"),
    "job": ({}, ("--job=redditgen-gone",), "no job redditgen-gone in project fh-bigquery and location US"),
    "stopped": (of_job("stopped", "Job execution was cancelled"), (), "was cancelled by someone; run the same command"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_ends_with_one_line(proxy: Proxy, redditgen: Redditgen, tmp_path: Path, name: str) -> None:
    attributes, options, words = COMMANDS[name]
    for attribute, value in attributes.items():
        setattr(proxy, attribute, value)
    done = redditgen(*FETCH, *options)
    *_, last = done.stderr.splitlines()
    assert last.startswith("redditgen: BigQuery") and words in last
    assert (done.returncode, done.stdout, done.stderr.count("redditgen: ")) == (1, "", 1)
    assert outputs(tmp_path) == []


def test_a_query_that_bigquery_refuses(proxy: Proxy, redditgen: Redditgen, tmp_path: Path) -> None:
    (tmp_path / "own.sql").write_text(f"SELECT nope FROM `{TABLE}` ORDER BY nope")
    done = redditgen("fetch", "--from=bigquery", f"--project={PROJECT}", "--sql=own.sql", "--out=out/titles.csv")
    assert done.returncode == 1
    assert "redditgen: BigQuery can't run the query: Unrecognized name: nope" in done.stderr
    assert outputs(tmp_path) == ["own.sql"]


def test_a_dry_run_of_a_review_is_not_billed(proxy: Proxy, redditgen: Redditgen, tmp_path: Path) -> None:
    proxy.bytes = 10**9
    done = redditgen(*FETCH[:-1], "--review", "--dry-run")
    assert (done.returncode, done.stdout) == (0, "")
    assert "BigQuery: the query reads 1.0 GB" in done.stderr
    assert all(job["dryRun"] for job in proxy.jobs)
    assert outputs(tmp_path) == []


# --- the login ---


class Google(Proxy):
    """Google's hosts behind a proxy for TLS: the one for logins, and BigQuery's, which the emulator is."""

    def __init__(self, upstream: str, certificate: Path) -> None:
        super().__init__(upstream)
        self.RequestHandlerClass = _Handler
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificate)
        self.token_status = 200
        self.token: dict[str, Any] = {"access_token": "marker-token", "token_type": "Bearer", "expires_in": 3600}
        self.authorizations: set[str] = set()


class _Handler(bigquery_proxy._Handler):
    server: Google

    def do_CONNECT(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.close_connection = False

    def do_POST(self) -> None:
        if self.path != "/token":
            self._serve()
            return
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_json(self.server.token_status, json.dumps(self.server.token).encode())

    def _serve(self) -> None:
        self.server.authorizations.add(self.headers["Authorization"])
        super()._serve()

    def finish(self) -> None:
        super().finish()
        self.connection.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of Google's hosts, with its key, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"), False
    )
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.SubjectAlternativeName([x509.DNSName("*.googleapis.com")]), False),
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, encipher_only=False, decipher_only=False, **usage
            ),
            True,
        ),
    ]
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, is_critical)
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(pem(key) + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def google(emulator: Emulator, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    """The way to Google leads here, through a proxy with a password; and variables of gcloud's hold tokens."""
    with serving(Google(emulator.url, certificate)) as server:
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, server.url.replace("//", "//marker-user:marker-password@"))
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        for name in ("CLOUDSDK_AUTH_ACCESS_TOKEN", "GOOGLE_OAUTH_ACCESS_TOKEN"):
            monkeypatch.setenv(name, "marker-token-of-the-environment")
        yield server


def key_file(folder: Path) -> dict[str, str]:
    """Of a service account; the variables that name it."""
    path = folder / "marker-key.json"
    path.write_text(json.dumps(service_account(ACCOUNT, "https://oauth2.googleapis.com/token")), encoding="utf8")
    return {"GOOGLE_APPLICATION_CREDENTIALS": str(path)}


def user(folder: Path) -> dict[str, str]:
    """What `gcloud auth application-default login` leaves."""
    content = {
        "type": "authorized_user",
        "account": ACCOUNT,
        "client_id": "marker.apps.googleusercontent.com",
        "client_secret": "marker-client-secret",
        "refresh_token": "marker-refresh-token",
        "quota_project_id": "marker-project",
    }
    (folder / "application_default_credentials.json").write_text(json.dumps(content), encoding="utf8")
    return {}


@pytest.fixture(params=[key_file, user])
def login(request: pytest.FixtureRequest, nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make: Callable[[Path], dict[str, str]] = request.param
    for name, value in make(nobody).items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("login")
def test_with_a_login_nothing_of_it_is_said_or_written(google: Google, redditgen: Redditgen, tmp_path: Path) -> None:
    google.bytes = 10**9
    done = redditgen(*FETCH, f"--project={PAYING}")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "BigQuery: billed for 1.0 GB" in done.stderr
    assert google.authorizations == {"Bearer marker-token"}
    written = {path.name: path.read_text(encoding="utf8") for path in (tmp_path / "out").iterdir()}
    assert sorted(written) == ["titles.csv", "titles.csv.meta.json"]
    assert read_rows(tmp_path / "out/titles.csv") == [
        row[:2] for row in expected(reddit_posts(7, 600), FetchSettings(source=("bigquery",)))
    ]
    # The library of the login asks Google for more about a service account.
    paths = [path for _, path in google.requests if path.startswith("/bigquery/")]
    assert {path.split("/")[4] for path in paths} == {PAYING}
    jobs = json.dumps([google.job_ids, [job.get("labels") for job in google.jobs]])
    for text in (done.stderr, *written.values(), jobs):
        assert "marker" not in text and PAYING not in text


QUOTED = f"User {ACCOUNT} and serviceAccount:marker@marker-x.iam.gserviceaccount.com (principal://marker/x) may not."
REFUSALS: dict[str, tuple[Mapping[str, Any], str]] = {
    "denied": (ever(Fault(403, "accessDenied", QUOTED)), "User (account) and serviceAccount:(account) ((account) may"),
    "job denied": (of_job("accessDenied", QUOTED), "User (account) and serviceAccount:(account) ((account) may not;"),
    "unheard of": (ever(Fault(418, "teapot", QUOTED)), "User (account) and serviceAccount:(account) ((account) may"),
    "token": (ever(Fault(401, "authError", "Bad token marker-token")), "the login was refused; "),
    "taken back": (
        {"token_status": 400, "token": {"error": "invalid_grant", "error_description": f"not found: {ACCOUNT}"}},
        "the login has expired, or was taken back (invalid_grant); ",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.usefixtures("login")
def test_with_a_login_that_fails_nothing_of_it_is_said(
    google: Google, redditgen: Redditgen, tmp_path: Path, name: str
) -> None:
    attributes, words = REFUSALS[name]
    for attribute, value in attributes.items():
        setattr(google, attribute, value)
    done = redditgen(*FETCH, f"--project={PAYING}")
    *_, last = done.stderr.splitlines()
    assert words in last
    assert (done.returncode, done.stdout, done.stderr.count("redditgen: ")) == (1, "", 1)
    assert "marker" not in done.stderr
    assert outputs(tmp_path) == []


def test_no_way_to_the_login_server(nobody: Path, settings: FetchSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    in_haste(monkeypatch)
    user(nobody)
    with pytest.raises(RedditgenError, match=r"^BigQuery: no connection to Google's login server \(oauth2\.google"):
        fetch(settings)
    assert outputs(settings.out.parent) == []


def test_no_project(nobody: Path, redditgen: Redditgen, tmp_path: Path) -> None:
    user(nobody)
    done = redditgen("fetch", "--from=bigquery")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("redditgen: BigQuery: no project is known that pays for the query; name yours with")
    assert done.stderr.count("\n") == 1
    assert outputs(tmp_path) == []


def test_no_credentials_in_the_named_file(
    nobody: Path, redditgen: Redditgen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nobody / "marker.json").write_text('{"type": "marker"}', encoding="utf8")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(nobody / "marker.json"))
    done = redditgen(*FETCH)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "redditgen: BigQuery: the file that GOOGLE_APPLICATION_CREDENTIALS names holds no credentials that Google's "
        f"library can read; correct it, or unset it and log in with: {LOGIN}\n"
    )
    assert outputs(tmp_path) == []
