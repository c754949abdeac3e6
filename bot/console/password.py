"""The console's password: kept as a scrypt hash, in a file or made at start from the environment.

Invariant: the password itself is written nowhere. A hash reads `scrypt$<salt>$<hash>` in
hexadecimal. Knows nothing of cookies.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from core.errors import ConfigError, InvalidInput
from core.settings import Settings

PASSWORD_FILE = "console.password"  # noqa: S105 # a file's name
KEY_FILE = "console.key"
MIN_CHARS = 10
MAX_CHARS = 1000
_N, _R, _P = 1 << 15, 8, 1
"""32 MiB and about a tenth of a second for each try."""
_MEMORY_BYTES = 64 << 20


def hash_password(password: str, salt: bytes | None = None) -> str:
    """Hash a password; takes about a tenth of a second."""
    salt = salt or secrets.token_bytes(16)
    return f"scrypt${salt.hex()}${_scrypt(password, salt).hex()}"


def matches(password: str, stored: str) -> bool:
    """Say whether a password has this hash; takes as long for a wrong one as for the right one."""
    _, salt, expected = stored.split("$")
    found = _scrypt(password[:MAX_CHARS], bytes.fromhex(salt))
    return hmac.compare_digest(found, bytes.fromhex(expected))


def checked_password(password: str) -> str:
    """Return a password that may be set. Raises InvalidInput."""
    if not MIN_CHARS <= len(password) <= MAX_CHARS:
        raise InvalidInput(
            f"the password has {len(password)} characters; expected {MIN_CHARS} to {MAX_CHARS}, "
            "choose a longer one, four words for example"
        )
    return password


def store_password(data_dir: Path, password: str) -> Path:
    """Write the hash of a password; return its file. A running console asks for it once restarted.

    Raises InvalidInput for one that is too short.
    """
    path = data_dir / PASSWORD_FILE
    data_dir.mkdir(parents=True, exist_ok=True)
    _write_private(path, hash_password(checked_password(password)) + "\n")
    return path


def password_hash(settings: Settings, key: bytes) -> str | None:
    """Return the hash to compare with, or None where there is no password.

    The environment goes before the file. Raises ConfigError for a file that holds no hash.
    """
    if settings.console_password is not None:
        given = settings.console_password.get_secret_value()
        try:
            checked_password(given)
        except InvalidInput as error:
            raise ConfigError([f"THUMBTUNE_CONSOLE_PASSWORD: {error}"]) from None
        return hash_password(given, hashlib.sha256(key).digest()[:16])
    path = settings.data_dir / PASSWORD_FILE
    if not path.exists():
        return None
    stored = path.read_text(encoding="utf-8").strip()
    if not _is_hash(stored):
        raise ConfigError([f"{path}: holds no password; set one with: thumbtune console-password"])
    return stored


def signing_key(data_dir: Path) -> bytes:
    """Return the key that cookies are signed with, made at the first call and kept."""
    path = data_dir / KEY_FILE
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        _write_private(path, secrets.token_hex(32))
    return bytes.fromhex(path.read_text(encoding="utf-8").strip())


def _write_private(path: Path, text: str) -> None:
    """Write a file, whole or not at all, that only its owner ever reads."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123 # a mode from the first moment
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _is_hash(stored: str) -> bool:
    parts = stored.split("$")
    if len(parts) != 3 or parts[0] != "scrypt":
        return False
    try:
        return all(bytes.fromhex(part) for part in parts[1:])
    except ValueError:
        return False


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "replace"), salt=salt, n=_N, r=_R, p=_P, maxmem=_MEMORY_BYTES
    )
