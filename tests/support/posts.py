"""Synthetic posts of every kind that the rules tell apart, and what of them should come out, found without any SQL."""

import csv
import gzip
import json
import random
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from redditgen.fetch.command import fetch
from redditgen.fetch.sql.columns import COLUMN_TYPES
from redditgen.settings import FetchSettings
from tests.support.paths import ROOT

Post = dict[str, Any]
Row = tuple[Any, ...]
Write = Callable[[Path, Sequence[Post]], None]

DATA = ROOT / "data"

APRIL_2023 = 1680307200  # until then dumps hold titles with HTML entities
FLAGS = ("over_18", "quarantine", "removed_by_category", "promoted", "subreddit_type")

PIECES = (
    *("a", "B", "é", "ß", "日本", "😀", "👩‍🚀", " ", "  ", "\t", "\n", "\r\n", "\r", "\u2028", "\u00a0", "\x85"),
    *("\x00", "\x1f", "\x07", "\x7f", "\x9b", "\u200f", "\u202e", "\u200b", "\ufeff", "\u3000", "\u180e", "e\u0301"),
    *('"', '""', "'", ",", ";", "|", "\\", "\\n", "~@", "~`", "~^", "<|endoftext|>", "$", "%", "{", "#", "NULL"),
    *("&amp;", "&lt;", "&gt;", "&amp;lt;", "&amp;amp;", "&", "&quot;", "&#39;", "&#x27;", "&apos;", "&nbsp;", "\ufffd"),
)
WORDS = ("ass", "Fuck", "bullshit", "blow-job", "Dick", "dick", "cocktail", "Scunthorpe", "Analía", "nude", "FUC\u212a")
NO_TITLES = (None, "", " ", "\n", "\ufffd", " \ufffd\u3000\r\n", "\x00")


def posts(seed: int, n: int = 2500) -> list[Post]:
    """Posts with ties, NULLs, copies, flags, entities of both ages and titles that are hard to carry."""
    rng = random.Random(seed)
    made: list[Post] = []
    for number in range(n):
        post = _post(rng, f"{number * 7919 % n:05x}")
        if made and rng.random() < 0.1:
            copied = rng.choice(made)
            post |= {"subreddit": copied["subreddit"], "title": copied["title"]}
        made.append(post)
    return made


def _post(rng: random.Random, id: str) -> Post:
    names = [*(f"sub_{number}" for number in range(40)), "ME_IRL", "anime_irl", "GoneWild", "AskReddit", "u_someone"]
    return {
        "id": id,
        "subreddit": rng.choice(names) if rng.random() > 0.01 else None,
        "author": rng.choice((None, "[deleted]", *(f"user{rng.randrange(60)}" for _ in range(18)))),
        "title": rng.choice(NO_TITLES) if rng.random() < 0.05 else title(rng),
        "score": rng.randrange(12) if rng.random() > 0.02 else None,
        "num_comments": rng.randrange(100),
        "created_utc": rng.choice((APRIL_2023 - 1, APRIL_2023, rng.randrange(1_300_000_000, 1_760_000_000), None)),
        "over_18": rng.choice((True, *(False,) * 8, None)),
        "quarantine": rng.choice((True, *(False,) * 18, None)),
        "removed_by_category": rng.choice(("moderator", *(None,) * 18)),
        "promoted": rng.choice((True, *(False,) * 18, None)),
        "subreddit_type": rng.choice(("user", *("public",) * 18, None)),
    }


def title(rng: random.Random) -> str:
    pieces = rng.choices(PIECES, k=rng.randrange(1, 12))
    if rng.random() < 0.15:
        pieces.insert(rng.randrange(len(pieces)), rng.choice(("", " ")) + rng.choice(WORDS))
    return "".join(pieces)


# --- what should come out ---


