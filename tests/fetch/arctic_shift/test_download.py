"""Posts from a server on this machine that answers like Arctic Shift's API (arctic_shift_server.py)."""

import email.utils
import gzip
import itertools
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from redditgen import __version__
from redditgen.errors import InputError, Interrupted, MissingError, RedditgenError, UsageError
from redditgen.fetch.arctic_shift import api
from redditgen.fetch.arctic_shift.download import FetchedPosts, fetch_posts
from redditgen.fetch.arctic_shift.request import parse_subreddits, parse_time
from redditgen.fetch.local import files
from redditgen.fetch.local.posts import LocalPosts
from redditgen.fetch.sql.columns import DUMP_COLUMN_TYPES
from redditgen.files.locks import exclusive_lock
from redditgen.runtime.http import redact_url
from tests.support.arctic_shift_server import JSON, ArcticShift, Fault, refusal
from tests.support.local_server import serving

BEGIN = 1704067200  # 2024-01-01
DAY = 86400
HTML = {"Content-Type": "text/html; charset=UTF-8"}

Fetch = Callable[..., list[FetchedPosts]]

pytestmark = pytest.mark.usefixtures("no_proxy")


def post(number: int, created: Any = None, subreddit: str = "cats", **more: Any) -> dict[str, Any]:
    return {
        "id": f"p{number:05}",
        "subreddit": subreddit,
        "title": f"Title {number}",
        "author": f"author{number % 7}",
        "score": number,
        "created_utc": BEGIN + 10 * number if created is None else created,
        "num_comments": 3,
        "over_18": False,
        "selftext": "long " * 50,
    } | more


