"""The command fetch: reads posts and writes a file with the best titles of the top subreddits."""

import dataclasses
import logging
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from redditgen.errors import InputError, Interrupted, UsageError
from redditgen.fetch import sources, titles_file
from redditgen.fetch.base import Posts
from redditgen.fetch.bigquery.posts import BigQueryPosts
from redditgen.fetch.sql import query, user_query
from redditgen.fetch.sql.columns import COLUMN_TYPES
from redditgen.fetch.sql.query import Query
from redditgen.files.atomic import atomic_write, refuse_existing
from redditgen.files.locks import locked_output
from redditgen.files.sidecar import IGNORED_SETTINGS, find_up_to_date, write_sidecar
from redditgen.runtime.http import redact_url
from redditgen.runtime.signals import signals_raise_keyboard_interrupt
from redditgen.settings import FetchSettings

_log = logging.getLogger(__name__)

_EXAMPLE_LENGTH = 100  # characters


@dataclasses.dataclass(frozen=True)
class FetchCounts:
    """How many titles and subreddits were written, of how many posts, and how many posts each rule left out.

    `posts` is None and `left_out` empty where counting them would cost money, or the query is the user's own.
    """

    titles: int
    subreddits: int
    posts: int | None = None
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)


def fetch(settings: FetchSettings) -> FetchCounts:
    """Write the titles to `settings.out`, and its sidecar; with --dry-run, only log what the query would cost.

    Raises a RedditgenError, and writes nothing, where a source can't be read or no title is left.
    """
    with _map_errors(), signals_raise_keyboard_interrupt():
        titles_file.check_titles_file(settings.out)
        if settings.skip_existing and (sidecar := _find_up_to_date(settings)):
            return FetchCounts(**sidecar["counts"])
        with nullcontext() if settings.dry_run else locked_output(settings.out):
            refuse_existing(settings.out, settings.overwrite or settings.dry_run)
            with sources.open_posts(settings) as posts:
                _refuse_own_output(posts.inputs, settings.out)
                select = _read_user_query(settings) if settings.sql else _titles_query(settings, posts)
                if _estimate_if_dry_run(posts, select, settings):
                    return FetchCounts(titles=0, subreddits=0)
                counts = _write_output(settings, select, posts)
    _log.info("%s: %s", settings.out, _summary(counts, settings))
    return counts


def review(settings: FetchSettings) -> Iterator[str]:
    """Yield the lines of a table: per subreddit, how many titles the word list hits, and one of them with words masked.

    With --dry-run, only logs what the query would cost. Raises a RedditgenError where a source can't be read.
    """
    with _map_errors(), signals_raise_keyboard_interrupt(), sources.open_posts(settings) as posts:
        select = query.review_query(settings, posts.table, posts.columns)
        if _estimate_if_dry_run(posts, select, settings):
            return
        heading = f"{'subreddit':<22}{'hits':>7}{'titles':>9}{'share':>7}  example"
        for subreddit, hits, titles, example in posts.run(select.sql, select.parameters):
            if heading:
                yield heading
                heading = ""
            shortened = textwrap.shorten(example, _EXAMPLE_LENGTH, placeholder=" ...")
            yield f"{subreddit:<22}{hits:>7}{titles:>9}{hits / titles:>7.0%}  {shortened}"
        if heading:
            _report_no_hits(settings, posts)


