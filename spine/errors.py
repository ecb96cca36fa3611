"""What can go wrong in a way that a user can put right.

The command prints a `FactoryError`'s message alone and exits 1; the server answers 4xx with it.
Every message says where, what was found, what was needed and what to do. Anything else that is
raised is a bug and keeps its traceback.
"""


class FactoryError(Exception):
    """Something a user can put right; the message is written for them."""


class ConfigError(FactoryError):
    """A setting is unknown or has a value it can't have."""


class DataError(FactoryError):
    """A file, folder, table or array is not what the stage needs."""


class ModelError(FactoryError):
    """A model's weights or files are missing, or don't fit what they are used for."""


class ImageError(FactoryError):
    """One picture can't be used.

    Attributes:
        reason: One of `spine.images.REFUSALS`: what a stage counts it under.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class WebError(FactoryError):
    """One address can't be fetched.

    Attributes:
        reason: One of `spine.web.REFUSALS`: what a stage counts it under.
        retry_after_s: Seconds the other side asked to wait, None if it didn't.
        status: Its HTTP status, None where there was no answer.
    """

    def __init__(
        self, reason: str, message: str, *, retry_after_s: float | None = None, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status
        self.retry_after_s = retry_after_s


class ServiceError(FactoryError):
    """A server we asked (retrieval, captions) refused or failed.

    Attributes:
        status: Its HTTP status, None where there was no answer.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
