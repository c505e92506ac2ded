"""Run the command line: `python -m redditgen`."""

from redditgen.cli.app import main

main()
