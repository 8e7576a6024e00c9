"""Everything tokenswarm raises. What a user sees names the option, the value, the file or the line, and what to do."""

from __future__ import annotations

from typing import Final

MOST_SAID: Final = 4096
"""Characters of an error that are kept: it may hold whatever a server has said."""


class TokenswarmError(Exception):
    """Base of all errors of this package."""


class OptionError(TokenswarmError):
    """One or more options are wrong; the message lists every one of them."""


class RunDirectoryError(TokenswarmError):
    """A run directory cannot be written or read."""


class AnalysisError(TokenswarmError):
    """A file, or a wish, that an analysis can do nothing with."""


class TargetError(TokenswarmError):
    """The model server cannot be reached or refuses what we ask of it, found out before load starts."""


class MessageError(TokenswarmError):
    """What a worker or the master sent is no message of ours; the text says what is wrong with it."""


class DatasetError(TokenswarmError):
    """A dataset or a trace cannot be read, or a line of it cannot be used where none may be left out."""


class WritingError(DatasetError):
    """A prompt cannot be made up as it is wanted."""


class Exhausted(TokenswarmError):
    """A source of prompts that asks each record once has nothing more for this worker."""


class RequestError(TokenswarmError):
    """One request failed. `error_class` is one of `record.ERROR_CLASSES`; the message is for people."""

    def __init__(self, error_class: str, message: str, http_status: int | None = None) -> None:
        super().__init__(message[:MOST_SAID])
        self.error_class = error_class
        self.http_status = http_status
