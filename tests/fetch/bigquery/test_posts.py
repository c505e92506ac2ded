"""fetch from BigQuery: Google's client over real HTTP and gRPC, before the emulator and a proxy that makes faults."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from redditgen.errors import InputError, Interrupted, MissingError, RedditgenError, UsageError
from redditgen.fetch.bigquery.posts import BigQueryPosts
from redditgen.fetch.local import files
from redditgen.fetch.local.posts import LocalPosts
from redditgen.fetch.sql import query
from redditgen.settings import FetchSettings
from tests.support.bigquery_emulator import DATASET, PROJECT, Emulator
from tests.support.bigquery_proxy import Fault, Proxy
from tests.support.local_server import serving
from tests.support.posts import SOURCES, Post, expected, in_months, write_parquet
from tests.support.posts import posts as reddit_posts

# Installing the emulator, which the first of them waits for, takes a minute, or some on a slow line.
pytestmark = [pytest.mark.bigquery, pytest.mark.slow, pytest.mark.timeout(900)]

MONTHS = ("2017_01", "2017_02", "2018_12", "2019_08")
# A query with parameters of each kind that is quick to check.
SQL = """
SELECT subreddit, title FROM `fh-bigquery.reddit_posts.2019_08`
WHERE score >= @score AND (@all OR NOT over_18) AND LOWER(subreddit) NOT IN UNNEST(@block) ORDER BY id, title, subreddit
"""
PARAMETERS: dict[str, Any] = {"score": 6, "all": False, "block": ["me_irl", "sub_7"]}
REST, STORAGE = 1_000_000, 0  # few_rows
T = "`fh-bigquery.reddit_posts.2019_08`"
LONG_QUERY = f"SELECT SUM(CHAR_LENGTH(CONCAT(a.title, b.title, c.title))) FROM {T} a, {T} b, {T} c"

Posts = Callable[..., BigQueryPosts]

LATER = ("removed_by_category", "promoted", "subreddit_type")  # columns that fh-bigquery's tables do not have


@pytest.fixture(scope="session")
def months(bigquery_emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Post]]:
    """The posts of each month, which are in a table of the emulator each, beside two that are no month."""
    folder = tmp_path_factory.mktemp("tables")
    posts = {month: reddit_posts(seed, 1500) for seed, month in enumerate(MONTHS)}
    for month, of_month in posts.items():
        write_parquet(folder / "posts.parquet", of_month)
        bigquery_emulator.load(month, folder / "posts.parquet")
    for other in ("full_corpus_201509", "2020_sample"):
        bigquery_emulator.load(other, folder / "posts.parquet")
    return posts


@pytest.fixture
def posts(bigquery_emulator: Emulator, months: dict[str, list[Post]], monkeypatch: pytest.MonkeyPatch) -> Posts:
    """Makes a source whose BigQuery is the emulator."""
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_emulator.url)
    monkeypatch.setenv("BIGQUERY_STORAGE_EMULATOR_HOST", bigquery_emulator.storage)
    return lambda **options: BigQueryPosts(**{"project": PROJECT, "patience": 5, **options})


@pytest.fixture
def proxy(bigquery_emulator: Emulator, posts: Posts, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy between the sources that `posts` makes and the emulator."""
    with serving(Proxy(bigquery_emulator.url)) as proxy:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", proxy.url)
        yield proxy


def rows(source: BigQueryPosts, sql: str = SQL, **parameters: Any) -> list[tuple[Any, ...]]:
    with source:
        return list(source.run(sql, PARAMETERS | parameters))


def refusal(source: BigQueryPosts, kind: type[RedditgenError] = RedditgenError, sql: str = SQL) -> str:
    """The message of the error that a query ends with."""
    with pytest.raises(kind) as error:
        rows(source, sql)
    return str(error.value)


