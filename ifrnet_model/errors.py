"""The error of this package."""


class CheckpointError(Exception):
    """A checkpoint cannot be downloaded, loaded or written; the message says what to do."""
