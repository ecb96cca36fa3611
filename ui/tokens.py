"""Who may come in: named tokens, each with a scope, and the signed cookie that one is exchanged for."""

import hashlib
import hmac
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spine.errors import ConfigError

SCOPES = ("read", "write")
"""read looks; write decides, starts jobs and changes settings as well."""

_LASTS_S = 30 * 86_400
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_LEAST_SIGNS = 12


@dataclass(frozen=True, slots=True)
class Token:
    """One person's or program's way in."""

    name: str
    """Decisions are recorded under it."""
    scope: str
    """One of SCOPES."""
    secret: str

    def cookie(self, now: float | None = None) -> str:
        """What the browser keeps instead of the secret: name, last day and a signature by it."""
        until = int((time.time() if now is None else now) + _LASTS_S)
        return f"{self.name}.{until}.{self._signature(until)}"

    def _signature(self, until: int) -> str:
        return hmac.new(self.secret.encode(), f"{self.name}.{until}".encode(), hashlib.sha256).hexdigest()

    def signed(self, cookie: str, now: float | None = None) -> bool:
        """Whether this token made a cookie that still holds."""
        parts = cookie.split(".")
        if len(parts) != 3 or parts[0] != self.name or not re.fullmatch(r"[0-9]{1,12}", parts[1]):
            return False
        until = int(parts[1])
        right = hmac.compare_digest(parts[2].encode(), self._signature(until).encode())
        return right and until > (time.time() if now is None else now)


def find_by_secret(tokens: Sequence[Token], given: str) -> Token | None:
    """The token with this secret; all are compared, so that the time tells nothing."""
    found = [token for token in tokens if hmac.compare_digest(token.secret.encode(), given.encode())]
    return found[0] if found else None


def find_by_cookie(tokens: Sequence[Token], cookie: str) -> Token | None:
    """The token that made this cookie; None where none did, or it is over."""
    return next((token for token in tokens if token.signed(cookie)), None)


def read_tokens(path: Path) -> list[Token]:
    """Tokens from a text file: a line each of NAME, SCOPE and the secret; lines with # don't count.

    Raises:
        ConfigError: It can't be read, or a line is wrong; a secret is never repeated in the message.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read ({error})") from None
    tokens: list[Token] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = line.split()
        if len(words) != 3 or words[1] not in SCOPES or not _NAME.fullmatch(words[0]):
            raise ConfigError(
                f"{path}, line {number}: NAME read|write SECRET was needed, such as: ada write …"
            )
        if len(words[2]) < _LEAST_SIGNS:
            raise ConfigError(
                f"{path}, line {number}: the secret has fewer than {_LEAST_SIGNS} signs; make a longer one"
            )
        if words[0] in (token.name for token in tokens):
            raise ConfigError(
                f"{path}, line {number}: {words[0]} stands there twice; give each a name of its own"
            )
        tokens.append(Token(*words))
    if not tokens:
        raise ConfigError(f"{path}: no token in it; write a line: ada write SECRET")
    return tokens