def wanted(posts: list[Post]) -> list[tuple[Any, ...]]:
    """The rows of `SQL`."""
    found = [
        (post["id"], post["title"], post["subreddit"])
        for post in posts
        if post["score"] is not None and post["score"] >= PARAMETERS["score"] and post["over_18"] is False
        if post["subreddit"] and post["subreddit"].lower() not in PARAMETERS["block"]
    ]
    return [(subreddit, title) for _, title, subreddit in sorted(found, key=lambda row: (row[0], row[1] or "", row[2]))]


def job_of(source: BigQueryPosts) -> str:
    return str(source.facts()["job"])


# --- the rows ---


@pytest.mark.parametrize("few_rows", [REST, STORAGE], ids=["rest", "storage"])
def test_one_table(
    posts: Posts,
    months: dict[str, list[Post]],
    few_rows: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "redditgen")
    monkeypatch.setattr("redditgen.runtime.progress.LINE_INTERVAL", 0)
    got = rows(posts(few_rows=few_rows))
    assert got == wanted(months["2019_08"])
    assert len(got) > 300
    assert [line for line in caplog.messages if line.startswith(f"BigQuery's result: {len(got)} rows, ")]


@pytest.mark.parametrize("few_rows", [REST, STORAGE], ids=["rest", "storage"])
def test_a_range_of_months_is_read_as_one_table(
    posts: Posts, months: dict[str, list[Post]], caplog: pytest.LogCaptureFixture, few_rows: int
) -> None:
    source = posts(months="2017-02:2018-12", few_rows=few_rows)
    assert rows(source) == wanted(months["2017_02"] + months["2018_12"])
    assert source.facts()["tables"] == ["fh-bigquery.reddit_posts.20*"]
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "BigQuery: fh-bigquery.reddit_posts has no table for 2017_03, 2017_04, 2017_05, 2017_06, 2017_07 "
        "and 16 more months"
    ]


def test_another_table(posts: Posts, months: dict[str, list[Post]]) -> None:
    source = posts(table=f"{PROJECT}.{DATASET}.2017_01")
    assert rows(source) == wanted(months["2017_01"])
    assert source.facts()["tables"] == ["fh-bigquery.reddit_posts.2017_01"]


@pytest.mark.parametrize("options", [{}, {"months": "2017_01:2018_12"}])
def test_columns(posts: Posts, months: dict[str, list[Post]], options: dict[str, str]) -> None:
    with posts(**options) as source:
        assert source.columns == set(months["2019_08"][0])


def test_parameters_keep_their_values_and_types(posts: Posts) -> None:
    sql = "SELECT @i, @b, @f, @s, ARRAY_LENGTH(@many), ARRAY_LENGTH(@none), ARRAY_TO_STRING(@many, '|'), NULL"
    text = 'it\'s "x" `@i` \\ \n 日本 😀 \u2028'
    got = rows(posts(), sql, i=2**53 + 1, b=False, f=0.1, s=text, many=["a'", ""], none=[], unused="x")
    assert got == [(2**53 + 1, False, 0.1, text, 2, 0, "a'|", None)]


def test_hostile_text_comes_back_as_it_is(posts: Posts, months: dict[str, list[Post]]) -> None:
    sql = "SELECT id, title, score FROM `fh-bigquery.reddit_posts.2019_08` ORDER BY id"
    for few_rows in (REST, STORAGE):
        as_they_are = sorted((post["id"], post["title"], post["score"]) for post in months["2019_08"])
        assert rows(posts(few_rows=few_rows), sql) == as_they_are


def test_no_rows(posts: Posts) -> None:
    for few_rows in (REST, STORAGE):
        assert rows(posts(few_rows=few_rows), "SELECT 1 FROM UNNEST([1]) WHERE FALSE") == []


# --- the titles ---


