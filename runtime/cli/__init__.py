"""Shared by all commands: parsers, arguments, exit codes, errors as one sentence or a traceback."""
