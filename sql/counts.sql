-- How many posts each rule of titles.sql leaves out, behind its common table expressions up to `judged`. Duplicates are
-- counted among all posts that no rule hits, whether their subreddit is a top one or not.
SELECT IFNULL(rule, 'kept') AS verdict, COUNT(*) AS posts
FROM judged
GROUP BY verdict
UNION ALL
SELECT 'duplicate', IFNULL(SUM(posts - 1), 0)
FROM (SELECT COUNT(*) AS posts FROM judged WHERE rule IS NULL GROUP BY subreddit, title)
