"""How the server says no: a status, a stable code, and one sentence for a person."""

from spine.errors import FactoryError


class Refusal(FactoryError):
    """A request that can't be answered, for a reason the asker can read.

    The message goes out as it is: no path, no trace, nothing of the machine in it.

    Attributes:
        status: HTTP status, 4xx, or 503 where the server is full.
        code: One word that programs can rely on.
    """

    def __init__(self, message: str, *, status: int = 400, code: str = "bad_request") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
