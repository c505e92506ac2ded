"""fetch from each kind of source, through the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from redditgen.errors import UsageError
from redditgen.fetch.command import fetch
from redditgen.files.locks import locked_output
from redditgen.files.sidecar import sidecar_path
from redditgen.settings import FetchSettings
from tests.support.arctic_shift_server import ArcticShift
from tests.support.bigquery_emulator import Emulator
from tests.support.fixture_types import Redditgen
from tests.support.google_logins import log_out
from tests.support.local_server import serving
from tests.support.posts import expected, read_rows, setup_for, write_dump, write_parquet
from tests.support.posts import posts as reddit_posts

BIGQUERY: dict[str, Any] = {"source": ("bigquery",)}
ARCTIC_SHIFT: dict[str, Any] = {"source": ("arctic-shift",), "subreddit": ("cats",), "after": "2024-01-01"}


def sidecar_of(settings: FetchSettings) -> dict[str, Any]:
    """What is said of the titles."""
    content: dict[str, Any] = json.loads(sidecar_path(settings.out).read_bytes())
    return content


def test_a_dump_is_imported_once_and_then_read(tmp_path: Path) -> None:
    write_dump(tmp_path / "RS_2019-08.zst", reddit_posts(1, 300))
    settings = setup_for(tmp_path, tmp_path / "RS_2019-08.zst")
    fetch(settings)
    first, sidecar = settings.out.read_bytes(), sidecar_of(settings)
    made = (tmp_path / "RS_2019-08.parquet").stat().st_mtime_ns
    settings.out.unlink()
    fetch(settings)
    assert (settings.out.read_bytes(), sidecar_of(settings)) == (first, sidecar)
    assert (tmp_path / "RS_2019-08.parquet").stat().st_mtime_ns == made


def test_the_sidecar_tells_what_the_import_left_out(tmp_path: Path) -> None:
    lines = ['{"id": "a", "subreddit": "cats", "title": "A cat that sleeps"}', "{broken", '{"id": "b"}', '{"id": "c"}']
    (tmp_path / "own.zst").write_bytes(zstandard.ZstdCompressor().compress("\n".join(lines).encode()))
    fetch(settings := setup_for(tmp_path, tmp_path / "own.zst"))
    parquet = tmp_path / "own.parquet"
    file = {"file": str(parquet), "format": "Parquet", "table": "own", "map": {}}
    imported = {"files": [file | {"counts": {"posts": 1, "incomplete": 2, "broken": 1}}]}
    assert sidecar_of(settings)["source"] == imported
    fetch(setup_for(tmp_path, parquet, overwrite=True))
    assert sidecar_of(settings)["source"] == imported
    write_parquet(parquet, reddit_posts(1, 300))  # the sidecar beside it is not of this one
    fetch(setup_for(tmp_path, parquet, overwrite=True))
    assert sidecar_of(settings)["source"] == {"files": [file]}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"command": "import"}', '{"command": "import", "settings": {}}'])
def test_what_is_no_sidecar_of_ours_is_passed_over(tmp_path: Path, content: str) -> None:
    write_parquet(tmp_path / "own.parquet", reddit_posts(1, 300))
    (tmp_path / "own.parquet.meta.json").write_text(content, encoding="utf8")
    fetch(settings := setup_for(tmp_path, tmp_path / "own.parquet"))
    assert list(sidecar_of(settings)["source"]["files"][0]) == ["file", "format", "table", "map"]


def test_a_dump_and_its_parquet_in_one_folder_are_one_source(tmp_path: Path) -> None:
    folder = tmp_path / "dumps"
    folder.mkdir()
    write_dump(folder / "RS_2019-08.zst", reddit_posts(1, 300))
    once = fetch(setup_for(tmp_path, folder))
    assert fetch(setup_for(tmp_path, folder, overwrite=True)) == once
    assert once.posts and 250 < once.posts <= 300


def test_a_dump_without_scores_loses_no_post_by_them(tmp_path: Path) -> None:
    lines = (json.dumps({"subreddit": "cats", "title": f"A title of a cat, {n}", "id": f"{n}"}) for n in range(9))
    (tmp_path / "own.zst").write_bytes(zstandard.ZstdCompressor().compress("\n".join(lines).encode()))
    assert fetch(setup_for(tmp_path, tmp_path / "own.zst", cache=tmp_path / "cache")).titles == 9
    assert (tmp_path / "cache/own.parquet").exists()


def test_posts_come_from_arctic_shift(tmp_path: Path) -> None:
    posts = [
        {
            "id": f"a{n}",
            "subreddit": "cats",
            "title": f"Cat number {n} sleeps",
            "score": 9,
            "created_utc": 1704067200 + n,
        }
        for n in range(40)
    ]
    del posts[3]["title"]
    with serving(ArcticShift(posts)) as server:
        asked = setup_for(
            tmp_path, "arctic-shift", subreddit=("cats",), after="2024-01-01", limit=30, cache=tmp_path / "cache",
            base_url=server.url.replace("//", "//me:secret@"),
        )  # fmt: skip
        assert fetch(asked).titles == 18
    assert {subreddit for subreddit, _ in read_rows(asked.out)} == {"cats"}
    [file] = sidecar_of(asked)["source"]["files"]
    assert {name: file[name] for name in ("subreddit", "posts", "skipped", "crowded")} == {
        "subreddit": "cats",
        "posts": 30,
        "skipped": 1,
        "crowded": [],
    }
    assert file["fetched"].endswith(" UTC")
    assert "secret" not in "".join(path.read_text(encoding="utf8") for path in tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": ("bigquery", "sample")}, "--from bigquery does not go with other sources"),
        ({"source": ("arctic-shift",)}, "--from arctic-shift needs --subreddit and --after"),
        ({"dry_run": True}, "--dry-run is for --from bigquery alone"),
        ({"job": "x"}, "--job is for --from bigquery alone"),
        ({"project": "x"}, "--project is for --from bigquery alone"),
        ({"location": "EU"}, "--location is for --from bigquery alone"),
        ({"max_bytes": "1GB"}, "--max-bytes is for --from bigquery alone"),
        (ARCTIC_SHIFT | {"table": "a.b.c"}, "--table is for --from bigquery alone"),
        ({"after": "2024-01-01"}, "--after is for --from arctic-shift alone"),
        ({"before": "2024-01-01"}, "--before is for --from arctic-shift alone"),
        ({"subreddit": ("a",)}, "--subreddit is for --from arctic-shift alone"),
        ({"limit": 5}, "--limit is for --from arctic-shift alone"),
        ({"refresh": True}, "--refresh is for --from arctic-shift alone"),
        (BIGQUERY | {"base_url": "https://x:y@z"}, "--base-url is for --from arctic-shift alone"),
        (BIGQUERY | {"mapping": ("title=x",)}, "--map is for files of posts; leave it out with --from bigquery"),
        (BIGQUERY | {"cache": Path("x")}, "--cache is for files of posts; leave it out with --from bigquery"),
        (ARCTIC_SHIFT | {"months": "2019_01"}, "--months is for names of files; Arctic Shift has --after, --before"),
    ],
)
def test_options_of_another_source_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}$"):
        FetchSettings(**changes)


OWN = "does not go with --sql: the query names its"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (BIGQUERY | {"sql": Path("q"), "table": "a.b.c"}, f"--table {OWN} tables itself"),
        (BIGQUERY | {"sql": Path("q"), "months": "2019_01"}, f"--months {OWN} tables itself"),
        ({"sql": Path("q"), "columns": "title"}, f"--columns {OWN} columns and filters itself"),
        ({"sql": Path("q"), "review": True}, f"--review {OWN} columns and filters itself"),
        ({"review": True, "out": Path("x.csv")}, "--out does not go with --review, which writes no file"),
        ({"review": True, "columns": "title"}, "--columns does not go with --review, which writes no file"),
        ({"review": True, "min_score": 1}, "--min-score is not for --review: all titles count"),
        ({"review": True, "top_subreddits": 1}, "--top-subreddits is not for --review: all titles count"),
        ({"review": True, "per_subreddit": 1}, "--per-subreddit is not for --review: all titles count"),
        ({"review": True, "sfw": False}, "--review is about what --sfw leaves out; leave out --no-sfw"),
        ({"words": Path("x"), "sfw": False}, "--words is about what --sfw leaves out; leave out --no-sfw"),
        (
            BIGQUERY | {"job": "x", "dry_run": True},
            "--dry-run does not go with --job, which reads a result and costs nothing",
        ),
    ],
)
def test_options_that_would_do_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}$"):
        FetchSettings(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"sql": Path("q"), "months": "2019_01"},  # of local files
        {"sql": Path("q"), "min_score": 9},  # the query may use it
        BIGQUERY | {"sql": Path("q"), "max_bytes": "1GB", "location": "EU", "project": "x"},
        BIGQUERY | {"review": True, "dry_run": True, "months": "2019_01", "table": "a.b.c"},
        BIGQUERY | {"job": "x", "max_bytes": "1GB"},
        ARCTIC_SHIFT | {"limit": 5, "refresh": True, "cache": Path("x"), "review": True},
    ],
)
def test_options_that_go_together(changes: dict[str, Any]) -> None:
    FetchSettings(**changes)


@pytest.mark.parametrize(
    ("written", "meant"), [("bigquerry", "bigquery"), ("Sample", "sample"), ("arctic_shift", "arctic-shift")]
)
def test_a_misspelt_source_is_guessed(tmp_path: Path, written: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"^--from {written}: no such file; is --from {meant} meant\\?$"):
        fetch(setup_for(tmp_path, written))
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_misspelt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samples").mkdir()
    write_parquet(tmp_path / "samples/posts.parquet", reddit_posts(1, 300))
    assert fetch(setup_for(tmp_path, "samples")).titles > 0
    (tmp_path / "sample.parquet").symlink_to(tmp_path / "samples/posts.parquet")
    assert fetch(setup_for(tmp_path, "sample*", overwrite=True)).titles > 0


def test_an_amount_of_bytes_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--max-bytes must be an amount like 4GB, not 'much'$"):
        fetch(setup_for(tmp_path, "bigquery", max_bytes="much"))


def test_bigquery_without_a_login_names_the_command(
    redditgen: Redditgen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_out(monkeypatch, tmp_path)
    done = redditgen("fetch", "--from=bigquery", "--dry-run")
    assert done.returncode == 1
    assert "gcloud auth application-default login" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_needs_no_place_for_an_output(
    redditgen: Redditgen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_out(monkeypatch, tmp_path)
    with locked_output(tmp_path / "t.csv"):
        done = redditgen("fetch", "--from=bigquery", "--dry-run", "--out=t.csv")
    assert "gcloud auth application-default login" in done.stderr


@pytest.mark.bigquery
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_bigquery_gives_the_titles_that_its_table_has(
    bigquery_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redditgen: Redditgen
) -> None:
    posts = reddit_posts(7, 600)
    write_parquet(tmp_path / "posts.parquet", posts)
    bigquery_emulator.load("2019_08", tmp_path / "posts.parquet", "sources")
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_emulator.url)
    table = "--table=fh-bigquery.sources.2019_08"
    dry = redditgen("fetch", "--from=bigquery", "--project=someone", table, "--dry-run")
    assert (dry.returncode, dry.stdout) == (0, ""), dry.stderr
    assert not (tmp_path / "data").exists()
    done = redditgen("fetch", "--from=bigquery", "--project=someone", table, "--out=t.csv")
    assert done.returncode == 0, done.stderr
    assert read_rows(tmp_path / "t.csv") == [row[:2] for row in expected(posts, FetchSettings(source=("bigquery",)))]
    assert "someone" not in (tmp_path / "t.csv.meta.json").read_text(encoding="utf8")