@pytest.fixture(scope="session", params=[(), LATER], ids=["all columns", "fh-bigquery's columns"])
def reddit(
    request: pytest.FixtureRequest, bigquery_emulator: Emulator, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, dict[str, list[Post]]]:
    """Months of posts as tables in a dataset of the emulator and as files of each kind in folders."""
    dataset, folder = f"titles_{len(request.param)}", tmp_path_factory.mktemp("reddit")
    dealt = dict(in_months(reddit_posts(7, 5000), MONTHS))
    for month, posts in dealt.items():
        dealt[month] = [{key: value for key, value in post.items() if key not in request.param} for post in posts]
        for suffix, write in SOURCES.items():
            (folder / suffix).mkdir(exist_ok=True)
            write(folder / suffix / f"{month}{suffix}", dealt[month])
        bigquery_emulator.load(month, folder / ".parquet" / f"{month}.parquet", dataset)
    return dataset, folder, dealt


@pytest.mark.parametrize("few_rows", [REST, STORAGE], ids=["rest", "storage"])
@pytest.mark.parametrize("months", [None, "2017_01:2018_12"])
def test_titles_equal_those_of_the_local_engine_and_the_oracle(
    posts: Posts, reddit: tuple[str, Path, dict[str, list[Post]]], months: str | None, few_rows: int
) -> None:
    dataset, folder, dealt = reddit
    read = [month for month in MONTHS if (month < "2019" if months else month == "2019_08")]
    settings = FetchSettings(top_subreddits=20, per_subreddit=10, columns="subreddit,title,score,id")
    oracles = expected([post for month in read for post in dealt[month]], settings)
    assert len(oracles) > 150
    assert titles(posts(table=f"{PROJECT}.{dataset}.2019_08", months=months, few_rows=few_rows), settings) == oracles
    for suffix in SOURCES:
        found = files.find_posts_files([f"{folder}/{suffix}/{month}{suffix}" for month in read])
        assert titles(LocalPosts(found, months=months), settings) == oracles


def titles(source: BigQueryPosts | LocalPosts, settings: FetchSettings) -> list[tuple[Any, ...]]:
    with source:
        asked = query.titles_query(settings, source.table, source.columns)
        return list(source.run(asked.sql, asked.parameters))


# --- the way of the result ---


