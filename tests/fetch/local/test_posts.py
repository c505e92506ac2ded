"""The local engine: its tables, what it does about hard files, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import duckdb
import pytest

from redditgen.errors import InputError
from redditgen.fetch.local import posts as engine
from redditgen.fetch.local.files import find_posts_files
from redditgen.fetch.local.posts import LocalPosts
from redditgen.fetch.sql import duckdb_connection
from tests.support.posts import ENDLESS, fetched, gzipped, one_post, posts, setup_for, write_ndjson, write_parquet

DATASET = "fh-bigquery.reddit_posts"


@pytest.fixture(autouse=True)
def folder_for_temporary_files(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where temporary files go in the tests; nothing may be left in it."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def months(tmp_path: Path) -> LocalPosts:
    for month in ("2018_12", "2019_01", "2019_02"):
        write_parquet(tmp_path / f"{month}.parquet", [one_post(id=month), one_post(id=f"{month}b", score=1)])
    write_parquet(tmp_path / "full_corpus_201509.parquet", [one_post(id="full")])
    return LocalPosts(find_posts_files([str(tmp_path)]))


T = f"`{DATASET}.*`"


@pytest.mark.parametrize(
    ("sql", "ids"),
    [
        (f"SELECT id FROM `{DATASET}.2019_01` ORDER BY id", ["2019_01", "2019_01b"]),
        ("SELECT `2019_01`.id FROM `fh-bigquery`.reddit_posts.`2019_01` WHERE score > 5", ["2019_01"]),
        ("SELECT id FROM `fh-bigquery.reddit_posts`.2019_01 WHERE score > 5", ["2019_01"]),
        (f"SELECT t.id FROM {T} AS t WHERE score > 5 ORDER BY id", ["2018_12", "2019_01", "2019_02", "full"]),
        (f"SELECT id FROM `{DATASET}.20*` WHERE score > 5 ORDER BY id", ["2018_12", "2019_01", "2019_02"]),
        (
            f"SELECT id FROM `{DATASET}.20*` WHERE _TABLE_SUFFIX BETWEEN '19_01' AND '19_02' ORDER BY score DESC, id "
            "LIMIT 2",
            ["2019_01", "2019_02"],
        ),
        (f"SELECT id FROM `{DATASET}.2019_*` WHERE score > 5 AND _TABLE_SUFFIX = '02'", ["2019_02"]),
        (
            f"SELECT DISTINCT _TABLE_SUFFIX AS s FROM {T} WHERE id > '2019_02' ORDER BY s",
            ["2019_02", "full_corpus_201509"],
        ),
        (f"SELECT a.id FROM `{DATASET}.2019_01` a JOIN {T} b USING (score) WHERE b.id = '2019_02'", ["2019_01"]),
        (f"WITH p AS (SELECT * FROM `{DATASET}.2019_01`) SELECT id FROM p, UNNEST([1]) WHERE score > 5", ["2019_01"]),
    ],
)
def test_tables(months: LocalPosts, sql: str, ids: list[str]) -> None:
    with months as source:
        assert [id for (id,) in source.run(sql, {})] == ids


def test_a_wildcard_reads_only_the_files_that_its_suffixes_name(tmp_path: Path) -> None:
    for month in ("2018_12", "2019_01"):
        write_parquet(tmp_path / f"{month}.parquet", [one_post(id=month)])
    with LocalPosts(find_posts_files([str(tmp_path)])) as source:
        sql = f"SELECT id FROM `{DATASET}.20*` WHERE _TABLE_SUFFIX = '19_01'"
        path = tmp_path / "2018_12.parquet"
        path.write_bytes(path.read_bytes()[:4] + b"\xff" * 100 + path.read_bytes()[104:])
        assert list(source.run(sql, {})) == [("2019_01",)]
        with pytest.raises(InputError, match=r"2018_12\.parquet"):
            list(source.run(sql.replace("19_01", "18_12"), {}))


def test_files_of_one_month_are_one_table(tmp_path: Path) -> None:
    write_parquet(tmp_path / "RS_2019-01.parquet", [one_post(id="a")])
    write_ndjson(tmp_path / "2019_01.ndjson", [{"subreddit": "aww", "title": "A cat", "url": "u"}])
    with LocalPosts(find_posts_files([str(tmp_path)])) as source:
        rows = list(source.run(f"SELECT id, url, over_18 FROM `{DATASET}.2019_01` ORDER BY id", {}))
    assert rows == [("000000-000000000001", "u", None), ("a", None, False)]


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        (f"SELECT id FROM `{DATASET}.2017_01`", "2017_01, but the local tables are 2018_12, 2019_01,"),
        (f"SELECT id FROM `{DATASET}.2017*`", "reads fh-bigquery.reddit_posts.2017*"),
        ("SELECT id FROM `bigquery-public-data.samples.shakespeare`", "bigquery-public-data.samples.shakespeare"),
        ("SELECT id FROM 2019_01", "no BigQuery SQL|reads"),
        ("SELECT id FROM posts", "reads posts, but"),
        (f"SELECT nope FROM `{DATASET}.2019_01`", 'column "nope" not found'),
        (f"DELETE FROM `{DATASET}.2019_01` WHERE TRUE", "one SELECT"),
        (f"SELECT 1; DROP TABLE `{DATASET}.2019_01`", "one SELECT"),
        ("SELECT FROM WHERE", "no BigQuery SQL"),
        ("", "one SELECT"),
    ],
)
def test_queries_that_can_not_be(months: LocalPosts, sql: str, words: str) -> None:
    with months as source, pytest.raises(InputError, match=words) as caught:
        list(source.run(sql, {}))
    assert len(str(caught.value).splitlines()) == 1


def test_approximate_counts_are_exact(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "a.ndjson", [one_post(author=f"{number % 7919}") for number in range(20_000)])
    with LocalPosts(find_posts_files([str(tmp_path)])) as source:
        sql = f"SELECT APPROX_COUNT_DISTINCT(author) AS authors FROM `{DATASET}.a`"
        assert list(source.run(sql, {})) == [(7919,)]


@pytest.mark.parametrize(("block", "ids"), [([], ["a", "b"]), (["x", "a"], ["b"])])
def test_lists_as_parameters(tmp_path: Path, block: list[str], ids: list[str]) -> None:
    write_ndjson(tmp_path / "a.ndjson", [one_post(id="a"), one_post(id="b")])
    with LocalPosts(find_posts_files([str(tmp_path)])) as source:
        sql = f"SELECT id FROM `{DATASET}.a` WHERE id NOT IN UNNEST(@block) ORDER BY id"
        assert list(source.run(sql, {"block": block, "unused": 1})) == [(id,) for id in ids]


# --- hard files ---


HALVES = ["\ud83d", "\udc00", "a\ud83db", "\ud83d\ud83d\ude00", "\ude00\ud83d", "\\\ud83d", "\\ud83d", "\\\\", "😀"]


@pytest.mark.parametrize("suffix", [".ndjson", ".jsonl.gz"])
def test_half_surrogate_pairs(tmp_path: Path, suffix: str) -> None:
    made = [one_post(id=str(number), title=f"A cat {half} asleep") for number, half in enumerate(HALVES)]
    path = tmp_path / f"posts{suffix}"
    (gzipped(write_ndjson) if suffix.endswith(".gz") else write_ndjson)(path, made)
    wanted = [json.loads(json.dumps(post["title"])).encode("utf-16", "surrogatepass") for post in made]
    whole = [title.decode("utf-16", "replace").replace("\ufffd", "") for title in wanted]
    setup = setup_for(tmp_path, path, columns="title")
    assert fetched(setup) == [(" ".join(title.split()),) for title in dict.fromkeys(whole)]


@pytest.mark.parametrize(
    "title", ["x" * 10_000_000, "\n" * 10_000_000 + "x", "é" * 10_000_000, "\x01" * 10_000_000 + "x"]
)
def test_a_title_of_10_mb_in_json(tmp_path: Path, title: str) -> None:
    write_ndjson(tmp_path / "posts.ndjson", [one_post(), one_post(id="b", title=title)])
    with LocalPosts(find_posts_files([str(tmp_path)])) as source:
        assert list(source.run(f"SELECT title FROM `{DATASET}.posts` ORDER BY id", {}))[1] == (title,)


def test_a_line_beyond_all_bounds(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "posts.ndjson", [one_post(), one_post(id="b", title="x" * 250_000_000)])
    with (
        LocalPosts(find_posts_files([str(tmp_path)])) as source,
        pytest.raises(InputError, match=r"posts\.ndjson: can't be read"),
    ):
        list(source.run(f"SELECT title FROM `{DATASET}.posts` ORDER BY id", {}))


# --- resources ---


def test_what_does_not_fit_in_memory_goes_to_a_folder_that_goes_away(
    tmp_path: Path, folder_for_temporary_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_MEMORY", "60MB")
    write_parquet(tmp_path / "posts.parquet", posts(seed=1))
    with LocalPosts(find_posts_files([str(tmp_path)])) as source:
        rows = source.run(
            f"SELECT title, n FROM `{DATASET}.posts`, UNNEST(GENERATE_ARRAY(1, 400)) AS n ORDER BY title, n", {}
        )
        next(rows)
        assert any(path.stat().st_size for path in folder_for_temporary_files.rglob("*"))
        assert sum(1 for _ in rows) == 2500 * 400 - 1
    assert not list(folder_for_temporary_files.iterdir())


def test_no_room_for_what_does_not_fit_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_MEMORY", "60MB")
    monkeypatch.setattr(engine, "_OPTIONS", f"{engine._OPTIONS}; SET max_temp_directory_size = '1MB'")
    write_parquet(tmp_path / "posts.parquet", posts(seed=1))
    with LocalPosts(find_posts_files([str(tmp_path)])) as source, pytest.raises(InputError, match="TMPDIR") as caught:
        list(source.run(f"SELECT title, n FROM `{DATASET}.posts`, UNNEST(GENERATE_ARRAY(1, 400)) AS n ORDER BY n", {}))
    assert len(str(caught.value).splitlines()) == 1


def test_ctrl_c_ends_a_long_query(tmp_path: Path, folder_for_temporary_files: Path) -> None:
    write_ndjson(tmp_path / "posts.ndjson", [one_post()])
    with pytest.raises(KeyboardInterrupt), LocalPosts(find_posts_files([str(tmp_path)])) as source:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        list(source.run(ENDLESS, {}))
    assert not list(folder_for_temporary_files.iterdir())


def test_ctrl_c_ends_a_statement_of_the_main_thread() -> None:
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with duckdb_connection.connect_offline() as connection, pytest.raises(KeyboardInterrupt):
        duckdb_connection.execute(
            connection, "SELECT count(*) FROM range(300_000_000) AS numbers(x) WHERE x % 7 = 3"
        ).fetchall()
    timer.join()


def test_sigterm_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    (tmp_path / "endless.sql").write_text(ENDLESS)
    command = [sys.executable, "-m", "redditgen", "fetch", "--sql", "endless.sql"]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not list((tmp_path / "temporary").iterdir()):
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(0.5)
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert not list((tmp_path / "temporary").iterdir())
    assert not list(tmp_path.glob("data/.*")) and not list(tmp_path.glob("data/*"))


def test_posts_are_judged_once_for_all_queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ndjson(tmp_path / "posts.ndjson", [one_post()])
    with LocalPosts(find_posts_files([str(tmp_path)])) as source:
        sql = f"WITH judged AS (SELECT id FROM `{DATASET}.posts` WHERE score > @least) SELECT "
        assert list(source.run(sql + "id FROM judged", {"least": 1})) == [("a1",)]
        (tmp_path / "posts.ndjson").unlink()
        assert list(source.run(sql + "COUNT(*) AS n FROM judged", {"least": 1})) == [(1,)]
        with pytest.raises(InputError, match=r"posts\.ndjson"):
            list(source.run(sql + "id FROM judged", {"least": 2}))


def test_nothing_is_loaded_from_the_network(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "posts.ndjson", [one_post()])
    with LocalPosts(find_posts_files([str(tmp_path)])) as source:
        settings = "SELECT value FROM duckdb_settings() WHERE name LIKE 'auto%known_extensions' ORDER BY name"
        assert source._connection.execute(settings).fetchall() == [("false",), ("false",)]
    with pytest.raises(duckdb.ConnectionException):
        source._connection.execute("SELECT 1")
