"""The options of `redditgen fetch`."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

from redditgen.errors import UnusedOption, UsageError
from redditgen.settings import shared
from redditgen.settings.options import command_settings, flag, option, require, require_at_least

ARCTIC_SHIFT_URL = "https://arctic-shift.photon-reddit.com"

# The subreddits that the report leaves out, since all titles in each are the same.
REPORT_BLOCKLIST = "me_irl,2meirl4meirl,anime_irl,furry_irl,cursedimages"

# Sources that can't be combined with others, and the fields that only they use.
_EXCLUSIVE_SOURCES = {
    "bigquery": ("project", "location", "table", "max_bytes", "dry_run", "job"),
    "arctic-shift": ("subreddit", "after", "before", "limit", "base_url", "refresh"),
}

_UnusedFields = tuple[bool, tuple[str, ...], str]
"""Whether fields have no effect with these settings, their names, and the reason, worded to follow a flag."""


@command_settings
class FetchSettings:
    source: tuple[str, ...] = option(
        ("sample",),
        "Where posts come from: 'sample' (synthetic posts that come with redditgen); a file of posts, .parquet, .csv "
        "or .ndjson (.jsonl, .json), the latter two also .gz, or a monthly dump, .zst; a folder or a quoted glob of "
        "them; 'bigquery'; or 'arctic-shift'. Repeatable.",
        "--from",
    )
    months: str | None = option(
        None, "Only files named for these months, as RS_2019-08.parquet: 2017_01:2019_02, or a single month."
    )
    mapping: tuple[str, ...] = option(
        (), "Column of a file that has another name: title=headline reads titles from headline. Repeatable.", "--map"
    )
    out: Path = option(
        Path("data/reddit_titles.csv"), "File to write: .csv, .parquet or .ndjson (.jsonl), with a row a title."
    )
    columns: str = option(
        "subreddit,title", "Columns to write, names between commas, as score, created_utc, id, author, num_comments."
    )
    min_score: int = option(5, "Only posts with this score or more decide which subreddits are the top ones.")
    top_subreddits: int = option(1000, "Keep this many subreddits, those with the most distinct authors.")
    per_subreddit: int = option(18, "Keep this many titles of each, those with the highest score.")
    min_length: int = option(8, "Leave out titles of fewer characters.")
    block: str = option(
        REPORT_BLOCKLIST, "Subreddits to leave out: names between commas, or a file with a name a line."
    )
    sfw: bool = option(
        True,
        "Leave out posts marked over 18, quarantined ones, a list of subreddits, and titles with words of a list.",
        "--sfw/--no-sfw",
    )
    words: Path | None = option(None, "List of words for --sfw.  [default: data/nsfw_words.txt, which explains itself]")
    review: bool = option(
        False,
        "Write nothing; print how many titles of each subreddit the word list hits, to find more for --block.",
        "--review",
    )
    sql: Path | None = option(
        None, "File with a query of your own, one SELECT in BigQuery Standard SQL; it is run as it is, without filters."
    )
    cache: Path | None = option(
        None, "Folder for imported dumps and posts of Arctic Shift.  [default: beside the dump; data/arctic-shift]"
    )
    project: str | None = option(
        None, "BigQuery: the Google Cloud project that pays.  [default: $GOOGLE_CLOUD_PROJECT, else the login's]"
    )
    location: str = option("US", "BigQuery: where the tables are kept.")
    table: str = option(
        "fh-bigquery.reddit_posts.2019_08", "BigQuery: table to read; with --months, any table of the dataset."
    )
    max_bytes: str = option("50GB", "BigQuery: refuse a query that would be billed for more, as 50GB or 1.5TiB.")
    dry_run: bool = option(False, "BigQuery: say what the query would cost, and stop.", "--dry-run")
    job: str | None = option(
        None, "BigQuery: id of a job that fetch ran before, to read its result again without paying."
    )
    subreddit: tuple[str, ...] = option((), "Arctic Shift: subreddits, names between commas. Repeatable.")
    after: str = option("", "Arctic Shift: posts since this date, as 2024-01-31, in UTC.")
    before: str = option("", "Arctic Shift: posts before this date.  [default: now]")
    limit: int = option(1000, "Arctic Shift: the first so many posts of each subreddit since --after.")
    base_url: str = option(ARCTIC_SHIFT_URL, "Arctic Shift: address of the server, or of one that answers alike.")
    refresh: bool = option(False, "Arctic Shift: ask anew for what was fetched before.", "--refresh")
    skip_existing: bool = shared.skip_existing()
    overwrite: bool = option(False, "Replace an output that is already there.", "--overwrite")

    def __post_init__(self) -> None:
        for name in ("top_subreddits", "per_subreddit", "min_length"):
            require_at_least(1, self, name)
        for source in _EXCLUSIVE_SOURCES:
            require(
                source not in self.source or len(self.source) == 1, f"--from {source} does not go with other sources"
            )
        for name, message in self._messages_of_unused(self._fields_of_other_sources()):
            raise UnusedOption(message, name)
        for _, message in self._messages_of_unused(self._conflicting_fields()):
            raise UsageError(message)
        require(
            self.source != ("arctic-shift",) or bool(self.subreddit and self.after),
            "--from arctic-shift needs --subreddit and --after",
        )

    def _fields_of_other_sources(self) -> Iterator[_UnusedFields]:
        for source, names in _EXCLUSIVE_SOURCES.items():
            yield self.source != (source,), names, f"is for --from {source} alone"
        is_bigquery = self.source == ("bigquery",)
        yield is_bigquery, ("mapping", "cache"), "is for files of posts; leave it out with --from bigquery"
        yield self.source == ("arctic-shift",), ("months",), "is for names of files; Arctic Shift has --after, --before"

    def _conflicting_fields(self) -> Iterator[_UnusedFields]:
        is_bigquery, has_sql = self.source == ("bigquery",), self.sql is not None
        yield is_bigquery and has_sql, ("table", "months"), "does not go with --sql: the query names its tables itself"
        yield has_sql, ("columns", "review"), "does not go with --sql: the query names its columns and filters itself"
        yield self.review, ("out", "columns"), "does not go with --review, which writes no file"
        yield self.review, ("min_score", "top_subreddits", "per_subreddit"), "is not for --review: all titles count"
        yield not self.sfw, ("review", "words"), "is about what --sfw leaves out; leave out --no-sfw"
        yield self.job is not None, ("dry_run",), "does not go with --job, which reads a result and costs nothing"

    def _messages_of_unused(self, rules: Iterable[_UnusedFields]) -> Iterator[tuple[str, str]]:
        """Yield the name of each field that has no effect but not its default value, with a message."""
        for is_unused, names, reason in rules:
            for field in dataclasses.fields(self):
                if is_unused and field.name in names and getattr(self, field.name) != field.default:
                    yield field.name, f"{flag(field)} {reason}"
