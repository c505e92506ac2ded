"""fetch: posts in, a file of the best titles of the top subreddits out."""

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

_EXAMPLE = 100  # characters


@dataclasses.dataclass(frozen=True)
class FetchCounts:
    """What came out, and of how many posts; `left_out` by each rule. Posts are not counted where that would cost."""

    titles: int
    subreddits: int
    posts: int | None = None
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)


def fetch(settings: FetchSettings) -> FetchCounts:
    """Write `settings.out` and its sidecar; raises a RedditgenError, and writes nothing, if no title is left."""
    with _own_errors(), signals_raise_keyboard_interrupt():
        titles_file.check_titles_file(settings.out)
        if settings.skip_existing and (before := _made_before(settings)):
            return FetchCounts(**before["counts"])
        with nullcontext() if settings.dry_run else locked_output(settings.out):
            refuse_existing(settings.out, settings.overwrite or settings.dry_run)
            with sources.open_posts(settings) as posts:
                _refuse_own_output(posts.inputs, settings.out)
                asked = _own(settings) if settings.sql else _titles(settings, posts)
                if _is_estimated(posts, asked, settings):
                    return FetchCounts(titles=0, subreddits=0)
                counts = _make(settings, asked, posts)
    _log.info("%s: %s", settings.out, _told(counts, settings))
    return counts


def review(settings: FetchSettings) -> Iterator[str]:
    """Lines of a table: how many titles of each subreddit the word list hits, and one of them with the words masked."""
    with _own_errors(), signals_raise_keyboard_interrupt(), sources.open_posts(settings) as posts:
        asked = query.review_query(settings, posts.table, posts.columns)
        if _is_estimated(posts, asked, settings):
            return
        heading = f"{'subreddit':<22}{'hits':>7}{'titles':>9}{'share':>7}  example"
        for subreddit, hits, titles, example in posts.run(asked.sql, asked.parameters):
            if heading:
                yield heading
                heading = ""
            shortened = textwrap.shorten(example, _EXAMPLE, placeholder=" ...")
            yield f"{subreddit:<22}{hits:>7}{titles:>9}{hits / titles:>7.0%}  {shortened}"
        if heading:
            _tell_of_no_hits(settings, posts)


@contextmanager
def _own_errors() -> Iterator[None]:
    """What no source has an error of its own for."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted("fetch interrupted; nothing was written") from error
    except OSError as error:
        where = error.filename or "fetch"
        raise InputError(f"{where}: {error.strerror or error}; check the path and who may use it") from error


def _is_estimated(posts: Posts, asked: Query, settings: FetchSettings) -> bool:
    """Whether --dry-run is all that is to be done, which it then is."""
    if not (isinstance(posts, BigQueryPosts) and settings.dry_run):
        return False
    posts.estimate(asked.sql, asked.parameters)
    return True


def _tell_of_no_hits(settings: FetchSettings, posts: Posts) -> None:
    if posts.counts_rules and not _of_rules(settings, posts)["posts"]:
        raise InputError(_no_posts(settings))
    _log.info("%s: no title has a word of the list", _where(settings))


def _make(settings: FetchSettings, asked: Query, posts: Posts) -> FetchCounts:
    with atomic_write(settings.out) as temporary:
        counts = _write(temporary, settings, asked, posts)
        # Before the file has its name, so that an interruption leaves neither.
        write_sidecar(
            settings.out,
            _without_names(settings),
            inputs=posts.inputs,
            written=temporary,
            source=sources.source_facts(posts),
            sql=asked.sql,
            parameters=asked.parameters,
            counts=dataclasses.asdict(counts),
        )
    return counts


def _made_before(settings: FetchSettings) -> dict[str, Any] | None:
    """What the sidecar says, if the output was made of the same; what comes over a network is taken for the same."""
    if not settings.out.exists():
        return None
    inputs = sources.open_posts(settings).inputs if settings.source[0] not in sources.REMOTE_SOURCES else ()
    ignoring = (*IGNORED_SETTINGS, "max_bytes", *(("cache",) if settings.source[0] in sources.REMOTE_SOURCES else ()))
    return find_up_to_date(settings.out, _without_names(settings), inputs=inputs, ignoring=ignoring)


def _without_names(settings: FetchSettings) -> FetchSettings:
    """Settings to write down: a project's name may be a person's, and an address may hold a password."""
    return dataclasses.replace(settings, project=None, base_url=redact_url(settings.base_url))


def _titles(settings: FetchSettings, posts: Posts) -> Query:
    absent = [name for name in query.parse_columns(settings.columns) if name not in posts.columns]
    if absent:
        there = ", ".join(name for name in COLUMN_TYPES if name in posts.columns)
        raise InputError(f"--columns: {_where(settings)} has no column {absent[0]}; there are {there}")
    return query.titles_query(settings, posts.table, posts.columns)


def _own(settings: FetchSettings) -> Query:
    assert settings.sql is not None
    asked, open_orders = user_query.read_user_query(settings.sql, settings)
    if open_orders:
        _log.warning(
            "%s: ties are open in: %s; other titles may come each time, unless the last key is unique, as id is",
            settings.sql,
            "; ".join(open_orders),
        )
    return asked


def _write(path: Path, settings: FetchSettings, asked: Query, posts: Posts) -> FetchCounts:
    rows = posts.run(asked.sql, asked.parameters)
    subreddits, titles = titles_file.write_titles(path, settings.out.suffix, asked.columns, rows)
    counts = FetchCounts(titles, subreddits)
    if posts.counts_rules and not settings.sql:
        counts = dataclasses.replace(counts, **_of_rules(settings, posts))
        if counts.posts:
            _log.info("%s", _left_out(counts))
    if not titles:
        raise InputError(_nothing_left(counts, settings))
    return counts


def _of_rules(settings: FetchSettings, posts: Posts) -> dict[str, Any]:
    asked = query.counts_query(settings, posts.table, posts.columns)
    by_rule = dict(posts.run(asked.sql, asked.parameters))
    left_out = {rule: by_rule.get(rule, 0) for rule in query.RULES}
    # Duplicates are among those that are kept.
    return {"posts": sum(by_rule.values()) - by_rule.get("duplicate", 0), "left_out": left_out}


def _left_out(counts: FetchCounts) -> str:
    parts = [f"{count} {rule}" for rule, count in counts.left_out.items() if count]
    return f"of {counts.posts} posts left out: {', '.join(parts) or 'none'}"


def _told(counts: FetchCounts, settings: FetchSettings) -> str:
    if settings.sql and not counts.subreddits:
        return f"{counts.titles} rows"
    return f"{counts.titles} titles from {counts.subreddits} subreddits"


def _nothing_left(counts: FetchCounts, settings: FetchSettings) -> str:
    where = _where(settings)
    if settings.sql:
        return f"{settings.sql}: the query gives no rows from {where}"
    if counts.posts == 0:
        return _no_posts(settings)
    return (
        f"{where}: no title left; {_left_out(counts) if counts.left_out else 'the rules leave out all posts'}; "
        f"lower --min-score (now {settings.min_score}) or --min-length, or see what --block and --sfw leave out"
    )


def _no_posts(settings: FetchSettings) -> str:
    return f"{_where(settings)}: no posts in it; give another source with --from"


def _where(settings: FetchSettings) -> str:
    return ", ".join(settings.source)


def _refuse_own_output(inputs: Sequence[Path], out: Path) -> None:
    if out.resolve() in {path.resolve() for path in inputs}:
        raise UsageError(f"{out}: is both read and written; give another file with --out")
