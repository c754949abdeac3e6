"""The adapter versions of a scope: what is known of each, and which one speaks.

A change is checked on disk first, then it is one flip in the database and an audit line. Works
without an engine: a running bot sees the flip and follows (bot.registry).
"""

from __future__ import annotations

import asyncio
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from core.errors import AdapterRefused, Conflict, InvalidInput, NotFound
from core.generation import BASE
from core.manifest import adapter_name, parse_adapter_name, read_manifest, verify_content
from core.records import AdapterRecord, Run, Scope, Trial
from core.report import Interval, Report
from storage.aio import AsyncDatabase
from storage.database import Database

MAX_SHARE = 0.9
"""A trial needs somebody to compare with."""
Likes = tuple[int, int]
"""Thumbs up and thumbs down."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """The versions of one scope, newest first, and their likes by name (`base` included).

    `live` and `previous` are names; `base` where no adapter was ever promoted. `canary` is the
    version on trial, None where none is.
    """

    adapters: tuple[AdapterRecord, ...]
    live: str
    previous: str
    likes: dict[str, Likes]
    canary: str | None = None

    @property
    def rates(self) -> list[tuple[str, int, int]]:
        """Return (name, thumbs up, thumbs down) of what was voted on, oldest first."""
        names = [BASE, *(record.name for record in reversed(self.adapters))]
        return [(name, *self.likes[name]) for name in names if name in self.likes]

    @property
    def moved(self) -> bool:
        """Say whether anything but the base ever spoke, so that there is a way back."""
        return self.canary is not None or (self.live, self.previous) != (BASE, BASE)


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of one version; None where it was not.

    `keep_score`: share of the keep-set passed; `accuracy`: share of held-out comparisons in the
    order people voted (0.5 is chance); `odds`: how many times the base's the odds of a 👍 are, as
    foretold from the votes.
    """

    name: str
    likes: Likes
    keep_score: float | None
    accuracy: Interval | None
    odds: Interval | None


async def shelf(database: AsyncDatabase, scope: str) -> Shelf:
    """Return all versions of a scope; an unknown scope has none, and the base speaks."""

    def read(db: Database) -> Shelf:
        row = _scope_row(db, scope)
        return Shelf(
            adapters=tuple(reversed(db.adapters.list(scope))),
            live=(row.live if row else None) or BASE,
            previous=(row.previous if row else None) or BASE,
            likes=db.feedback.like_rates(scope),
            canary=row.canary if row else None,
        )

    return await database.run(read)


async def find(database: AsyncDatabase, scope: str, name: str) -> str:
    """Return the full name of a version of this scope, called `v3`, `3`, by its name, or `base`.

    Raises NotFound, with the same words whether it does not exist or belongs to another scope.
    """
    wanted = name.strip().lower()
    if wanted == BASE:
        return BASE
    number = wanted.removeprefix("v")
    if number.isascii() and number.isdigit():
        wanted = adapter_name(scope, int(number))
    known = await database.run(lambda db: db.adapters.list(scope))
    if wanted not in {one.name for one in known}:
        versions = ", ".join(f"v{one.version}" for one in known) or "none yet"
        raise NotFound(f"there is no version {name[:80]!r} here; known: {versions}")
    return wanted


def reason_of(record: AdapterRecord, data_dir: Path) -> str:
    """Return why a version is in its state, fit to be shown: without the paths of this machine."""
    return record.detail.removeprefix("Refused: ").replace(f"{data_dir}/", "")


async def run_of(database: AsyncDatabase, record: AdapterRecord) -> Run | None:
    """Return the training run that made a version, or None for one that came from elsewhere."""
    run_id = record.run_id
    if run_id is None:
        return None
    try:
        return await database.run(lambda db: db.runs.get(run_id))
    except NotFound:
        return None


def report_of(run: Run) -> Report | None:
    """Return a run's stored report; one that an older version wrote differently is left out."""
    try:
        return Report.model_validate((run.report or {}).get("report"))
    except ValidationError:
        return None


async def side_by_side(
    database: AsyncDatabase, scope: str, one: str, other: str
) -> tuple[Figures, Figures]:
    """Return what was measured of two versions of a scope; the base's figures are those that the
    other's report has of it.
    """
    stand = await shelf(database, scope)
    reports: dict[str, Report] = {}
    for record in stand.adapters:
        if record.name in (one, other) and (run := await run_of(database, record)):
            report = report_of(run)
            reports |= {record.name: report} if report else {}
    first, second = (_figures(name, stand.likes, reports) for name in (one, other))
    return first, second


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
    """End the scope's trial; without one, let its previous adapter (or the base) speak again.

    Raises Conflict or AdapterRefused.
    """
    now = await database.run(lambda db: _scope_row(db, scope))
    if now is None:
        raise Conflict(f"scope {scope}: no adapter was ever promoted here, nothing to roll back")
    if now.previous and not now.canary:
        await _check(database, data_dir, now.previous)
    return await database.run(lambda db: db.adapters.rollback(scope, actor=actor))


async def try_out(
    database: AsyncDatabase, data_dir: Path, name: str, *, share: float, actor: str
) -> Trial:
    """Let a version answer a share of new conversations until their votes decide.

    Raises AdapterRefused, NotFound, Conflict, or InvalidInput for a share that is none.
    """
    if not 0 < share <= MAX_SHARE:
        raise InvalidInput(f"share {share}: expected more than 0 and at most {MAX_SHARE}")
    await _check(database, data_dir, name)
    return await database.run(lambda db: db.adapters.begin_trial(name, share=share, actor=actor))


def archive(record: AdapterRecord, data_dir: Path, target: BinaryIO) -> None:
    """Write a version as a zip of its PEFT directory; raises AdapterRefused if it was altered."""
    verify(record, data_dir)
    home = data_dir / record.directory
    inside = record.name.replace("@", "-")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as zipped:  # weights do not get smaller
        for path in sorted(home.rglob("*")):
            if path.is_file():
                zipped.write(path, f"{inside}/{path.relative_to(home)}")


async def _check(database: AsyncDatabase, data_dir: Path, name: str) -> None:
    record = await database.run(lambda db: db.adapters.get(name))
    await asyncio.to_thread(verify, record, data_dir)


def _scope_row(db: Database, scope: str) -> Scope | None:
    return next((row for row in db.scopes.list() if row.name == scope), None)


def _figures(name: str, likes: dict[str, Likes], reports: dict[str, Report]) -> Figures:
    own = reports.get(name)
    source = own or (next(iter(reports.values()), None) if name == BASE else None)
    system = source.systems.get("candidate" if own else BASE) if source else None
    return Figures(
        name=name,
        likes=likes.get(name, (0, 0)),
        keep_score=system.keep_score if system else None,
        accuracy=own.preference.accuracy if own and own.preference else None,
        odds=own.odds if own else None,
    )