@contextmanager
def _map_errors() -> Iterator[None]:
    """Turn Ctrl-C, and system errors that no source maps itself, into redditgen's errors."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted("fetch interrupted; nothing was written") from error
    except OSError as error:
        path = error.filename or "fetch"
        raise InputError(f"{path}: {error.strerror or error}; check the path and who may use it") from error


def _estimate_if_dry_run(posts: Posts, select: Query, settings: FetchSettings) -> bool:
    """With --dry-run on BigQuery, log what the query would cost and return True."""
    if not (isinstance(posts, BigQueryPosts) and settings.dry_run):
        return False
    posts.estimate(select.sql, select.parameters)
    return True


def _report_no_hits(settings: FetchSettings, posts: Posts) -> None:
    if posts.counts_rules and not _count_by_rule(settings, posts)["posts"]:
        raise InputError(_no_posts_message(settings))
    _log.info("%s: no title has a word of the list", _source_names(settings))


def _write_output(settings: FetchSettings, select: Query, posts: Posts) -> FetchCounts:
    with atomic_write(settings.out) as temporary:
        counts = _write_rows(temporary, settings, select, posts)
        # Written before the titles file has its name, so that no titles file lacks a sidecar.
        write_sidecar(
            settings.out,
            _without_secrets(settings),
            inputs=posts.inputs,
            written=temporary,
            source=sources.source_facts(posts),
            sql=select.sql,
            parameters=select.parameters,
            counts=dataclasses.asdict(counts),
        )
    return counts


def _find_up_to_date(settings: FetchSettings) -> dict[str, Any] | None:
    """Return the sidecar of an existing output with the same settings and inputs, or None.

    Posts that come over a network are assumed not to have changed.
    """
    if not settings.out.exists():
        return None
    inputs = sources.open_posts(settings).inputs if settings.source[0] not in sources.REMOTE_SOURCES else ()
    ignoring = (*IGNORED_SETTINGS, "max_bytes", *(("cache",) if settings.source[0] in sources.REMOTE_SOURCES else ()))
    return find_up_to_date(settings.out, _without_secrets(settings), inputs=inputs, ignoring=ignoring)


def _without_secrets(settings: FetchSettings) -> FetchSettings:
    """Return the settings for the sidecar.

    They lack the project, whose name may be a person's, and the parts of `base_url` that may hold a password.
    """
    return dataclasses.replace(settings, project=None, base_url=redact_url(settings.base_url))


def _titles_query(settings: FetchSettings, posts: Posts) -> Query:
    absent = [name for name in query.parse_columns(settings.columns) if name not in posts.columns]
    if absent:
        available = ", ".join(name for name in COLUMN_TYPES if name in posts.columns)
        raise InputError(f"--columns: {_source_names(settings)} has no column {absent[0]}; there are {available}")
    return query.titles_query(settings, posts.table, posts.columns)


def _read_user_query(settings: FetchSettings) -> Query:
    assert settings.sql is not None
    select, orders_with_ties = user_query.read_user_query(settings.sql, settings)
    if orders_with_ties:
        _log.warning(
            "%s: ties are open in: %s; other titles may come each time, unless the last key is unique, as id is",
            settings.sql,
            "; ".join(orders_with_ties),
        )
    return select


def _write_rows(path: Path, settings: FetchSettings, select: Query, posts: Posts) -> FetchCounts:
    rows = posts.run(select.sql, select.parameters)
    subreddits, titles = titles_file.write_titles(path, settings.out.suffix, select.columns, rows)
    counts = FetchCounts(titles, subreddits)
    if posts.counts_rules and not settings.sql:
        counts = dataclasses.replace(counts, **_count_by_rule(settings, posts))
        if counts.posts:
            _log.info("%s", _left_out_text(counts))
    if not titles:
        raise InputError(_no_titles_message(counts, settings))
    return counts


def _count_by_rule(settings: FetchSettings, posts: Posts) -> dict[str, Any]:
    select = query.counts_query(settings, posts.table, posts.columns)
    by_rule = dict(posts.run(select.sql, select.parameters))
    left_out = {rule: by_rule.get(rule, 0) for rule in query.RULES}
    # The posts of the rule "duplicate" are also counted as kept.
    return {"posts": sum(by_rule.values()) - by_rule.get("duplicate", 0), "left_out": left_out}


def _left_out_text(counts: FetchCounts) -> str:
    parts = [f"{count} {rule}" for rule, count in counts.left_out.items() if count]
    return f"of {counts.posts} posts left out: {', '.join(parts) or 'none'}"


def _summary(counts: FetchCounts, settings: FetchSettings) -> str:
    if settings.sql and not counts.subreddits:
        return f"{counts.titles} rows"
    return f"{counts.titles} titles from {counts.subreddits} subreddits"


def _no_titles_message(counts: FetchCounts, settings: FetchSettings) -> str:
    source = _source_names(settings)
    if settings.sql:
        return f"{settings.sql}: the query gives no rows from {source}"
    if counts.posts == 0:
        return _no_posts_message(settings)
    return (
        f"{source}: no title left; {_left_out_text(counts) if counts.left_out else 'the rules leave out all posts'}; "
        f"lower --min-score (now {settings.min_score}) or --min-length, or see what --block and --sfw leave out"
    )


def _no_posts_message(settings: FetchSettings) -> str:
    return f"{_source_names(settings)}: no posts in it; give another source with --from"


def _source_names(settings: FetchSettings) -> str:
    return ", ".join(settings.source)


def _refuse_own_output(inputs: Sequence[Path], out: Path) -> None:
    if out.resolve() in {path.resolve() for path in inputs}:
        raise UsageError(f"{out}: is both read and written; give another file with --out")
