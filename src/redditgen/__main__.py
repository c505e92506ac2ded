"""`python -m redditgen`."""

from redditgen.cli import main

main()
