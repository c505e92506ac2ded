"""What fetch sends to BigQuery: the statement, its tables and parameters, and what it says of the cost."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redditgen.errors import InputError, UsageError
from redditgen.fetch.bigquery import cost
from redditgen.fetch.bigquery.parameters import query_parameters
from redditgen.fetch.sql import statement
from redditgen.fetch.sql.tables import TableChoice
from redditgen.settings.options import parse_byte_count

SQL = """#standardSQL
-- not `fh-bigquery.reddit_posts.2019_08` here
WITH é AS (SELECT * FROM `fh-bigquery.reddit_posts.2019_08` /* `fh-bigquery.reddit_posts.2019_08` */)
SELECT '`fh-bigquery.reddit_posts.2019_08`', r'\\d', "😀" FROM é JOIN `fh-bigquery.reddit_posts.2019_08` p USING (id)
"""
NOT_ONE_SELECT = "the query must be one SELECT and nothing else, no script and nothing that writes"


# --- the statement ---


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "SELECT 1;",
        "(SELECT 1)",
        "WITH a AS (SELECT 1 AS x) SELECT * FROM a",
        "SELECT 1 UNION ALL SELECT 2",
        "#standardSQL\n-- why\nSELECT 1",
        "FROM `a.b.c` |> SELECT x",
    ],
)
def test_one_select_is_accepted(sql: str) -> None:
    statement.parse_select(sql)


@pytest.mark.parametrize(
    "sql",
    [
        *("", "-- nothing", "SELECT 1; SELECT 2", "SELECT 1; DROP TABLE t", "DROP TABLE t", "INSERT INTO t SELECT 1"),
        *("CREATE TABLE t AS SELECT 1", "CREATE TEMP FUNCTION f() AS (1); SELECT f()", "DELETE FROM t WHERE TRUE"),
        *("UPDATE t SET a = 1 WHERE TRUE", "MERGE t USING u ON t.a = u.a WHEN MATCHED THEN DELETE", "CALL f()"),
        *("DECLARE x INT64; SELECT x", "BEGIN SELECT 1; END", "EXECUTE IMMEDIATE 'DROP TABLE t'", "TRUNCATE TABLE t"),
        *("EXPORT DATA OPTIONS (uri = 'gs://a/*') AS SELECT 1", "GRANT `roles/x` ON TABLE t TO 'user:a'"),
        *("ALTER TABLE t ADD COLUMN a INT64", "LOAD DATA INTO t FROM FILES (uris = ['gs://a'])", "ASSERT TRUE"),
    ],
)
def test_anything_else_is_refused(sql: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match=f"^({NOT_ONE_SELECT}|the query is no BigQuery SQL: .*)$"):
        statement.parse_select(sql)
    assert not caplog.records  # sqlglot has its own words for some
    assert logging.getLogger("sqlglot").level == logging.NOTSET


def test_what_is_no_sql_says_where() -> None:
    with pytest.raises(InputError) as error:
        statement.parse_select("SELECT a,\n  (b + FROM t")
    assert str(error.value).startswith("the query is no BigQuery SQL: ")
    assert "Line 2, Col: " in str(error.value)
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value)


def test_tables_that_are_read() -> None:
    tree = statement.parse_select("WITH a AS (SELECT * FROM `p-1.d.t`) SELECT * FROM a, `p-1`.d.`u*` JOIN d2.v ON TRUE")
    assert statement.tables_in_query(tree) == ["d2.v", "p-1.d.t", "p-1.d.u*"]


def test_parameters_have_types_and_only_those_named_are_sent() -> None:
    values = {"i": 1, "b": True, "f": 0.5, "s": "x", "many": ["a"], "none": [], "unused": 1}
    tree = statement.parse_select("SELECT @i, @b, @f, @s, x IN UNNEST(@many), x IN UNNEST(@none), '@unused' -- @unused")
    assert [parameter.to_api_repr()["parameterType"] for parameter in query_parameters(tree, values)] == [
        {"type": "INT64"},
        {"type": "BOOL"},
        {"type": "FLOAT64"},
        {"type": "STRING"},
        {"type": "ARRAY", "arrayType": {"type": "STRING"}},
        {"type": "ARRAY", "arrayType": {"type": "STRING"}},
    ]


# --- the tables ---


def test_the_querys_own_table_stays() -> None:
    assert TableChoice.from_options().put_into(SQL) == SQL
    assert TableChoice.from_options().suffixes == {}


def test_another_table_stands_where_the_querys_own_stood() -> None:
    changed = TableChoice.from_options("my-project.posts.all-of-them").put_into(SQL)
    assert changed.splitlines()[1] == SQL.splitlines()[1]
    assert changed.splitlines()[2:] == [
        "WITH é AS (SELECT * FROM `my-project.posts.all-of-them` /* `fh-bigquery.reddit_posts.2019_08` */)",
        "SELECT '`fh-bigquery.reddit_posts.2019_08`', r'\\d', \"😀\" FROM é JOIN `my-project.posts.all-of-them` p "
        "USING (id)",
    ]


def test_months_are_a_wildcard_table() -> None:
    tables = TableChoice.from_options("p-1.d.any", months="2017-01:2019_02")
    assert tables.put_into("SELECT x FROM `fh-bigquery.reddit_posts.2019_08`") == (
        "SELECT x FROM (SELECT * FROM `p-1.d.20*` WHERE _TABLE_SUFFIX BETWEEN @first_month AND @last_month)"
    )
    assert tables.suffixes == {"first_month": "17_01", "last_month": "19_02"}
    assert str(tables) == "p-1.d.2017_01 to 2019_02"


def test_one_month_is_a_range() -> None:
    assert TableChoice.from_options(months="2017_01").months == ("2017_01", "2017_01")


@pytest.mark.parametrize("table", ["", "t", "d.t", "p.d.", "a.b.c.d", "p.d.`t", "p.d.t t", "p.d.t\\", "p..t"])
def test_a_table_that_can_not_be(table: str) -> None:
    with pytest.raises(UsageError, match=r"^--table must be PROJECT\.DATASET\.TABLE, not "):
        TableChoice.from_options(table)


@pytest.mark.parametrize("months", ["2017", "2017_13", "2017_00", "1999_12", "2017_01:", ":2017_01", "2017_01:x", "*"])
def test_months_that_can_not_be(months: str) -> None:
    with pytest.raises(UsageError, match=r"^--months must be months like 2017_01:2019_02, not "):
        TableChoice.from_options(months=months)


def test_months_the_wrong_way_round() -> None:
    with pytest.raises(UsageError, match=r"^--months: 2019_02 is after 2017_01; give the earlier one first$"):
        TableChoice.from_options(months="2019_02:2017_01")


# --- the cost ---


@pytest.mark.parametrize(
    ("count", "text"),
    [(1, "1 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (12_345_678_901, "12.3 GB"), (5 * 10**15, "5000.0 TB")],
)
def test_sizes(count: int, text: str) -> None:
    assert cost.format_bytes(count) == text


@given(st.integers(1, 1 << 50))
def test_a_size_is_an_amount_again(count: int) -> None:
    assert parse_byte_count("--max-bytes", cost.format_bytes(count).replace("bytes", "B")) == pytest.approx(
        count, rel=0.06
    )


def test_forecast() -> None:
    assert cost.cost_forecast(1 << 41) == (
        "the query reads 2.2 TB, 200.00% of the 1 TiB a month that is free; beyond that about USD 12.50 "
        "(USD 6.25 a TiB; prices change)"
    )
    assert cost.cost_forecast(0) == cost.cost_forecast(None)