@cache
def clean(title: str | None, created_utc: int | None) -> str:
    # Half a surrogate pair is no character: it is U+FFFD as soon as it is read.
    title = (title or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    title = title.translate({ord(char): None for char in set(title) if char == "\ufffd" or _is_control(char)})
    if created_utc is None or created_utc < APRIL_2023:
        for entity, char in (("lt", "<"), ("gt", ">"), ("quot", '"'), ("#39", "'"), ("#x27", "'"), ("apos", "'")):
            title = title.replace(f"&{entity};", char)
        title = title.replace("&nbsp;", " ").replace("&amp;", "&")
    words = title.translate({ord(char): " " for char in set(title) if _is_blank(char)}).split(" ")
    return " ".join(word for word in words if word)


def _is_blank(char: str) -> bool:
    return char in "\t\n\v\f\r\x85" or unicodedata.category(char) in ("Zs", "Zl", "Zp")


def _is_control(char: str) -> bool:
    return unicodedata.category(char) == "Cc" and not _is_blank(char)


def rule(post: Mapping[str, Any], settings: FetchSettings) -> str | None:
    """The first rule that leaves the post out."""
    subreddit, title = post["subreddit"] or "", clean(post["title"], post.get("created_utc"))
    asked = (
        ("incomplete", not subreddit or not title),
        ("deleted", bool(post.get("removed_by_category")) or post.get("author") == "[deleted]"),
        ("promoted", bool(post.get("promoted"))),
        ("profile", post.get("subreddit_type") == "user" or subreddit.lower().startswith("u_")),
        ("over_18", settings.sfw and bool(post.get("over_18"))),
        ("quarantined", settings.sfw and bool(post.get("quarantine"))),
        ("blocked", subreddit.lower() in blocked(settings)),
        ("short", len(title) < settings.min_length),
        ("words", settings.sfw and has_word(title)),
    )
    return next((name for name, hits in asked if hits), None)


def blocked(settings: FetchSettings) -> set[str]:
    """Of a --block without files."""
    names = {name.strip().lower().removeprefix("/").removeprefix("r/") for name in settings.block.split(",")}
    return names | _nsfw_subreddits() if settings.sfw else names


@cache
def _nsfw_subreddits() -> set[str]:
    lines = (DATA / "nsfw_subreddits.txt").read_text(encoding="utf8").splitlines()
    return {line.lower() for line in lines if not line.startswith("#")}


@cache
def has_word(title: str) -> bool:
    """Whether a word of our own list is in the title."""
    # RE2 takes these two for an s and a k, as Unicode folds them.
    folded = title.translate({ord(char): char.lower() for char in set(title) if len(char.lower()) == 1} | {0x17F: "s"})
    return any(_stands_whole(entry, title if entry.startswith("=") else folded) for entry in _words())


@cache
def _words() -> list[str]:
    lines = (DATA / "nsfw_words.txt").read_text(encoding="utf8").splitlines()
    return [entry for line in lines if not line.startswith("#") for entry in line.split(", ") if entry]


def _stands_whole(entry: str, title: str) -> bool:
    word = entry.strip("=*")
    for joint in (" ", "_", "-", "") if " " in word else ("",):
        written = word.replace(" ", joint)
        start = title.find(written)
        while start >= 0:
            end = start + len(written)
            before, behind = title[max(0, start - 1) : start], title[end : end + 1]
            before_free = entry.startswith("*") or not _is_of_word(before)
            if before_free and (entry.endswith("*") or not _is_of_word(behind)):
                return True
            start = title.find(written, start + 1)
    return False


def _is_of_word(char: str) -> bool:
    return bool(char) and (char == "_" or unicodedata.category(char)[0] in "LN")


def expected(posts: Sequence[Post], settings: FetchSettings) -> list[Row]:
    """The rows of the titles, with the settings' columns, in order."""
    columns = settings.columns.split(",")
    kept = [
        {**dict.fromkeys(columns), **post, "title": clean(post["title"], post.get("created_utc"))}
        for post in posts
        if rule(post, settings) is None
    ]
    top = _top_subreddits(kept, settings)
    further = [name for name in columns if name not in ("subreddit", "title", "score", "id")]
    by_subreddit: dict[str, dict[str, Post]] = defaultdict(dict)
    for post in sorted(kept, key=lambda post: (*_rank(post), *(_nulls_first(post[name]) for name in further))):
        if post["subreddit"] in top:
            by_subreddit[post["subreddit"]].setdefault(post["title"], post)
    return [
        tuple(post[column] for column in columns)
        for name in sorted(by_subreddit)
        for post in sorted(by_subreddit[name].values(), key=lambda post: (*_rank(post), post["title"]))[
            : settings.per_subreddit
        ]
    ]


def _rank(post: Post) -> tuple[Any, ...]:
    score = post.get("score")
    return (score is None, -(score or 0), _nulls_first(post.get("id")))


def _nulls_first(value: Any) -> tuple[bool, Any]:
    return (value is not None, value if value is not None else 0)


def _top_subreddits(kept: Sequence[Post], settings: FetchSettings) -> set[str]:
    authors: dict[str, set[str]] = defaultdict(set)
    for post in kept:
        score = post.get("score")
        if score is None or score >= settings.min_score:
            author = post.get("author") or post.get("id")
            authors[post["subreddit"]] |= {author} if author is not None else set()
    return set(sorted(authors, key=lambda name: (-len(authors[name]), name))[: settings.top_subreddits])


def left_out(posts: Sequence[Post], settings: FetchSettings) -> dict[str, int]:
    """How many posts each rule leaves out, the rules that leave out none aside."""
    counts = Counter(rule(post, settings) for post in posts)
    kept = [
        (post["subreddit"], clean(post["title"], post.get("created_utc")))
        for post in posts
        if rule(post, settings) is None
    ]
    counts["duplicate"] = len(kept) - len(set(kept))
    return {name: count for name, count in counts.items() if name and count}


# --- files of posts ---


def write_ndjson(path: Path, posts: Sequence[Post]) -> None:
    path.write_bytes(_lines(posts))


def _lines(posts: Sequence[Post]) -> bytes:
    return "".join(json.dumps(post) + "\n" for post in posts).encode("ascii")


def write_csv(path: Path, posts: Sequence[Post]) -> None:
    with path.open("w", encoding="utf8", newline="") as file:
        # Else a carriage return gets no quotes from Python 3.11 and 3.12.
        writer = csv.DictWriter(file, list(posts[0]), quoting=csv.QUOTE_NONNUMERIC)
        writer.writeheader()
        writer.writerows(posts)


def write_parquet(path: Path, posts: Sequence[Post]) -> None:
    types = {"STRING": pa.string(), "INT64": pa.int64(), "BOOL": pa.bool_()}
    schema = pa.schema([(name, types[COLUMN_TYPES[name]]) for name in posts[0]])
    pq.write_table(pa.Table.from_pylist(list(posts), schema), path, row_group_size=2048)


def gzipped(write: Write) -> Write:
    def write_gzipped(path: Path, posts: Sequence[Post]) -> None:
        write(path, posts)
        path.write_bytes(gzip.compress(path.read_bytes()))

    return write_gzipped


def write_dump(path: Path, posts: Sequence[Post]) -> None:
    """As the monthly dumps are: a window of 2 GiB, and a frame that does not say how long it is."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=31)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path.write_bytes(packer.compress(_lines(posts)) + packer.flush())


WRITERS: dict[str, Write] = {
    ".parquet": write_parquet,
    ".csv": write_csv,
    ".csv.gz": gzipped(write_csv),
    ".ndjson": write_ndjson,
    ".jsonl.gz": gzipped(write_ndjson),
}
"""Of the files that are read as they are."""

SOURCES = WRITERS | {".zst": write_dump}
"""Of all local files; of a dump a Parquet file is made beside it."""

JSON = (".ndjson", ".jsonl.gz", ".zst")
"""Suffixes of those that can hold half a surrogate pair."""


def in_months(posts: Sequence[Post], months: Sequence[str]) -> Iterator[tuple[str, list[Post]]]:
    """The posts dealt out to months, evenly."""
    for place, month in enumerate(months):
        yield month, list(posts[place :: len(months)])


def one_post(**fields: Any) -> Post:
    default = {"id": "a1", "subreddit": "aww", "author": "x", "title": "A cat, asleep", "score": 9, "over_18": False}
    return {**default, **fields}


# --- fetching them ---


def setup_for(folder: Path, *sources: Path | str, **options: Any) -> FetchSettings:
    """Settings that write to out/titles.csv in the folder, if not told otherwise."""
    out = folder / "out" / options.pop("out", "titles.csv")
    return FetchSettings(source=tuple(map(str, sources)), out=out, **options)


def fetched(setup: FetchSettings) -> list[Row]:
    """The rows that `fetch` writes."""
    fetch(setup)
    return read_rows(setup.out)


def fails(setup: FetchSettings, error: type[Exception], *words: str) -> None:
    """The fetch fails on one line that holds the words, and leaves nothing behind."""
    with pytest.raises(error) as caught:
        fetch(setup)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message
    assert not setup.out.parent.exists() or not list(setup.out.parent.iterdir())


ENDLESS = (
    "SELECT COUNT(*) AS n FROM UNNEST(GENERATE_ARRAY(1, 1000000)) a, UNNEST(GENERATE_ARRAY(1, 1000000)) b "
    "WHERE MOD(a * b, 7) = 3"
)
"""A query that goes on for hours."""


def read_rows(path: Path) -> list[Row]:
    """The rows of a file of titles; of a CSV, where all is text, None is ''."""
    if path.suffix == ".parquet":
        return [tuple(row.values()) for row in pq.read_table(path).to_pylist()]
    with path.open(encoding="utf8", newline="") as file:
        if path.suffix == ".csv":
            csv.field_size_limit(1 << 30)
            return [tuple(row) for row in csv.reader(file)][1:]
        return [tuple(json.loads(line).values()) for line in file]
