"""The rules of sql/titles.sql, one by one, and the text that is made of it."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlglot import exp

from redditgen.errors import UsageError
from redditgen.fetch.command import fetch
from redditgen.fetch.sql import query
from redditgen.fetch.sql.columns import COLUMN_TYPES, FLAG_COLUMNS
from redditgen.fetch.sql.query import REPORT_TABLE
from redditgen.fetch.sql.statement import parse_select
from redditgen.files import bundled
from redditgen.settings import FetchSettings
from tests.support.posts import (
    APRIL_2023,
    Row,
    expected,
    fetched,
    left_out,
    one_post,
    setup_for,
    write_ndjson,
    write_parquet,
)

ESCAPED, PLAIN = APRIL_2023 - 1, APRIL_2023


def cleaned(folder: Path, title: str, created_utc: int | None = None) -> list[Row]:
    write_ndjson(folder / "posts.ndjson", [one_post(title=title, created_utc=created_utc)])
    return fetched(setup_for(folder, folder / "posts.ndjson", columns="title", min_length=1, sfw=False))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Q&amp;A", "Q&A"),
        ("&amp;lt;b&amp;gt;", "&lt;b&gt;"),
        ("&amp;amp;amp;", "&amp;amp;"),
        ("1 &lt; 2 &gt; 0", "1 < 2 > 0"),
        ("&quot;It&#39;s&quot;, it&#x27;s and it&apos;s", "\"It's\", it's and it's"),
        ("a&nbsp;&nbsp;b&nbsp;", "a b"),
        ("&amp;nbsp; &amp;#39;", "&nbsp; &#39;"),
        ("&copy; &#169; & &;", "&copy; &#169; & &;"),
        ("bro\ufffdken", "broken"),
        ("&\ufffdlt;", "<"),
        (" two\r\n lines\u2028here\u00a0", "two lines here"),
        ("no\x00thing\x07 \x1fhere\x9b", "nothing here"),
        ("\tat\vthe\fends\x85 ", "at the ends"),
        ("שלום\u200f and \u202eback\u202c", "שלום\u200f and \u202eback\u202c"),
        ("zero\u200bwidth \ufeffmarks", "zero\u200bwidth \ufeffmarks"),
        ('"quoted", it said', '"quoted", it said'),
    ],
)
def test_a_title_is_cleaned(tmp_path: Path, written: str, meant: str) -> None:
    for created_utc in (None, ESCAPED):
        (tmp_path / str(created_utc)).mkdir()
        assert cleaned(tmp_path / str(created_utc), written, created_utc) == [(meant,)]


def test_newer_titles_are_not_unescaped(tmp_path: Path) -> None:
    written = "\tIn HTML,  &amp;lt; stands for &lt;\ufffd"
    assert cleaned(tmp_path, written, PLAIN) == [("In HTML, &amp;lt; stands for &lt;",)]


@pytest.mark.parametrize(
    ("rule", "fields"),
    [
        ("incomplete", {"title": None}),
        ("incomplete", {"title": "\ufffd\x00 \u2003"}),
        ("incomplete", {"subreddit": None}),
        ("incomplete", {"subreddit": ""}),
        ("deleted", {"removed_by_category": "moderator"}),
        ("deleted", {"author": "[deleted]"}),
        ("promoted", {"promoted": True}),
        ("profile", {"subreddit_type": "user"}),
        ("profile", {"subreddit": "u_Someone"}),
        ("profile", {"subreddit": "U_Someone"}),
        ("over_18", {"over_18": True}),
        ("quarantined", {"quarantine": True}),
        ("blocked", {"subreddit": "Me_Irl"}),
        ("blocked", {"subreddit": "GoneWild"}),
        ("short", {"title": "A cat &lt;"}),
        ("words", {"title": "Holy shit, a cat"}),
        ("duplicate", {"title": " A cat,\tasleep"}),
        # The first rule that hits counts.
        ("deleted", {"removed_by_category": "reddit", "promoted": True, "over_18": True}),
        ("over_18", {"over_18": True, "title": "porn"}),
        ("short", {"title": "porn"}),
        (None, {"removed_by_category": "", "promoted": False, "subreddit_type": "public", "title": "A cat & 8"}),
        (
            None,
            {"subreddit": "uplifting", "author": "deleted", "quarantine": None, "over_18": None, "title": "Cocktails"},
        ),
    ],
)
def test_a_rule_leaves_a_post_out(tmp_path: Path, rule: str | None, fields: dict[str, Any]) -> None:
    flags = {"removed_by_category": None, "promoted": None, "subreddit_type": None, "quarantine": None}
    made = [one_post(id="a", **flags), {**one_post(id="b", **flags), **fields}]
    write_parquet(tmp_path / "posts.parquet", made)
    setup = setup_for(tmp_path, tmp_path / "posts.parquet")
    counts = fetch(setup)
    assert {name: count for name, count in counts.left_out.items() if count} == ({rule: 1} if rule else {})
    assert left_out(made, setup) == ({rule: 1} if rule else {})
    assert counts.titles == (1 if rule else 2)


def test_what_is_left_out_takes_no_rank_and_makes_no_subreddit_a_top_one(tmp_path: Path) -> None:
    shown = [one_post(id=f"a{number}", title=f"A cat, asleep {number}", score=5) for number in range(3)]
    hidden = [
        one_post(id=f"{kind}{number}", author=f"{number}", score=99, subreddit=subreddit, **fields)
        for subreddit in ("aww", "b")
        for kind, fields in (("x", {"title": "Shit happens"}), ("y", {"over_18": True}), ("z", {"title": "Oh"}))
        for number in range(5)
    ]
    copies = [one_post(id=f"c{number}", title="A cat, asleep 0", score=6) for number in range(5)]
    write_ndjson(tmp_path / "posts.ndjson", [*hidden, *shown, *copies])
    setup = setup_for(tmp_path, tmp_path / "posts.ndjson", top_subreddits=1, per_subreddit=2, columns="id,subreddit")
    assert fetched(setup) == [("c0", "aww"), ("a1", "aww")]


def test_the_best_of_equal_titles_is_kept(tmp_path: Path) -> None:
    scores = {"d": 7, "c": 9, "b": 9, "a": None}
    write_ndjson(tmp_path / "posts.ndjson", [one_post(id=id, score=score) for id, score in scores.items()])
    assert fetched(setup_for(tmp_path, tmp_path / "posts.ndjson", columns="id")) == [("b",)]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=20), st.data())
@settings(max_examples=40, deadline=None)
def test_any_title_comes_out_clean_and_on_one_line(
    tmp_path_factory: pytest.TempPathFactory, titles: list[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("any")
    dates = st.sampled_from([None, ESCAPED, PLAIN])
    made = [
        one_post(id=f"{number:03}", title=title, created_utc=data.draw(dates))
        for number, title in enumerate([*titles, "the last one"])
    ]
    write_ndjson(folder / "posts.ndjson", made)
    setup = setup_for(folder, folder / "posts.ndjson", per_subreddit=100, min_length=2)
    rows = fetched(setup)
    assert rows == expected(made, setup)
    assert all(len(title.splitlines()) == 1 and title == title.strip() for _, title in rows)


# --- the text ---


def test_absent_columns_are_null_and_no_others_are_read() -> None:
    there = COLUMN_TYPES.keys() - {"promoted", "subreddit_type", "removed_by_category"}
    asked = query.titles_query(FetchSettings(columns="title,url,created_utc"), "p.d.2017_01", there)
    tree = parse_select(asked.sql)
    posts = next(cte.this for cte in tree.find_all(exp.CTE) if cte.alias == "posts")
    assert posts.sql("bigquery") == (
        "SELECT subreddit, title, id, author, score, created_utc, over_18, quarantine, "
        "CAST(NULL AS STRING) AS removed_by_category, CAST(NULL AS BOOL) AS promoted, "
        "CAST(NULL AS STRING) AS subreddit_type, url FROM `p.d.2017_01`"
    )
    assert asked.columns == ("title", "url", "created_utc") == tuple(tree.named_selects)


def test_the_text_is_the_file_where_nothing_is_absent() -> None:
    asked = query.titles_query(FetchSettings(), REPORT_TABLE, COLUMN_TYPES)
    assert asked.sql == bundled.path("sql/titles.sql").read_text(encoding="utf8")
    assert asked.parameters == query.all_parameters(FetchSettings())


@pytest.mark.parametrize("build", [query.counts_query, query.review_query])
def test_other_queries_begin_as_the_first_one_does(build: Any) -> None:
    settings = FetchSettings()
    titles, other = (
        query.titles_query(settings, REPORT_TABLE, FLAG_COLUMNS),
        build(settings, REPORT_TABLE, FLAG_COLUMNS),
    )
    ctes = [{cte.alias: cte.sql() for cte in parse_select(sql).ctes} for sql in (titles.sql, other.sql)]
    assert list(ctes[1]) == ["posts", "cleaned", "judged"]
    assert ctes[0].items() >= ctes[1].items()
    assert not {"min_score", "top_subreddits", "per_subreddit"} & other.parameters.keys()


@pytest.mark.parametrize("columns", ["", "title,", "title, nope", "title;score", "title`, x", "title,TITLE"])
def test_columns_that_can_not_be(columns: str) -> None:
    with pytest.raises(UsageError, match="--columns"):
        query.parse_columns(columns)