@pytest.fixture
def server() -> Iterator[ArcticShift]:
    with serving(ArcticShift([post(number) for number in range(250)])) as running:
        yield running


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been waited, in whole seconds, in this process; the clock goes on as if it had been."""
    waited: list[float] = []
    monotonic = time.monotonic
    monkeypatch.setattr("time.sleep", lambda seconds: waited.append(round(seconds)))
    monkeypatch.setattr("time.monotonic", lambda: monotonic() + sum(waited))
    return waited


@pytest.fixture
def fetch(server: ArcticShift, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Fetch:
    """Fetches r/cats since 2024 from the server."""
    caplog.set_level(logging.INFO, logger="redditgen")

    def fetch_them(**changes: Any) -> list[FetchedPosts]:
        usual: dict[str, Any] = {
            "subreddits": ["cats"],
            "after": "2024-01-01",
            "before": "",
            "limit": 1000,
            "folder": tmp_path / "api",
            "base_url": server.url,
        }
        return fetch_posts(**(usual | changes))

    return fetch_them


def ids(fetched: FetchedPosts) -> list[str]:
    return [row["id"] for row in rows(fetched.path)]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def expected(count: int) -> list[str]:
    return [f"p{number:05}" for number in range(count)]


def texts(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("redditgen")]


# --- What goes well ---


def test_all_posts_come_once_and_in_order(fetch: Fetch) -> None:
    (fetched,) = fetch()
    assert ids(fetched) == expected(250)
    assert (fetched.subreddit, fetched.posts, fetched.skipped) == ("cats", 250, 0)


@pytest.mark.parametrize("auto", [7, 100, 1000])
@pytest.mark.parametrize("after_includes", [True, False])
@pytest.mark.parametrize("per_second", [1, 2, 3])
def test_posts_of_one_second_at_a_pages_end_are_neither_lost_nor_doubled(
    fetch: Fetch, server: ArcticShift, auto: int, after_includes: bool, per_second: int
) -> None:
    server.posts = [post(number, BEGIN + number // per_second) for number in range(230)]
    server.auto, server.after_includes = auto, after_includes
    (fetched,) = fetch(limit=500)
    assert ids(fetched) == expected(230)


def test_posts_of_one_second_may_come_in_another_order_each_time(fetch: Fetch, server: ArcticShift) -> None:
    server.posts = [post(number, BEGIN + number // 30) for number in range(230)]
    server.auto, server.shuffles = 100, True
    (fetched,) = fetch()
    assert sorted(ids(fetched)) == expected(230)


@pytest.mark.parametrize("limit", [1, 2, 99, 100, 101, 249])
@pytest.mark.parametrize("auto", [100, 1000])
@pytest.mark.parametrize("after_includes", [True, False])
def test_the_limit_is_of_posts_of_each_subreddit(
    fetch: Fetch, server: ArcticShift, limit: int, auto: int, after_includes: bool
) -> None:
    server.posts += [post(number, subreddit="dogs") for number in range(1000, 1300)]
    server.auto, server.after_includes = auto, after_includes
    cats, dogs = fetch(subreddits=["cats,dogs"], limit=limit)
    assert ids(cats) == expected(limit)
    assert ids(dogs) == [f"p{number:05}" for number in range(1000, 1000 + limit)]


def test_no_more_is_asked_for_than_is_wanted(fetch: Fetch, server: ArcticShift) -> None:
    fetch(limit=40)
    assert [query["limit"] for query in server.queries] == ["40"]


@pytest.mark.parametrize("includes", [True, False])
def test_after_is_included_and_before_is_not(fetch: Fetch, server: ArcticShift, includes: bool) -> None:
    server.posts = [post(number, BEGIN + number) for number in range(-3, 20)]
    server.before_includes = server.after_includes = includes
    (fetched,) = fetch(after=str(BEGIN + 1), before=str(BEGIN + 4))
    assert ids(fetched) == ["p00001", "p00002", "p00003"]


def test_posts_of_the_second_at_which_the_span_ends_are_not_paged_through(fetch: Fetch, server: ArcticShift) -> None:
    server.before_includes = True
    server.posts = [post(0)] + [post(number, BEGIN + DAY) for number in range(1, 300)]
    (fetched,) = fetch(before=str(BEGIN + DAY))
    assert ids(fetched) == expected(1)
    assert len(server.queries) == 2


def test_a_post_before_the_span_takes_no_place_in_it(fetch: Fetch, server: ArcticShift) -> None:
    server.posts = [post(0, BEGIN - 1), post(1, BEGIN)]
    (fetched,) = fetch(limit=1)
    assert ids(fetched) == ["p00001"]


def test_what_is_asked_for(fetch: Fetch, server: ArcticShift) -> None:
    fetch(before="2024-02-01")
    assert server.queries[0] == {
        "subreddit": "cats",
        "after": str(BEGIN - 1),
        "before": str(BEGIN + 31 * DAY),
        "sort": "asc",
        "limit": "auto",
    }
    fetch(limit=10)
    assert "before" not in server.queries[-1]


def test_requests_name_redditgen_and_carry_no_credentials(fetch: Fetch, server: ArcticShift) -> None:
    fetch()
    for headers in server.headers_seen:
        assert headers["User-Agent"] == f"redditgen/{__version__}"
        assert headers["Accept-Encoding"] == "gzip"
        assert not {"authorization", "cookie"} & {name.lower() for name in headers}


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("https://me:secret@host:81/a//b@c?key=secret#secret", "https://host:81/a//b@c"),
        ("https://secret@host", "https://host"),
        ("https://me:sec@ret@host/a", "https://host/a"),
        ("https://me:s[ecret@host/a", "https://host/a"),
        ("https://me:s\u2100ecret@host/a", "https://host/a"),
        ("https://host/a?b@c", "https://host/a"),
        ("HTTP://[::1]:80/", "HTTP://[::1]:80/"),
    ],
)
def test_addresses_are_told_without_what_may_be_a_secret(address: str, told: str) -> None:
    assert redact_url(address) == told
    assert redact_url(httpx.URL(address)) == str(httpx.URL(told))


def test_one_request_at_a_time_with_a_pause_between(fetch: Fetch, server: ArcticShift, waits: list[float]) -> None:
    server.auto = 100
    fetch()
    assert server.most_together == 1
    assert waits == [1] * (len(server.queries) - 1)


def test_what_leaves_the_machine_is_said_before_it_does(
    fetch: Fetch, server: ArcticShift, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults = [refusal(403, "no")]
    with pytest.raises(MissingError):
        fetch(subreddits=["cats", "AskReddit"], before="2024-02-01T06:00", base_url=f"{server.url}?key=secret")
    assert texts(caplog) == [
        f"asking {server.url}/api/posts/search for r/cats, r/AskReddit, the first 1000 posts each "
        "since 2024-01-01 00:00:00 UTC until 2024-02-01 06:00:00 UTC: 2 to 22 requests, one at a time, up to about "
        f"66 s; nothing else is sent, no account is needed; posts are kept in {tmp_path / 'api'}"
    ]


def test_so_many_posts_that_dumps_are_better_are_warned_of(
    fetch: Fetch, server: ArcticShift, caplog: pytest.LogCaptureFixture
) -> None:
    fetch(limit=2_000_000)
    assert any("monthly dumps such as RS_2024-01.zst are made for it" in text for text in texts(caplog))


# --- What is in the files ---


def test_the_local_source_reads_them(fetch: Fetch, server: ArcticShift) -> None:
    titles = ['"', "a\nb", "a\0b", "half \ud83d", "\u202eright to left", "&amp; \U0001f408", "long " * 200_000, "'; --"]
    server.posts = [post(number, title=title) for number, title in enumerate(titles)]
    (fetched,) = fetch()
    with LocalPosts(files.find_posts_files([str(fetched.path)])) as posts:
        read = list(posts.run(f"SELECT title, score FROM `{posts.table}` ORDER BY id", {}))
    assert [title for title, _ in read] == [title.replace("\ud83d", "\ufffd") for title in titles]
    assert [score for _, score in read] == list(range(len(titles)))


def test_every_line_has_all_columns(fetch: Fetch, server: ArcticShift) -> None:
    server.auto = 100
    server.posts[150] |= {"quarantine": True, "subreddit_type": "public", "removed_by_category": "moderator"}
    (fetched,) = fetch()
    read = rows(fetched.path)
    assert {tuple(row) for row in read} == {tuple(DUMP_COLUMN_TYPES)}
    assert read[150] | {"quarantine": True, "subreddit_type": "public"} == read[150]
    assert [row["removed_by_category"] for row in read].count("moderator") == 1


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ({"score": "12"}, {"score": 12}),
        ({"score": 12.0}, {"score": 12}),
        ({"score": "many"}, {"score": None}),
        ({"score": 10**30}, {"score": None}),
        ({"score": float("nan")}, {"score": None}),
        ({"score": True}, {"score": None}),
        ({"created_utc": str(BEGIN)}, {"created_utc": BEGIN}),
        ({"created_utc": f"{BEGIN}.0"}, {"created_utc": BEGIN}),
        ({"over_18": 1}, {"over_18": True}),
        ({"over_18": "False"}, {"over_18": False}),
        ({"over_18": [0]}, {"over_18": None}),
        ({"author": None}, {"author": None}),
        ({"author": {"name": "x"}}, {"author": None}),
    ],
)
def test_values_of_other_types(fetch: Fetch, server: ArcticShift, sent: dict[str, Any], kept: dict[str, Any]) -> None:
    server.posts = [post(0) | sent]
    (fetched,) = fetch()
    (row,) = rows(fetched.path)
    assert row | kept == row


def test_posts_without_what_a_post_needs_are_left_out_and_counted(
    fetch: Fetch, server: ArcticShift, caplog: pytest.LogCaptureFixture
) -> None:
    server.auto = 5
    without: list[dict[str, Any]] = [{"id": None}, {"id": ""}, {"title": None}, {"title": 5}, {"subreddit": None}]
    bad = [post(900 + number, BEGIN + 10 * number) | lack for number, lack in enumerate(without)]
    server.posts = sorted([post(number) for number in range(12)] + bad, key=lambda content: content["created_utc"])
    server.heeds_subreddit = False
    (fetched,) = fetch()
    assert ids(fetched) == expected(12)
    assert fetched.skipped == len(bad)
    assert "r/cats: left out 5 posts without id, title or time" in texts(caplog)


def test_what_is_no_post_at_all_is_left_out_and_counted(fetch: Fetch, server: ArcticShift) -> None:
    timeless = {key: value for key, value in post(3).items() if key != "created_utc"}
    page: list[Any] = [None, 5, "post", [], {}, timeless, timeless | {"created_utc": 10**15}, post(1)]
    server.faults = [Fault(200, json.dumps({"data": page}).encode(), JSON)]
    server.posts = []
    (fetched,) = fetch()
    assert ids(fetched) == ["p00001"]
    assert fetched.skipped == 6  # the last two have the same id


def test_posts_without_a_time_alone_are_no_reason_to_ask_on(fetch: Fetch, server: ArcticShift) -> None:
    pages_without = [json.dumps({"data": [{"title": str(number)}]}).encode() for number in range(30)]
    server.faults = [None, *(Fault(200, page, JSON) for page in pages_without)]
    assert fetch()[0].posts == 250
    assert len(server.queries) == 2


def test_a_post_that_comes_twice_in_a_page_is_kept_once(fetch: Fetch, server: ArcticShift) -> None:
    server.posts = [post(0), post(0), post(1)]
    (fetched,) = fetch()
    assert ids(fetched) == expected(2)


def test_the_sidecar_says_what_was_asked_for_and_no_secret(fetch: Fetch, server: ArcticShift) -> None:
    (fetched,) = fetch(base_url=server.url.replace("//", "//user:secret@") + "?key=secret", before="2024-02-01")
    text = Path(f"{fetched.path}.meta.json").read_text(encoding="utf8")
    assert "secret" not in text
    said = json.loads(text)
    assert said["settings"] == {
        "base_url": f"{server.url}/api/posts/search",
        "subreddit": "cats",
        "after": BEGIN,
        "before": BEGIN + 31 * DAY,
        "limit": 1000,
    }
    assert (said["posts"], said["skipped"], said["crowded"]) == (250, 0, [])


def test_posts_too_young_for_a_score_are_warned_of(
    fetch: Fetch, server: ArcticShift, caplog: pytest.LogCaptureFixture
) -> None:
    server.posts = [post(0), post(1, int(time.time()) - DAY)]
    fetch()
    assert "r/cats: posts get their score after 36 hours; of the latest it is 1 or 0" in texts(caplog)


# --- What is there already ---


def test_what_was_fetched_is_not_asked_for_again(
    fetch: Fetch, server: ArcticShift, caplog: pytest.LogCaptureFixture
) -> None:
    before = fetch()
    caplog.clear()
    server.queries.clear()
    assert fetch(subreddits=["CATS"]) == [FetchedPosts(before[0].path, "CATS", 250, 0)]
    assert server.queries == []
    (text,) = texts(caplog)
    assert text.startswith("r/CATS: 250 posts, fetched 2") and text.endswith(" UTC; --refresh asks anew")


def test_only_the_subreddit_that_is_not_there_is_asked_for(fetch: Fetch, server: ArcticShift) -> None:
    fetch()
    server.posts += [post(900, subreddit="dogs")]
    server.queries.clear()
    assert [fetched.subreddit for fetched in fetch(subreddits=["dogs", "cats"])] == ["dogs", "cats"]
    assert {query["subreddit"] for query in server.queries} == {"dogs"}


@pytest.mark.parametrize("change", [{"limit": 10}, {"after": "2024-01-02"}, {"before": "2025-01-01"}])
def test_with_other_parameters_it_begins_anew(fetch: Fetch, server: ArcticShift, change: dict[str, Any]) -> None:
    server.posts.append(post(249, BEGIN + 2 * DAY))
    first = fetch()
    server.queries.clear()
    second = fetch(**change)
    assert server.queries
    assert second[0].path != first[0].path
    assert fetch() == first


def test_another_server_is_asked_anew(fetch: Fetch, server: ArcticShift) -> None:
    fetch()
    with serving(ArcticShift([post(1)])) as other:
        assert fetch(base_url=other.url)[0].posts == 1


def test_refresh_asks_anew(fetch: Fetch, server: ArcticShift) -> None:
    (before,) = fetch()
    server.posts[0]["score"] = 99
    (after,) = fetch(refresh=True)
    assert after == before
    assert rows(after.path)[0]["score"] == 99


def test_a_refresh_that_fails_leaves_what_was_there(fetch: Fetch, server: ArcticShift) -> None:
    (before,) = fetch()
    content = before.path.read_bytes()
    server.always = refusal(500, "Internal error")
    with pytest.raises(MissingError, match="0 posts of r/cats are kept; the same command without --refresh goes on"):
        fetch(refresh=True)
    assert before.path.read_bytes() == content
    assert fetch() == [before]


def test_a_refresh_that_stops_halfway_goes_on_without_refresh(fetch: Fetch, server: ArcticShift) -> None:
    fetch()
    server.posts[0]["score"], server.posts[-1]["score"] = 99, 98
    server.auto, server.faults, server.always = 100, [None], refusal(500, "Internal error")
    with pytest.raises(MissingError, match="100 posts of r/cats are kept"):
        fetch(refresh=True)
    server.always = None
    (after,) = fetch()
    read = rows(after.path)
    assert (len(read), read[0]["score"], read[-1]["score"]) == (250, 99, 98)


def test_a_refresh_begins_anew_where_another_stopped_halfway(fetch: Fetch, server: ArcticShift) -> None:
    server.auto = 100
    stopped(fetch, server, 2)
    server.posts[0]["score"] = 99
    (fetched,) = fetch(refresh=True)
    assert rows(fetched.path)[0]["score"] == 99


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"posts": 3', '{"posts": 3}'])
def test_a_file_without_its_sidecar_is_fetched_anew(fetch: Fetch, server: ArcticShift, content: str | None) -> None:
    (before,) = fetch()
    sidecar = Path(f"{before.path}.meta.json")
    sidecar.unlink() if content is None else sidecar.write_text(content, encoding="utf8")
    server.queries.clear()
    assert fetch() == [before]
    assert server.queries


def test_nothing_else_is_left_in_the_folder(fetch: Fetch, tmp_path: Path) -> None:
    (fetched,) = fetch()
    assert {path.name for path in (tmp_path / "api").iterdir()} == {
        fetched.path.name,
        f"{fetched.path.name}.meta.json",
    }


# --- Going on where it stopped ---


def stopped(fetch: Fetch, server: ArcticShift, pages_that_come: int) -> None:
    server.faults = [None] * pages_that_come
    server.always = refusal(503, "Service unavailable")
    with pytest.raises(MissingError):
        fetch()
    server.always = None
    server.queries.clear()


def test_it_goes_on_from_the_last_page(fetch: Fetch, server: ArcticShift, caplog: pytest.LogCaptureFixture) -> None:
    server.auto = 100
    stopped(fetch, server, 2)
    caplog.clear()
    (fetched,) = fetch()
    assert ids(fetched) == expected(250)
    assert server.queries[0]["after"] == str(BEGIN + 1980 - 1)  # the second page began with the last post of the first
    assert (
        " UTC (199 are here from an earlier try): 1 to 10 requests, one at a time, up to about 30 s" in texts(caplog)[0]
    )


def test_what_was_left_out_before_is_counted_once(fetch: Fetch, server: ArcticShift) -> None:
    server.auto = 10
    server.posts = [post(number, BEGIN + number // 3) for number in range(30)]
    server.posts[8]["title"] = server.posts[9]["id"] = server.posts[10]["title"] = None
    stopped(fetch, server, 1)
    (fetched,) = fetch()
    assert (fetched.posts, fetched.skipped) == (27, 3)


def test_pages_cut_anywhere_lead_to_the_same_file(fetch: Fetch, server: ArcticShift, tmp_path: Path) -> None:
    server.auto = 6
    server.posts = [post(number, BEGIN + number // 2, title="é\n[" * 3) for number in range(20)]
    stopped(fetch, server, 3)
    (growing,) = (tmp_path / "api").glob(".*.pages")
    content = growing.read_bytes()
    (whole,) = fetch()
    good = whole.path.read_bytes()
    before_last_newlines = [match.start() for match in re.finditer(rb"\n(?=\{|\Z)", content)]
    for place in (*range(0, len(content), 211), *before_last_newlines):
        whole.path.unlink()
        growing.write_bytes(content[:place])
        (again,) = fetch()
        assert again.path.read_bytes() == good


@pytest.mark.parametrize(
    "tail", [b"[]\n", b"[1]\n", b"[{}]\n", b'[{"cursor": 1}]\n', b"\0" * 100, b"[\xff]\n", b'{"id"']
)
def test_what_is_behind_the_last_page_is_cut_off(
    fetch: Fetch, server: ArcticShift, tmp_path: Path, tail: bytes
) -> None:
    server.auto = 100
    stopped(fetch, server, 2)
    (growing,) = (tmp_path / "api").glob(".*.pages")
    with growing.open("ab") as file:
        file.write(tail)
    (fetched,) = fetch()
    assert ids(fetched) == expected(250)


KILLED = """
import sys, time
from pathlib import Path
from redditgen.errors import RedditgenError
from redditgen.fetch.arctic_shift.download import fetch_posts
time.sleep = lambda seconds: None
try:
    fetch_posts(["cats"], "2024-01-01", "", 1000, Path(sys.argv[2]), base_url=sys.argv[1])