def test_pages_of_rest_follow_each_other_in_order(posts: Posts, proxy: Proxy, months: dict[str, list[Post]]) -> None:
    source = posts(page_rows=100, few_rows=REST)
    in_order = wanted(months["2019_08"])
    assert rows(source) == in_order
    assert proxy.count("GET", f"/queries/{job_of(source)}") == -(-len(in_order) // 100)


def test_storage_spares_the_pages(posts: Posts, proxy: Proxy, months: dict[str, list[Post]]) -> None:
    source = posts(page_rows=100, few_rows=STORAGE)
    assert rows(source) == wanted(months["2019_08"])
    assert proxy.count("GET", f"/queries/{job_of(source)}") == 1


def test_storage_gives_a_large_result_whole_and_in_order(posts: Posts) -> None:
    """The emulator would give several streams from 100,000 rows on."""
    numbers = "SELECT x FROM UNNEST(GENERATE_ARRAY(1, 250000)) x ORDER BY MOD(x * 7919, 250007)"
    assert rows(posts(), numbers) == [(x,) for x in sorted(range(1, 250_001), key=lambda x: x * 7919 % 250_007)]


def test_a_result_that_breaks_off_is_not_lost(posts: Posts, proxy: Proxy, months: dict[str, list[Post]]) -> None:
    proxy.of_pages = Fault(503, "backendError", "gone")
    source = posts(page_rows=100, few_rows=REST, patience=1)
    got = []
    with pytest.raises(RedditgenError) as error, source:
        for row in source.run(SQL, PARAMETERS):
            got.append(row)
    job = job_of(source)
    assert str(error.value).endswith(f"try again later; if the job has started, --job {job} reads its result")
    assert got == wanted(months["2019_08"])[:100]
    proxy.of_pages = None
    assert rows(posts(job=job)) == wanted(months["2019_08"])


@pytest.mark.parametrize("address", ["", "127.0.0.1:1"])
def test_rest_stands_in_for_storage_that_can_not_be_had(
    posts: Posts,
    months: dict[str, list[Post]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    address: str,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("BIGQUERY_STORAGE_EMULATOR_HOST", address)
    assert rows(posts(few_rows=STORAGE)) == wanted(months["2019_08"])
    said = [line for line in caplog.messages if "Storage" in line]
    assert said == (
        ["BigQuery: no Storage Read API (ServiceUnavailable); reading over REST, which is slower"] if address else []
    )


# --- the cost ---


def test_cost_is_said_before_the_query_runs(posts: Posts, proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="redditgen")
    proxy.bytes = 123_456_789
    source = posts()
    rows(source)
    job = job_of(source)
    assert caplog.messages == [
        "BigQuery: asking the emulator that BIGQUERY_EMULATOR_HOST names",
        "BigQuery: the query reads 123.5 MB, 0.01% of the 1 TiB a month that is free; beyond that about USD 0.00 "
        "(USD 6.25 a TiB; prices change)",
        f"BigQuery: job {job}; for a day --job reads its result again without paying",
        "BigQuery: billed for 123.5 MB",
    ]
    assert job.startswith("redditgen-")
    assert source.facts() == {
        "location": "US",
        "tables": ["fh-bigquery.reddit_posts.2019_08"],
        "job": job,
        "bytes_processed": 123_456_789,
        "bytes_billed": 123_456_789,
    }
    dry, real = proxy.jobs
    assert dry["dryRun"] and not real.get("dryRun")
    assert real["query"]["maximumBytesBilled"] == str(50 * 10**9)
    assert list(real["labels"]) == ["redditgen"]


def test_estimate_runs_nothing(posts: Posts, proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    proxy.bytes = 2 * 10**12
    with posts() as source:
        assert source.estimate(SQL, PARAMETERS) == 2 * 10**12
    assert "reads 2.0 TB, 181.90% of the 1 TiB a month that is free; beyond that about USD 11.37" in caplog.text
    assert [job["dryRun"] for job in proxy.jobs] == [True]
    assert "job" not in source.facts()


def test_what_bigquery_does_not_tell_is_unknown(posts: Posts, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with posts() as source:
        assert source.estimate("SELECT 1", {}) is None
    assert "BigQuery: it does not tell how much the query reads: what it costs is unknown" in caplog.messages


def test_a_cached_result_costs_nothing(posts: Posts, proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    proxy.changes = {"cacheHit": True}
    with posts() as source:
        assert source.estimate("SELECT 1", {}) == 0
    assert "BigQuery: it has the result of this very query in its cache, which costs nothing" in caplog.messages


def test_a_query_over_the_limit_is_not_sent(posts: Posts, proxy: Proxy) -> None:
    proxy.bytes = 60 * 10**9
    assert refusal(posts()) == (
        "BigQuery: the query needs 60.0 GB, more than --max-bytes, 50.0 GB, and was not run; "
        "allow more with --max-bytes 66GB, or read fewer --months"
    )
    assert [job.get("dryRun") for job in proxy.jobs] == [True]
    assert rows(posts(max_bytes=66 * 10**9))


def test_the_limit_holds_where_the_forecast_was_too_low(posts: Posts, proxy: Proxy) -> None:
    proxy.bytes = 10**6  # BigQuery bills 10 MiB at least
    with pytest.raises(RedditgenError, match=r"^BigQuery: the query needs 10\.5 MB, more than --max-bytes, 5\.0 MB"):
        rows(posts(max_bytes=5 * 10**6))
    assert len(proxy.jobs) == 2


# --- a job that was run before ---


def test_the_result_of_a_job_is_read_again_without_running_it(
    posts: Posts, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="redditgen")
    proxy.bytes = 10**9
    first = posts()
    of_first = rows(first)
    sent = len(proxy.jobs)
    caplog.clear()
    again = posts(job=job_of(first))
    assert rows(again) == of_first
    assert len(proxy.jobs) == sent
    assert again.facts()["job"] == job_of(first)
    assert not [line for line in caplog.messages if "billed" in line or "reads" in line]


def test_a_job_of_months_is_read_again(posts: Posts) -> None:
    first = posts(months="2017_01:2017_02")
    of_first = rows(first)
    assert rows(posts(months="2017_01:2017_02", job=job_of(first))) == of_first
    with pytest.raises(InputError, match="was not of this query with these parameters"):
        rows(posts(months="2017_01", job=job_of(first)))


def test_a_job_of_another_query_is_refused(posts: Posts) -> None:
    first = posts()
    rows(first)
    job = job_of(first)
    same = f"BigQuery job {job}: was not of this query with these parameters; give the options that it was run with"
    for options, changes in (
        ({}, {"score": 7}),
        ({}, {"block": []}),
        ({}, {"sql": SQL + "\n"}),
        ({"table": f"{PROJECT}.{DATASET}.2017_01"}, {}),
    ):
        with pytest.raises(InputError, match=same):
            rows(posts(job=job, **options), **changes)


def test_a_job_that_is_not_a_query_is_refused(posts: Posts, bigquery_emulator: Emulator) -> None:
    with bigquery_emulator.client() as client:
        loaded = next(job.job_id for job in client.list_jobs() if job.job_type == "load")
    with pytest.raises(InputError, match=f"BigQuery job {loaded}: was not of this query"):
        rows(posts(job=loaded))


def test_a_job_that_is_not_there(posts: Posts) -> None:
    assert refusal(posts(job="redditgen-gone"), MissingError) == (
        "BigQuery: no job redditgen-gone in project fh-bigquery and location US; correct --job, --project or "
        "--location, or leave out --job to run the query anew"
    )


def test_the_result_of_a_job_that_is_not_there_any_more(posts: Posts, bigquery_emulator: Emulator) -> None:
    first = posts()
    rows(first)
    with bigquery_emulator.client() as client:
        client.delete_table(client.get_job(job_of(first)).destination)
    with pytest.raises(MissingError, match=r"the result of job redditgen-\S+ is not there any more, it is kept for"):
        rows(posts(job=job_of(first)))


def test_an_answer_that_is_lost_does_not_run_the_query_twice(
    posts: Posts, proxy: Proxy, months: dict[str, list[Post]], bigquery_emulator: Emulator
) -> None:
    proxy.loses_answers = 1
    source = posts()
    assert rows(source) == wanted(months["2019_08"])
    assert [job.get("dryRun", False) for job in proxy.jobs] == [True, False, False]
    with bigquery_emulator.client() as client:
        assert client.get_job(job_of(source)).state == "DONE"


# --- interruptions ---


def after(condition: Callable[[], object], act: Callable[[], None]) -> threading.Thread:
    """Act as soon as the condition holds, in a thread of its own."""

    def wait() -> None:
        end = time.monotonic() + 60
        while not condition() and time.monotonic() < end:
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_job_is_cancelled(
    posts: Posts, proxy: Proxy, bigquery_emulator: Emulator, number: signal.Signals
) -> None:
    handler = signal.getsignal(number)
    thread = after(lambda: len(proxy.jobs) == 2 and polls(proxy), lambda: os.kill(os.getpid(), number))
    with pytest.raises(Interrupted) as error:
        rows(posts(), LONG_QUERY)
    thread.join()
    assert error.value.exit_code == 130
    assert str(error.value).endswith(": cancelled; what it has read until now may be billed")
    job = str(error.value).split()[2].rstrip(":")
    with bigquery_emulator.client() as client:
        assert client.get_job(job).error_result["reason"] == "stopped"
    assert signal.getsignal(number) is handler


def polls(proxy: Proxy) -> int:
    """How often a job was looked at."""
    return sum(method == "GET" and "/jobs/" in path for method, path in proxy.requests)


def test_a_job_that_can_not_be_cancelled_is_named(posts: Posts, proxy: Proxy, bigquery_emulator: Emulator) -> None:
    proxy.no_cancel = Fault(403, "accessDenied", "Access Denied")
    thread = after(lambda: len(proxy.jobs) == 2 and polls(proxy), lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted) as error:
        rows(posts(), LONG_QUERY)
    thread.join()
    job = str(error.value).split()[2].rstrip(":")
    assert str(error.value) == (
        f"BigQuery job {job}: interrupted, but it could not be cancelled (Forbidden) and may go on, and be billed; "
        f"--job {job} reads its result"
    )
    with bigquery_emulator.client() as client:
        client.cancel_job(job)


def test_interrupted_while_the_result_is_read(posts: Posts) -> None:
    source = posts(page_rows=100, few_rows=REST)
    with pytest.raises(Interrupted) as error, source:
        for _ in source.run(SQL, PARAMETERS):
            raise KeyboardInterrupt
    job = job_of(source)
    assert str(error.value) == f"BigQuery job {job}: interrupted; --job {job} reads its result without paying again"
    assert rows(posts(job=job))


def test_interrupted_before_anything_is_run(posts: Posts) -> None:
    with (
        pytest.raises(Interrupted, match=r"^BigQuery: interrupted before the query was run; nothing is billed$"),
        posts(),
    ):
        raise KeyboardInterrupt


def test_a_job_cancelled_by_someone_else(posts: Posts, proxy: Proxy, bigquery_emulator: Emulator) -> None:
    def cancel() -> None:
        with bigquery_emulator.client() as client:
            client.cancel_job(proxy.job_ids[-1])

    thread = after(lambda: len(proxy.jobs) == 2 and polls(proxy), cancel)
    with pytest.raises(RedditgenError, match=r"^BigQuery job redditgen-\S+: was cancelled by someone; run the same"):
        rows(posts(), LONG_QUERY)
    thread.join()


# --- what goes wrong ---

DENIED = (
    "Access Denied: Project fh-bigquery: User does not have bigquery.jobs.create permission in project fh-bigquery."
)
BILLING = "Billing has not been enabled for this project. Enable billing at https://console.cloud.google.com/billing"
FREE = "Quota exceeded: Your project exceeded quota for free query bytes scanned. For more information, see https://x.y"
API_OFF = "BigQuery API has not been used in project 123 before or it is disabled."
RATE = "Exceeded rate limits: too many concurrent queries for this project_and_region."
ELSEWHERE = "Not found: Dataset fh-bigquery:reddit_posts was not found in location EU"

FAULTS = {
    "denied": (
        Fault(403, "accessDenied", DENIED),
        RedditgenError,
        f"BigQuery: {DENIED[:-1]}; either the account may not run jobs in project fh-bigquery (it needs the role "
        "BigQuery Job User; another project: --project), or fh-bigquery.reddit_posts.2019_08 is hidden from it or not "
        "there",
    ),
    "denied by name": (
        Fault(403, "accessDenied", "Access Denied: User jane.doe@example.com does not have permission"),
        RedditgenError,
        "BigQuery: Access Denied: User (account) does not have permission; either the account may not run jobs in "
        "project fh-bigquery (it needs the role BigQuery Job User; another project: --project), or "
        "fh-bigquery.reddit_posts.2019_08 is hidden from it or not there",
    ),
    "billing": (
        Fault(403, "billingNotEnabled", BILLING),
        RedditgenError,
        "BigQuery: billing is not enabled for project fh-bigquery; enable it at "
        "https://console.cloud.google.com/billing, name another with --project, or read local files: --from FILE",
    ),
    "free bytes used up": (
        Fault(403, "quotaExceeded", FREE),
        RedditgenError,
        "BigQuery: project fh-bigquery has used up the month's free 1 TiB; it is renewed on the first of the next "
        "month, or enable billing at https://console.cloud.google.com/billing, or read local files: --from FILE",
    ),
    "another quota": (
        Fault(403, "quotaExceeded", "Quota exceeded: too many jobs."),
        RedditgenError,
        "BigQuery: Quota exceeded: too many jobs (quotaExceeded); wait, or raise project fh-bigquery's quota at "
        "https://console.cloud.google.com/iam-admin/quotas, or read local files: --from FILE",
    ),
    "API off": (
        Fault(403, "accessNotConfigured", API_OFF),
        RedditgenError,
        "BigQuery: its API is switched off in project fh-bigquery; switch it on at "
        "https://console.cloud.google.com/apis/library/bigquery.googleapis.com?project=fh-bigquery",
    ),
    "wrong location": (
        Fault(404, "notFound", ELSEWHERE),
        MissingError,
        f"BigQuery: {ELSEWHERE}; correct --table or --months, or --location (now US)",
    ),
    "not logged in": (
        Fault(401, "authError", "Request had invalid authentication credentials."),
        MissingError,
        "BigQuery: the login was refused; log in again: gcloud auth application-default login",
    ),
    "too large": (
        Fault(400, "resourcesExceeded", "Resources exceeded during query execution: out of memory."),
        RedditgenError,
        "BigQuery: Resources exceeded during query execution: out of memory; the query is too large for it: read "
        "fewer --months",
    ),
    "unheard of": (
        Fault(418, "teapot", "I'm a\nteapot."),
        RedditgenError,
        "BigQuery: I'm a teapot (teapot); project fh-bigquery, fh-bigquery.reddit_posts.2019_08",
    ),
    "a page": (
        Fault(404, "", "<html>not here</html>"),
        RedditgenError,
        "BigQuery: NotFound (404); project fh-bigquery, fh-bigquery.reddit_posts.2019_08",
    ),
}
PASSING = {
    "rate limit": (Fault(403, "rateLimitExceeded", RATE), "rateLimitExceeded"),
    "busy": (Fault(503, "backendError", "The service is currently unavailable."), "backendError"),
    "broken gateway": (Fault(502, "", "<html>bad gateway</html>"), "502"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line_with_the_remedy(posts: Posts, proxy: Proxy, name: str) -> None:
    proxy.ever, kind, message = FAULTS[name]
    with pytest.raises(RedditgenError) as error:
        rows(posts())
    assert (type(error.value), str(error.value)) == (kind, message)
    assert error.value.exit_code == 1
    assert len(proxy.jobs) == 1  # nothing is tried again


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_job_itself_reads_the_same(posts: Posts, proxy: Proxy, name: str) -> None:
    fault, kind, message = FAULTS[name]
    proxy.first, proxy.ever = [None], fault
    with pytest.raises(RedditgenError) as error:
        rows(posts())
    assert (type(error.value), str(error.value).partition("; if the job")[0]) == (kind, message)
    assert [job.get("dryRun") for job in proxy.jobs] == [True, None]


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_tried_again_and_said(
    posts: Posts, proxy: Proxy, months: dict[str, list[Post]], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.INFO)
    fault, word = PASSING[name]
    proxy.first = [fault, fault]
    assert rows(posts(patience=20)) == wanted(months["2019_08"])
    assert len(proxy.jobs) == 4
    assert [line for line in caplog.messages if "trying again" in line] == [
        f"BigQuery: {'BadGateway' if word == '502' else word}; trying again for up to 20 s"
    ]


@pytest.mark.parametrize("name", PASSING)
def test_what_does_not_pass_ends_after_the_patience(posts: Posts, proxy: Proxy, name: str) -> None:
    fault, word = PASSING[name]
    proxy.ever = fault
    assert refusal(posts(patience=1.5)) == f"BigQuery: busy or out of order ({word}), tried for 2 s; try again later"


def test_a_job_that_fails_says_why(posts: Posts, proxy: Proxy) -> None:
    proxy.of_job = {"reason": "billingNotEnabled", "message": BILLING}
    with pytest.raises(
        RedditgenError, match=r"^BigQuery: billing is not enabled for project fh-bigquery; enable it at"
    ):
        rows(posts())


def test_no_server(posts: Posts, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", f"127.0.0.1:{free.getsockname()[1]}")
        said = refusal(posts(patience=1))
    assert said == (
        "BigQuery: no connection (ConnectionError), tried for 1 s; check the network and the proxy, "
        "or read local files: --from FILE"
    )


def test_the_server_goes_while_the_job_runs(posts: Posts, proxy: Proxy, bigquery_emulator: Emulator) -> None:
    proxy.of_polls = Fault(503, "backendError", "gone")
    said = refusal(posts(patience=1), sql=LONG_QUERY)
    job = proxy.job_ids[-1]
    assert said == (
        "BigQuery: busy or out of order (backendError), tried for 1 s; try again later; if the job has started, "
        f"--job {job} reads its result"
    )
    with bigquery_emulator.client() as client:
        client.cancel_job(job)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("2019_07", "; there are 2019_08, 2017_02, 2017_01, 2018_12"),
        ("full_corpus", "; there are full_corpus_201509"),
        ("zzz", ""),
    ],
)
def test_a_table_that_is_not_there_names_those_like_it(posts: Posts, table: str, told: str) -> None:
    said = refusal(posts(table=f"{PROJECT}.{DATASET}.{table}"), MissingError)
    assert said.startswith(
        f"BigQuery: Not found: Table fh-bigquery:reddit_posts.{table} was not found in location US{told}"
    )
    assert said.endswith("; correct --table or --months, or --location (now US)")


def test_a_dataset_that_is_not_there(posts: Posts) -> None:
    with pytest.raises(
        MissingError, match=r"^BigQuery: Not found: Dataset fh-bigquery:reddit_comments was not found in"
    ):
        rows(posts(table=f"{PROJECT}.reddit_comments.2019_08"))


def test_a_wildcard_without_tables(posts: Posts) -> None:
    with pytest.raises(MissingError, match=r"99\* does not match any table; correct --table or --months$"):
        rows(posts(table=f"{PROJECT}.{DATASET}.99*"))


def test_months_without_tables(posts: Posts) -> None:
    assert refusal(posts(months="2019_09:2020_03"), MissingError) == (
        "BigQuery: fh-bigquery.reddit_posts has no table for 2019_09 to 2020_03; it has 2017_01 to 2019_08; "
        "correct --months"
    )


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT nope FROM `fh-bigquery.reddit_posts.2019_08`", "Unrecognized name: nope"),
        ("SELECT @nope", "Query parameter 'nope' not found"),
        ("SELECT 1 + 'a'", ""),
    ],
)
def test_a_query_that_bigquery_refuses(posts: Posts, sql: str, said: str) -> None:
    message = refusal(posts(), InputError, sql)
    assert message.startswith(f"BigQuery can't run the query: {said}")
    assert message.endswith("; correct the SQL, or --table")
    assert "\n" not in message and "\x1b" not in message


def test_bigquery_has_the_last_word_on_what_is_a_select(posts: Posts, proxy: Proxy) -> None:
    proxy.changes = {"statementType": "SCRIPT"}
    with pytest.raises(InputError, match=r"^the query must be one SELECT; BigQuery takes it for SCRIPT$"):
        rows(posts(), "SELECT 1")
    assert len(proxy.jobs) == 1


def test_a_query_that_writes_is_not_sent(posts: Posts, proxy: Proxy) -> None:
    with pytest.raises(InputError, match="must be one SELECT"):
        rows(posts(), "DROP TABLE `fh-bigquery.reddit_posts.2019_08`")
    assert not proxy.requests


def test_an_id_that_is_none(posts: Posts) -> None:
    with pytest.raises(UsageError, match=r"^--job must be a job's id as fetch printed it, not 'US\.x/y'$"):
        posts(job="US.x/y")
