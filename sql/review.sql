-- How many titles of each subreddit the word list hits, behind titles.sql's common table expressions up to `judged`, with
-- an example in which the words are masked. A hit takes the characters around it along, so that of two words in a row the
-- second is left for the second time.
SELECT
  subreddit,
  COUNTIF(rule = 'words') AS hits,
  COUNT(*) AS titles,
  REGEXP_REPLACE(REGEXP_REPLACE(MIN(IF(rule = 'words', title, NULL)), @words, r'\1***\2\3'), @words, r'\1***\2\3') AS example
FROM judged
WHERE rule IS NULL OR rule = 'words'
GROUP BY subreddit
HAVING COUNTIF(rule = 'words') > 0
ORDER BY hits DESC, subreddit