except RedditgenError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
@pytest.mark.parametrize("halt_at", [1, 2, 4])
def test_ended_in_the_middle_of_an_answer_it_goes_on(
    server: ArcticShift, fetch: Fetch, tmp_path: Path, number: int, code: int, halt_at: int
) -> None:
    server.auto, server.halt_at = 70, halt_at
    folder = tmp_path / "api"
    command = [sys.executable, "-c", KILLED, server.url, str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert server.halted.wait(60)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code
    if code == 130:
        assert said == f"fetch interrupted; what has come is in {folder}, and the same command goes on from here\n"
    assert not list(folder.glob("*.ndjson"))
    server.halt_at = sys.maxsize
    server.queries.clear()
    (fetched,) = fetch()
    assert ids(fetched) == expected(250)
    assert (server.queries[0]["after"] == str(BEGIN - 1)) == (halt_at == 1)


def test_ctrl_c_while_waiting_is_one_line(fetch: Fetch, server: ArcticShift, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    server.auto = 100
    with monkeypatch.context() as patch:
        patch.setattr("time.sleep", interrupt)
        with pytest.raises(Interrupted, match=r"^fetch interrupted; .* the same command goes on from here$"):
            fetch()
    assert ids(fetch()[0]) == expected(250)


def test_two_at_once_do_not_mix(fetch: Fetch, server: ArcticShift, tmp_path: Path) -> None:
    (tmp_path / "api").mkdir()
    said = r"another redditgen .*is fetching to it; wait"
    with exclusive_lock(tmp_path / "api", "fetching to it"), pytest.raises(RedditgenError, match=said):
        fetch()
    assert server.queries == []
    fetch()


def test_a_folder_that_cant_be_written_to(fetch: Fetch, server: ArcticShift, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf8")
    with pytest.raises(InputError, match=r"file/api: can't be written: Not a directory"):
        fetch(folder=tmp_path / "file/api")
    assert server.queries == []


def test_a_full_disk_is_one_line_and_loses_nothing(
    fetch: Fetch, server: ArcticShift, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.auto = 100

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(InputError, match=r"api: No space left on device; no posts can be kept there"):
            fetch()
    assert ids(fetch()[0]) == expected(250)


# --- What the user asks for ---


def test_names_of_subreddits() -> None:
    assert parse_subreddits(["cats, AskReddit", "r/Cats", "/r/dogs/", "u/some-one", "reddit.com"]) == [
        "cats",
        "AskReddit",
        "dogs",
        "u_some-one",
        "reddit.com",
    ]


@pytest.mark.parametrize(
    "name",
    ["a", "x" * 22, "cats&limit=5", "cats/../x", "cats dogs", "kätzchen", "cats\nx", "a-b", "r/", "cats?x", "c#"],
)
def test_what_is_no_name_goes_into_no_address(fetch: Fetch, server: ArcticShift, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"^--subreddit: '.*' is no subreddit's name; names have 2 to 21 letters"):
        fetch(subreddits=["cats", name])
    assert server.queries == []
    assert not (tmp_path / "api").exists()


@pytest.mark.parametrize("subreddits", [[], [""], [" , "]])
def test_no_name_at_all(fetch: Fetch, subreddits: list[str]) -> None:
    with pytest.raises(UsageError, match="--subreddit must name the subreddits to fetch, such as cats,AskReddit"):
        fetch(subreddits=subreddits)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("2024-01-01", BEGIN),
        ("20240101", BEGIN),
        ("2024-01-01T06:00", BEGIN + 6 * 3600),
        ("2024-01-01 06:00:00Z", BEGIN + 6 * 3600),
        ("2024-01-01T06:00+06:00", BEGIN),
        (str(BEGIN), BEGIN),
        ("1970-01-01", 1104537600),
        ("0001-01-01", 1104537600),
    ],
)
def test_moments(written: str, seconds: int) -> None:
    assert parse_time("--after", written) == seconds


@pytest.mark.parametrize("written", ["", "yesterday", "2024-13-01", "01.02.2024", "1e9", "-5", "17040672000000000"])
def test_what_is_no_moment(fetch: Fetch, server: ArcticShift, written: str) -> None:
    with pytest.raises(UsageError, match=r"^--after must be a date such as 2024-01-31, 2024-01-31T18:00, or Unix sec"):
        fetch(after=written)
    assert server.queries == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"before": "2023-01-01"}, r"^--after \(2024-01-01\) must be earlier than --before \(2023-01-01\)$"),
        ({"before": "2024-01-01"}, r"^--after \(2024-01-01\) must be earlier"),
        ({"before": "soon"}, r"^--before must be a date"),
        ({"limit": 0}, r"^--limit must be 1 or more, not 0$"),
        (
            {"base_url": "arctic-shift.photon-reddit.com"},
            r"^--base-url is no address; it must be like https://arctic-s",
        ),
        ({"base_url": "file:///etc"}, r"^--base-url is no address"),
        ({"base_url": "http://x:port"}, r"^--base-url is no address"),
    ],
)
def test_options_that_cant_be_meant(
    fetch: Fetch, server: ArcticShift, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        fetch(**changes)
    assert server.queries == []
    assert not (tmp_path / "api").exists()


def test_a_subreddit_without_posts_is_warned_of(fetch: Fetch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert [fetched.subreddit for fetched in fetch(subreddits=["nosuch", "cats"])] == ["cats"]
    assert "r/nosuch: no posts since 2024-01-01 00:00:00 UTC; check the name" in texts(caplog)
    assert not list((tmp_path / "api").glob("*nosuch*"))


def test_no_posts_at_all_is_an_error(fetch: Fetch, tmp_path: Path) -> None:
    message = (
        r"^r/nosuch, r/none: no posts since 2024-01-01 00:00:00 UTC until 2024-02-01 00:00:00 UTC; "
        "check --subreddit, --after and --before$"
    )
    with pytest.raises(InputError, match=message):
        fetch(subreddits=["nosuch", "none"], before="2024-02-01")
    assert not list((tmp_path / "api").iterdir())


# --- A server in trouble ---

AGAIN = "0 posts of r/cats are kept; the same command goes on from here$"

PASSING = {
    "500": (refusal(500, "Internal error"), r"/api/posts/search: Internal error \(500\); "),
    "503": (Fault(503, b"<html><title>Down</title>", HTML), r": Down \(503\); "),
    "502 of Cloudflare": (Fault(502, b"<html><title>Bad \n gateway</title>", HTML), r": Bad gateway \(502\); "),
    "522 with nothing": (Fault(522), r": no reason given \(522\); "),
    "429": (refusal(429, "slow"), r": slow \(429\): too many requests; "),
    "429 of a proxy": (Fault(429, b"<title>Wait</title>", HTML), r": Wait \(429\): too many requests; "),
    "422": (refusal(422, "Timeout. Maybe slow down a bit"), r": Timeout\. Maybe slow down a bit \(422\); "),
    "timed out": (refusal(400, "Query timed out"), r": Query timed out \(400\); "),
    "maintenance": (refusal(200, "Under maintenance"), r": Under maintenance \(200\); "),
    "silence": (Fault(silent=True), r": Server disconnected without sending a response\.; "),
    "cut": (Fault(200, b'{"data": []}' * 100, JSON, cut=5), r": peer closed connection .*; "),
    "cut without a word": (Fault(200, b'{"data": [{"id": "x', JSON), r": the answer is no whole JSON; "),
    "empty": (Fault(200, b"", JSON), r": the answer is no whole JSON; "),
    "not UTF-8": (Fault(200, b'{"data": ["\xff"]}', JSON), r": the answer is no whole JSON; "),
    "brackets": (Fault(200, b"[" * 100_000, JSON), r": the answer is no whole JSON; "),
    "digits": (Fault(200, b'{"data": [' + b"9" * 5000 + b"]}", JSON), r": the answer is no whole JSON; "),
}


@pytest.mark.parametrize("kind", PASSING)
def test_what_passes_is_waited_for(fetch: Fetch, server: ArcticShift, waits: list[float], kind: str) -> None:
    server.auto = 100
    server.faults = [PASSING[kind][0], None, PASSING[kind][0]]
    (fetched,) = fetch()
    assert ids(fetched) == expected(250)
    assert max(waits) == (60 if "429" in kind else 2)


@pytest.mark.parametrize("kind", PASSING)
def test_after_some_tries_it_gives_up_with_one_line(
    fetch: Fetch, server: ArcticShift, tmp_path: Path, waits: list[float], kind: str
) -> None:
    server.always = PASSING[kind][0]
    with pytest.raises(MissingError, match=PASSING[kind][1] + AGAIN) as raised:
        fetch()
    assert "\n" not in str(raised.value)
    assert len(server.queries) == 4
    assert 72 <= sum(waits) <= 183
    assert not list((tmp_path / "api").iterdir())


LASTING = {
    "the API's words": (
        refusal(400, "'after' must \n be a \x1b[31mdate"),
        r": 'after' must be a \[31mdate \(400\); check --subreddit, --after, --before and --base-url$",
    ),
    "an error that is none of HTTP's": (refusal(200, "Unknown subreddit"), r": Unknown subreddit \(200\); check"),
    "a long error": (refusal(400, "x" * 5000), r": x{200} \(400\); check"),
    "no words": (Fault(403, b"", JSON), r": no reason given \(403\); check"),
    "no list": (refusal(200, ""), r": answers without posts; is --base-url like https://arctic-shift\.photon-reddit"),
    "another API": (Fault(200, b'{"posts": []}', JSON), r": answers without posts; is --base-url like"),
    "no object": (Fault(200, b"[]", JSON), r": answers without posts; is --base-url like"),
    "Cloudflare": (
        Fault(403, b"<!DOCTYPE html><title>Just a moment...</title>", HTML | {"Server": "cloudflare"}),
        r": Cloudflare's 'Just a moment\.\.\.' \(403\) instead of JSON; open the address in a browser to see why, or",
    ),
    "a login page": (
        Fault(200, b" <html><head><TITLE id=x>Hotel</TITLE>", {}),
        r": a web page 'Hotel' \(200\) instead of JSON; open",
    ),
}


@pytest.mark.parametrize("kind", LASTING)
def test_what_does_not_pass_is_one_line_at_once(
    fetch: Fetch, server: ArcticShift, tmp_path: Path, waits: list[float], kind: str
) -> None:
    server.always = LASTING[kind][0]
    with pytest.raises(
        (MissingError, InputError), match=rf"^{server.url}/api/posts/search{LASTING[kind][1]}"
    ) as raised:
        fetch(base_url=f"{server.url}?key=secret")
    assert "\n" not in str(raised.value) and "secret" not in str(raised.value)
    assert len(server.queries) == 1
    assert waits == []
    assert not list((tmp_path / "api").iterdir())


def test_another_place_is_named(fetch: Fetch, server: ArcticShift) -> None:
    with pytest.raises(MissingError, match=r"/elsewhere/api/posts/search: a web page '404 Not Found' \(404\) instead"):
        fetch(base_url=f"{server.url}/elsewhere")


def test_a_server_that_is_not_there_is_not_waited_for(fetch: Fetch, waits: list[float], tmp_path: Path) -> None:
    with serving(ArcticShift([])) as other:
        url = other.url
    with pytest.raises(MissingError, match=rf"^{url}/api/posts/search: .*refused; {AGAIN}"):
        fetch(base_url=url)
    assert waits == []
    assert not list((tmp_path / "api").iterdir())


def test_a_server_that_goes_away_is_waited_for(fetch: Fetch, waits: list[float]) -> None:
    with serving(ArcticShift([post(number) for number in range(250)])) as other:
        other.auto = 100
        other.closes_after = 1
        with pytest.raises(MissingError, match=r"refused; 100 posts of r/cats are kept; the same command goes on"):
            fetch(base_url=other.url)
    assert sum(waits) >= 72


def test_too_large_an_answer_is_not_read_on(fetch: Fetch, server: ArcticShift, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_LARGEST_ANSWER", 1 << 20)
    server.always = Fault(200, gzip.compress(b" " * (5 << 20)), JSON | {"Content-Encoding": "gzip"})
    with pytest.raises(MissingError, match=r": one answer has more than 1 MB; 0 posts"):
        fetch()
    assert [query["limit"] for query in server.queries] == ["auto", "100", "50", "25"]


def test_too_slow_an_answer_is_not_read_on(fetch: Fetch, server: ArcticShift, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_LONGEST_ANSWER", -1)
    with pytest.raises(MissingError, match=r": one answer takes more than -1 s; 0 posts"):
        fetch()


def test_a_page_too_much_for_the_database_is_asked_for_smaller(fetch: Fetch, server: ArcticShift) -> None:
    server.too_many = 100
    (fetched,) = fetch()
    assert ids(fetched) == expected(250)
    assert [query["limit"] for query in server.queries][:4] == ["auto", "100", "50", "50"]


def test_smaller_pages_still_hold_more_than_one_second(fetch: Fetch, server: ArcticShift) -> None:
    server.too_many = 100
    server.posts = [post(number, BEGIN + number // 30) for number in range(240)]
    (fetched,) = fetch()
    assert ids(fetched) == expected(240)
    assert len(server.queries) < 20


def test_smaller_pages_hold_all_of_one_second(fetch: Fetch, server: ArcticShift) -> None:
    server.too_many = 100
    server.posts = [post(number, BEGIN + max(0, number - 65) * 5) for number in range(120)]
    (fetched,) = fetch()
    assert ids(fetched) == expected(120)


@pytest.mark.parametrize("after_includes", [True, False])
def test_more_posts_of_one_second_than_a_page_are_warned_of_and_passed(
    fetch: Fetch, server: ArcticShift, after_includes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server.auto, server.after_includes = 100, after_includes
    server.posts = [post(number, BEGIN + (number >= 5) + (number >= 200)) for number in range(210)]
    (fetched,) = fetch()
    got = ids(fetched)
    assert len(set(got)) == len(got)
    assert got[:100] == expected(100)
    assert got[-10:] == expected(210)[-10:]
    said = "r/cats: more posts at 2024-01-01 00:00:01 UTC than the API gives; the others of this second are left out"
    assert texts(caplog).count(said) == 1
    assert json.loads(Path(f"{fetched.path}.meta.json").read_bytes())["crowded"] == [BEGIN + 1]


def test_two_hundred_posts_of_one_second_fit_in_one_page(fetch: Fetch, server: ArcticShift) -> None:
    server.posts = [post(number, BEGIN + number // 200) for number in range(600)]
    (fetched,) = fetch()
    assert ids(fetched) == expected(600)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        (
            "heeds_after",
            False,
            r"answers with posts that were not asked for \(r/cats\); is --base-url like https://arc",
        ),
        ("heeds_subreddit", False, r"answers with posts that were not asked for \(r/dogs\)"),
        ("descending", True, r"posts of r/cats come in the wrong order; is --base-url like"),
    ],
)
def test_a_server_that_does_not_do_what_it_is_asked(
    fetch: Fetch, server: ArcticShift, tmp_path: Path, attribute: str, value: bool, message: str
) -> None:
    server.auto = 100
    setattr(server, attribute, value)
    with pytest.raises(InputError, match=message):
        fetch(subreddits=["dogs"] if attribute == "heeds_subreddit" else ["cats"])
    assert not list((tmp_path / "api").glob("*.ndjson"))


# --- The rate limit ---


def in_a_minute(form: str) -> str:
    moment = time.time() + 60
    return {
        "seconds": "60",
        "fraction": "59.7",
        "Unix seconds": f"{moment:.0f}",
        "Unix milliseconds": f"{1000 * moment:.0f}",
        "ISO": datetime.fromtimestamp(moment, UTC).isoformat(),
        "HTTP": email.utils.formatdate(moment, usegmt=True),
        "nothing": "",
        "nonsense": "soon",
    }[form]


FORMS = ["seconds", "fraction", "Unix seconds", "Unix milliseconds", "ISO", "HTTP", "nothing", "nonsense"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("remaining", ["0", "0.5", "-1"])
def test_no_request_is_sent_until_the_rate_limit_is_reset(
    fetch: Fetch, server: ArcticShift, waits: list[float], form: str, remaining: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.auto = 200
    server.headers = {"X-RateLimit-Remaining": remaining, "X-RateLimit-Reset": in_a_minute(form)}
    (fetched,) = fetch(limit=250)
    assert fetched.posts == 250
    assert len(waits) == len(server.queries) - 1 == 1
    assert waits[0] == pytest.approx(60, abs=2)
    assert any("its rate limit is used up; waiting" in text for text in texts(caplog))


@pytest.mark.parametrize("remaining", ["1", "1999", "many", ""])
def test_requests_that_are_left_are_used(fetch: Fetch, server: ArcticShift, waits: list[float], remaining: str) -> None:
    server.auto = 100
    server.headers = {"X-RateLimit-Remaining": remaining, "X-RateLimit-Reset": "60"}
    fetch()
    assert set(waits) == {1}


@pytest.mark.parametrize("form", FORMS)
def test_retry_after_is_waited_for(fetch: Fetch, server: ArcticShift, waits: list[float], form: str) -> None:
    server.faults = [refusal(429, "slow", **{"Retry-After": in_a_minute(form), "X-RateLimit-Reset": ""})]
    fetch(limit=100)
    assert waits == [pytest.approx(60, abs=2)]


def test_without_retry_after_the_reset_is_waited_for(fetch: Fetch, server: ArcticShift, waits: list[float]) -> None:
    server.faults = [refusal(429, "slow", **{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "33"})]
    fetch(limit=100)
    assert waits[0] == 33
    assert sum(waits) <= 34


def test_too_long_a_wait_is_left_to_the_user(fetch: Fetch, server: ArcticShift, waits: list[float]) -> None:
    server.faults = [refusal(429, "slow", **{"Retry-After": "3600"})]
    with pytest.raises(MissingError, match=rf": too many requests, and asks to wait 3600 s; {AGAIN}"):
        fetch()
    assert waits == []


def test_too_long_a_reset_is_left_to_the_user(fetch: Fetch, server: ArcticShift, waits: list[float]) -> None:
    server.auto = 100
    server.headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "3600"}
    with pytest.raises(
        MissingError, match=r": its rate limit is used up for 3[56]\d\d s; 100 posts of r/cats are kept"
    ):
        fetch()
    assert (len(server.queries), waits) == (1, [])
    server.headers = {}
    assert ids(fetch()[0]) == expected(250)


def test_pauses_hold_between_subreddits_too(fetch: Fetch, server: ArcticShift, waits: list[float]) -> None:
    server.posts += [post(900, subreddit=name) for name in ("dogs", "birds")]
    fetch(subreddits=["dogs", "birds"], limit=1)
    assert len(server.queries) == 2
    assert waits == [1]


def test_however_posts_lie_in_seconds_and_pages(fetch: Fetch, server: ArcticShift, tmp_path: Path) -> None:
    """All ways to spread six posts over three seconds, with pages of two and three posts."""
    for number, (spread, auto) in enumerate(
        itertools.product(itertools.combinations_with_replacement((0, 1, 2), 6), (2, 3))
    ):
        server.auto = auto
        server.posts = [post(place, BEGIN + second) for place, second in enumerate(spread)]
        fits = max(spread.count(second) + spread.count(second - 1) for second in (0, 1, 2)) < auto
        (fetched,) = fetch(limit=200, folder=tmp_path / str(number))
        assert len(set(ids(fetched))) == fetched.posts
        if fits:
            assert ids(fetched) == expected(6)
