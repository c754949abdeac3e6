"""Keys of the HTTP API: made, shown once, found again by their hash, revoked. Knows no face.

A key is 256 random bits, so a plain SHA-256 of it is enough: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass

from core.errors import InvalidInput
from core.manifest import check_scope
from core.records import ApiKey, ApiRole
from storage.aio import AsyncDatabase
from storage.database import Database

DEFAULT_API_SCOPE = "api"
PREFIX = "tt-"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
LOCAL = "local"
"""What people are named after where no key is asked for; no key may have this name."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made; `secret` is nowhere else."""

    key: ApiKey
    secret: str


async def make_key(
    database: AsyncDatabase,
    name: str,
    *,
    role: ApiRole = "user",
    scope: str = DEFAULT_API_SCOPE,
    consented: bool = False,
    actor: str,
) -> NewKey:
    """Make a key and store its hash. Raises InvalidInput for a name, Conflict for one in use."""
    if not _NAME.fullmatch(name) or name == LOCAL:
        raise InvalidInput(
            f"key {name!r}: expected 1 to 64 of a-z, 0-9, '-' and '_', not starting with '-' or "
            f"'_', and not {LOCAL!r}"
        )
    check_scope(scope)
    secret = PREFIX + secrets.token_urlsafe(32)

    def added(db: Database) -> ApiKey:
        return db.keys.add(
            name, hash_key(secret), role=role, scope=scope, consented=consented, actor=actor
        )

    return NewKey(await database.run(added), secret)


def hash_key(secret: str) -> str:
    """Return what is stored of a key."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
