-- The best titles of the top subreddits, in BigQuery Standard SQL; every source of posts runs this same text.
--
-- A post is judged by the first rule that hits it. What is left decides, by distinct authors of posts that scored, which
-- subreddits are the top ones, and of these the titles with the highest scores come out, each once a subreddit. Ties are
-- broken by name and id: an order with ties gives other titles from run to run, and at the last rank that comes out
-- nearly every subreddit has some.
WITH
  -- Nothing below names a table. In place of a column that the table lacks, redditgen writes NULL here.
  posts AS (
    SELECT
      subreddit, title, id, author, score, created_utc,
      over_18, quarantine, removed_by_category, promoted, subreddit_type
    FROM `fh-bigquery.reddit_posts.2019_08`
  ),
  -- A title as one line: no U+FFFD and no control characters; HTML entities unescaped once, &amp; last; white space
  -- folded to single blanks. Dumps hold escaped titles until March 2023 (1680307200 is 2023-04-01), and so does,
  -- presumably, what has no date. The first condition is there for speed: nine titles in ten are clean already.
  cleaned AS (
    SELECT * REPLACE (
      IF(
        REGEXP_CONTAINS(title, r'[\x00-\x1F\x7F-\x{9F}\x{FFFD}&]|[^\P{Z} ]|  |^ | $'),
        TRIM(
          REGEXP_REPLACE(
            REGEXP_REPLACE(
              IF(
                IFNULL(created_utc, 0) < 1680307200,
                REPLACE(REPLACE(REPLACE(REPLACE(REPLACE(REPLACE(REPLACE(REPLACE(
                  REGEXP_REPLACE(title, r'[\x00-\x08\x0E-\x1F\x7F-\x{84}\x{86}-\x{9F}\x{FFFD}]', ''),
                  '&lt;', '<'), '&gt;', '>'), '&quot;', '"'), '&#39;', "'"), '&#x27;', "'"), '&apos;', "'"),
                  '&nbsp;', ' '), '&amp;', '&'),
                REGEXP_REPLACE(title, r'[\x00-\x08\x0E-\x1F\x7F-\x{84}\x{86}-\x{9F}\x{FFFD}]', '')
              ),
              r'[\x09-\x0D\x{85}]|[^\P{Z} ]', ' '
            ),
            r'  +', ' '
          ),
          ' '
        ),
        title
      ) AS title
    )
    FROM posts
  ),
  judged AS (
    SELECT
      subreddit, title, id, author, score,
      CASE
        WHEN IFNULL(subreddit, '') = '' OR IFNULL(title, '') = '' THEN 'incomplete'
        -- Who deleted a post, or the account, does not want it used. Where there is no removed_by_category, what
        -- moderators removed shows only in selftext, the dearest column of all; it is not read.
        WHEN IFNULL(removed_by_category, '') != '' OR author = '[deleted]' THEN 'deleted'
        WHEN promoted THEN 'promoted'
        WHEN subreddit_type = 'user' OR STARTS_WITH(LOWER(subreddit), 'u_') THEN 'profile'
        WHEN @sfw AND over_18 THEN 'over_18'
        WHEN @sfw AND quarantine THEN 'quarantined'
        WHEN LOWER(subreddit) IN UNNEST(@block) THEN 'blocked'
        WHEN CHAR_LENGTH(title) < @min_length THEN 'short'
        WHEN @sfw AND REGEXP_CONTAINS(title, @words) THEN 'words'
      END AS rule
    FROM cleaned
  ),
  -- A post without a score counts as having just enough; one without an author, as having one of its own.
  subreddits AS (
    SELECT subreddit
    FROM judged
    WHERE rule IS NULL AND IFNULL(score, @min_score) >= @min_score
    GROUP BY subreddit
    ORDER BY COUNT(DISTINCT IFNULL(author, id)) DESC, subreddit
    LIMIT @top_subreddits
  ),
  -- Also the same post in two files is one title.
  copies AS (
    SELECT *, ROW_NUMBER() OVER (PARTITION BY subreddit, title ORDER BY score DESC, id) AS copy
    FROM judged
    WHERE rule IS NULL AND subreddit IN (SELECT subreddit FROM subreddits)
  ),
  ranked AS (
    SELECT *, ROW_NUMBER() OVER (PARTITION BY subreddit ORDER BY score DESC, id, title) AS score_rank
    FROM copies
    WHERE copy = 1
  )
SELECT subreddit, title
FROM ranked
WHERE score_rank <= @per_subreddit
ORDER BY subreddit, score_rank
