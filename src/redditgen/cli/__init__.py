"""The command line: a function for each command, options, messages, exit codes.

Only this package prints and exits.
"""
