"""The columns of Reddit posts, with BigQuery's types.

The tables of fh-bigquery.reddit_posts have all of them except removed_by_category, subreddit_type and promoted.
"""

_NAMES_BY_TYPE = {
    "STRING": (
        *("subreddit", "author", "domain", "url", "title", "selftext", "id", "from_kind", "from_", "thumbnail"),
        *("subreddit_id", "link_flair_css_class", "author_flair_css_class", "from_id", "permalink", "name"),
        *("author_flair_text", "link_flair_text", "distinguished", "removed_by_category", "subreddit_type"),
    ),
    "INT64": ("created_utc", "num_comments", "score", "ups", "downs", "gilded", "retrieved_on"),
    "BOOL": ("saved", "stickied", "over_18", "hide_score", "archived", "is_self", "quarantine", "promoted"),
}

COLUMN_TYPES = {name: type for type, names in _NAMES_BY_TYPE.items() for name in names}

REQUIRED_COLUMNS = ("subreddit", "title")

# Columns that can mark a post as one to leave out.
FLAG_COLUMNS = ("over_18", "quarantine", "removed_by_category", "promoted", "subreddit_type")


DUMP_COLUMN_TYPES = {
    **dict.fromkeys(("id", "subreddit", "title", "author"), "VARCHAR"),
    **dict.fromkeys(("score", "created_utc", "num_comments"), "BIGINT"),
    **dict.fromkeys(("over_18", "quarantine", "promoted", "is_self", "stickied"), "BOOLEAN"),
    **dict.fromkeys(("removed_by_category", "subreddit_type", "domain", "link_flair_text"), "VARCHAR"),
}
"""The columns kept of a dump or of Arctic Shift's posts, with DuckDB's types.

A value is NULL where a line lacks the key or holds a value of another type.
"""
