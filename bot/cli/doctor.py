"""`thumbtune doctor`: look at all a running bot needs; each line is ok or says what to do."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import typer

from bot.cli.common import (
    ConfigOption,
    DataDirOption,
    Exit,
    JsonOption,
    Output,
    run,
    settings_or_exit,
)
from bot.schedule import cron_trigger
from bot.world import make_engine, open_database, prepare_base
from core.errors import ThumbtuneError
from core.files import free_bytes
from core.processors import available_cores
from core.settings import Settings
from core.shares import ShardShare

MIN_FREE_BYTES = 2 * 10**9


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, whether it is fine, what was found or what to do."""

    name: str
    ok: bool
    text: str


def doctor(
    config: ConfigOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False
) -> None:
    """Check settings, model, database, disk, threads, GPU, engine, launcher, console, Discord."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> Exit:
        findings = [await _look(name, check, settings) for name, check in CHECKS]
        for finding in findings:
            mark = "[green]ok[/]  " if finding.ok else "[bold red]look[/]"
            output.console.print(f"{mark} {finding.name:<10} ", end="")
            output.console.print(finding.text, markup=False, soft_wrap=True)  # links stay whole
        output.result({finding.name: finding for finding in findings})
        return Exit.OK if all(finding.ok for finding in findings) else Exit.FAILED

    raise typer.Exit(run(main))


async def _look(
    name: str, check: Callable[[Settings], Awaitable[str]], settings: Settings
) -> Finding:
    try:
        return Finding(name, True, await check(settings))
    except (ThumbtuneError, OSError) as error:
        return Finding(name, False, str(error))


async def _config(settings: Settings) -> str:
    if settings.schedule.cron:
        cron_trigger(settings.schedule.cron)
    return f"{settings.config_file or 'none; every default holds'}; data in {settings.data_dir}"


async def _packages(_: Settings) -> str:
    try:
        return ", ".join(
            f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "trl")
        )
    except PackageNotFoundError as error:
        raise ThumbtuneError(f"{error} is not installed; run: make run") from None


async def _model(settings: Settings) -> str:
    base = await prepare_base(settings, lambda _: None)
    return f"{base.name} in {base.path}, sha256 {base.sha256[:12]}"


async def _database(settings: Settings) -> str:
    async with open_database(settings) as database:
        stats = await database.run(lambda db: db.feedback.stats(None))
    size_mb = settings.database_path.stat().st_size / 1e6
    kept = "encrypted" if settings.db_key else "not encrypted (set THUMBTUNE_DB_KEY to encrypt)"
    return f"{settings.database_path}, {size_mb:.1f} MB, {kept}; people: {stats.get('people', 0)}"


async def _disk(settings: Settings) -> str:
    free = free_bytes(settings.data_dir)
    if free < MIN_FREE_BYTES:
        raise ThumbtuneError(
            f"{free / 1e9:.1f} GB free where {settings.data_dir} lies; a run wants 2 GB: make room"
        )
    return f"{free / 1e9:.0f} GB free"


async def _threads(settings: Settings) -> str:
    cores = f"{available_cores()} cores (load {os.getloadavg()[0]:.1f})"
    if not settings.runs_here:
        return f"{cores}: chat {settings.serving_threads}, beside runs elsewhere too"
    return (
        f"{cores}: chat {settings.serving_threads}, or "
        f"{settings.serving_threads_while_training} beside a run's {settings.training_threads}"
    )


async def _device(settings: Settings) -> str:
    from serving.base import resolve_device, resolve_dtype

    device = resolve_device(settings.model.device)
    dtype = resolve_dtype(settings.model.dtype, device)
    note = "" if device.type == "cuda" else " (no CUDA GPU found: fine for small models)"
    return f"{device}, {str(dtype).removeprefix('torch.')}{note}"


async def _decoder(settings: Settings) -> str:
    from serving.base import resolve_device, resolve_dtype
    from serving.decoders import Choice, describe_decoder

    device = resolve_device(settings.model.device)
    dtype = resolve_dtype(settings.model.dtype, device)
    choice = Choice(settings.serving.decoder, settings.serving.quantization)
    return await asyncio.to_thread(describe_decoder, choice, dtype, device)


async def _engine(settings: Settings) -> str:
    from serving.elsewhere import EngineElsewhere

    engine = make_engine(settings, await prepare_base(settings, lambda _: None))
    if not isinstance(engine, EngineElsewhere):
        return "local: replies are written in this process"
    try:
        found = await engine.look()
    finally:
        await engine.close()
    return f"{settings.serving.backend} at {settings.serving.remote_url}: {found}"


async def _runs(settings: Settings) -> str:
    where = await _launcher(settings)
    async with open_database(settings) as database:
        active = await database.run(lambda db: db.runs.active())
    running = ", ".join(f"{item.id} is {item.state}" for item in active)
    return f"{where}; {running or 'none is running'}"


async def _launcher(settings: Settings) -> str:
    if settings.launcher.kind == "ray":
        from trainer.launchers.ray import RayLauncher

        return await RayLauncher(settings.launcher).look()
    if settings.launcher.kind != "ssh":
        return "local: training runs as a process of this machine"
    from trainer.launchers.ssh import host_address
    from trainer.launchers.ssh_check import describe_host

    address = host_address(settings.launcher, settings.ssh_config)
    return await describe_host(address, settings.model.device)


async def _discord(settings: Settings) -> str:
    from bot.discord.application import NO_TOKEN, invite_link, look
    from bot.discord.servers import check

    if settings.discord_token is None:
        return NO_TOKEN
    found = await look(settings)
    share = settings.discord.share(found.sessions.recommended_shards)
    async with open_database(settings) as database:
        await database.run(lambda db: check(db, share.group))
    permission = "set" if settings.discord.training_permission.strip() else "not set"
    return (
        f"{found.name}, application {found.id}; message content: "
        f"{CONTENT[found.message_content]}; members: {MEMBERS[found.members]}; training "
        f"permission: {permission}; {_shards(share, found.sessions.left)}; "
        f"add it to a server: {invite_link(found.id)}"
    )


def _shards(share: ShardShare, left: int | None) -> str:
    """Say which shards this process would run, and how many sessions it may begin."""
    runs = ", ".join(map(str, share.ids[:8])) + (", …" if len(share.ids) > 8 else "")
    begins = "" if left is None else f", {left} session starts left"
    return f"shards {runs} of {share.shards} ({share.group}){begins}"


async def _console(settings: Settings) -> str:
    from bot.console.assets import load_assets
    from bot.console.password import password_hash, signing_key
    from bot.web.guard import is_loopback

    where = settings.console
    if not where.enabled:
        return "off (console.enabled)"
    load_assets()
    locked = password_hash(settings, signing_key(settings.data_dir)) is not None
    if not locked and (where.public_url or not is_loopback(where.host)):
        raise ThumbtuneError(
            f"{where.host}: others could reach it and there is no password; run: thumbtune "
            "console-password"
        )
    guarded = "with a password" if locked else "for this machine alone, without a password"
    return f"{where.public_url or f'http://{where.host}:{where.port}'}, {guarded}"


CONTENT = {
    True: "granted",
    False: "not granted (works with mentions, replies, direct messages and commands only)",
}
MEMBERS = {
    True: "granted",
    False: "not granted (who left a server is noticed within a day)",
}
CHECKS: tuple[tuple[str, Callable[[Settings], Awaitable[str]]], ...] = (
    ("config", _config),
    ("packages", _packages),
    ("model", _model),
    ("database", _database),
    ("disk", _disk),
    ("threads", _threads),
    ("device", _device),
    ("decoder", _decoder),
    ("engine", _engine),
    ("launcher", _runs),
    ("console", _console),
    ("discord", _discord),
)
