"""Reserved for `redditgen serve`, a local web page and a JSON API over a run. It has no modules yet."""
