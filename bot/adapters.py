"""Changing which adapter speaks: checked on disk first, then one flip in the database.

Works without an engine: a running bot sees the flip and follows (bot.registry). Every change is an
audit line.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from core.errors import AdapterRefused, InvalidInput
from core.generation import BASE
from core.manifest import parse_adapter_name, read_manifest, verify_content
from core.records import AdapterRecord, Scope
from storage.aio import AsyncDatabase


def verify(record: AdapterRecord, data_dir: Path) -> None:
    """Check an adapter's bytes against its manifest and its row; raises AdapterRefused."""
    directory = data_dir / record.directory
    manifest = read_manifest(directory)
    verify_content(directory, manifest)
    for what, found, expected in (
        ("name", manifest.name, record.name),
        ("sha256", manifest.sha256, record.sha256),
        ("base_sha256", manifest.base_sha256, record.base_sha256),
    ):
        if found != expected:
            raise AdapterRefused(f"{directory}: {what} is {found}, the database says {expected}")


async def promote(
    database: AsyncDatabase,
    data_dir: Path,
    name: str,
    *,
    scope: str | None = None,
    actor: str,
    force: bool = False,
) -> Scope:
    """Let `name` speak from the next reply on. Raises AdapterRefused, NotFound or Conflict."""
    if name == BASE:
        if scope is None:
            raise InvalidInput("base belongs to every scope; say which one with --scope")
        return await database.run(lambda db: db.adapters.promote_base(scope, actor=actor))
    parse_adapter_name(name)
    await _check(database, data_dir, name)
    return await database.run(lambda db: db.adapters.promote(name, actor=actor, force=force))


async def roll_back(database: AsyncDatabase, data_dir: Path, scope: str, *, actor: str) -> Scope:
    """Let the scope's previous adapter (or the base) speak again. Raises Conflict or
    AdapterRefused.
    """
    now = await database.run(lambda db: db.scopes.ensure(scope))
    if now.previous:
        await _check(database, data_dir, now.previous)
    return await database.run(lambda db: db.adapters.rollback(scope, actor=actor))


async def _check(database: AsyncDatabase, data_dir: Path, name: str) -> None:
    record = await database.run(lambda db: db.adapters.get(name))
    await asyncio.to_thread(verify, record, data_dir)
