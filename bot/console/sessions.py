"""Who is on the other side: a signed cookie, the token that goes with it, and slow guessing.

Invariant: a cookie is worth what its signature says and nothing is kept of it here, so a restart
logs nobody out; another password does, since the key holds it. The token against forged requests
belongs to one cookie and cannot be read by another site's page.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

COOKIE = "thumbtune_console"
LIFE_S = 30 * 24 * 3600
TRIES_EACH = 5
TRIES_ALL = 30
TRIES_WITHIN_S = 60.0
"""So many wrong passwords from one address, and from all together, within a minute."""


@dataclass(frozen=True, slots=True)
class Session:
    """One browser; `known` says that it gave the password, where there is one."""

    id: str
    known: bool
    begun_s: int


class Sessions:
    """Makes and reads cookies. `clock` is in seconds since 1970."""

    def __init__(self, key: bytes, password_hash: str | None, clock: Callable[[], float]) -> None:
        self._key = hmac.digest(key, (password_hash or "").encode(), hashlib.sha256)
        self._clock = clock

    def begin(self, *, known: bool) -> Session:
        """Begin a session; one that gives the password gets a new one, never its old id."""
        return Session(secrets.token_hex(16), known, int(self._clock()))

    def cookie(self, session: Session) -> str:
        """Return a session as a cookie's value."""
        said = f"{session.id}.{session.begun_s}.{int(session.known)}"
        return f"{said}.{self._sign('session', said)}"

    def read(self, cookie: str) -> Session | None:
        """Return the session of a cookie, None for one that is not ours, altered or too old."""
        said, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign("session", said).encode()):
            return None
        identity, begun, known = said.split(".")
        session = Session(identity, known == "1", int(begun))
        return session if self._clock() - session.begun_s < LIFE_S else None

    def token(self, session: Session) -> str:
        """Return the token that every request that changes something must carry."""
        return self._sign("token", session.id)

    def token_fits(self, session: Session, token: str) -> bool:
        """Say whether a token belongs to the session."""
        return hmac.compare_digest(token.encode(), self.token(session).encode())

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


class Throttle:
    """Counts wrong passwords, of one address and of all. `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wrong: deque[tuple[float, str]] = deque()

    def wait_s(self, address: str) -> float:
        """Return how long this address must wait before it may try again; 0 if it may now."""
        now = self._clock()
        while self._wrong and now - self._wrong[0][0] >= TRIES_WITHIN_S:
            self._wrong.popleft()
        own = [at for at, tried in self._wrong if tried == address]
        waits = [0.0]
        if len(own) >= TRIES_EACH:
            waits.append(own[-TRIES_EACH] + TRIES_WITHIN_S - now)
        if len(self._wrong) >= TRIES_ALL:
            waits.append(self._wrong[-TRIES_ALL][0] + TRIES_WITHIN_S - now)
        return max(waits)

    def note(self, address: str) -> None:
        """Count a wrong password."""
        self._wrong.append((self._clock(), address))
