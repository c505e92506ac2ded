"""The columns of Reddit posts, with BigQuery's types.

fh-bigquery.reddit_posts has all but removed_by_category, subreddit_type and promoted.
"""

_OF_TYPE = {
    "STRING": (
        *("subreddit", "author", "domain", "url", "title", "selftext", "id", "from_kind", "from_", "thumbnail"),
        *("subreddit_id", "link_flair_css_class", "author_flair_css_class", "from_id", "permalink", "name"),
        *("author_flair_text", "link_flair_text", "distinguished", "removed_by_category", "subreddit_type"),
    ),
    "INT64": ("created_utc", "num_comments", "score", "ups", "downs", "gilded", "retrieved_on"),
    "BOOL": ("saved", "stickied", "over_18", "hide_score", "archived", "is_self", "quarantine", "promoted"),
}

TYPES = {name: type for type, names in _OF_TYPE.items() for name in names}

NEEDED = ("subreddit", "title")

# What marks a post as one to leave out.
FLAGS = ("over_18", "quarantine", "removed_by_category", "promoted", "subreddit_type")
