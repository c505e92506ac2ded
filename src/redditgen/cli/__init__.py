"""The command line: one function per command, options, messages and exit codes.

Only this package prints and exits.
"""
