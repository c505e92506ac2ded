-- The best titles of the top subreddits, in BigQuery Standard SQL; the local engine runs the same text.
--
-- Top subreddits are those with the most distinct authors of posts that scored. Ties are broken by name, id and title:
-- an order with ties gives other titles from run to run, and at the cut-off rank nearly every subreddit has some.
-- A title comes out as one line: Reddit's three entities unescaped (&amp; last, so that nothing is unescaped twice),
-- U+FFFD removed, runs of white space (control characters and separators) folded to one blank.
WITH
  subreddits AS (
    SELECT subreddit
    FROM `fh-bigquery.reddit_posts.2019_08`
    WHERE score >= @min_score
      AND subreddit IS NOT NULL
      AND LOWER(subreddit) NOT IN UNNEST(@block)
      AND (NOT @sfw OR NOT IFNULL(over_18, FALSE))
    GROUP BY subreddit
    ORDER BY COUNT(DISTINCT author) DESC, subreddit
    LIMIT @top_subreddits
  ),
  ranked AS (
    SELECT
      subreddit,
      title,
      ROW_NUMBER() OVER (PARTITION BY subreddit ORDER BY score DESC, id, title) AS score_rank
    FROM `fh-bigquery.reddit_posts.2019_08`
    WHERE subreddit IN (SELECT subreddit FROM subreddits)
      AND (NOT @sfw OR NOT IFNULL(over_18, FALSE))
      -- NULL, or nothing left once it is cleaned: such a title must not take a rank.
      AND REGEXP_CONTAINS(title, r'[^\p{Cc}\p{Z}\x{FFFD}]')
  )
SELECT
  subreddit,
  TRIM(REGEXP_REPLACE(
    REPLACE(REPLACE(REPLACE(REPLACE(title, '\uFFFD', ''), '&lt;', '<'), '&gt;', '>'), '&amp;', '&'),
    r'[\p{Cc}\p{Z}]+',
    ' '
  )) AS title
FROM ranked
WHERE score_rank <= @per_subreddit
ORDER BY subreddit, score_rank
