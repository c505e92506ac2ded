"""The room of `redditgen serve`, a local web page and a JSON API over a run; no module is in it yet."""
