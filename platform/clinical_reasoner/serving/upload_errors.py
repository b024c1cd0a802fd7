"""Why something that was sent cannot be used: the field, a few words, and the HTTP status."""

from __future__ import annotations

TOO_LARGE, WRONG_KIND, UNUSABLE = 413, 415, 422


class UploadError(Exception):
    """What was sent cannot be used. Neither a file's name nor anything out of a file is in it."""

    def __init__(self, field: str, message: str, status: int = UNUSABLE) -> None:
        super().__init__(field, message, status)
        self.field = field
        """Part of the form, e.g. `scan`."""
        self.message = message
        """What is wrong and, where there is one, the limit."""
        self.status = status
        """HTTP status for the client."""
