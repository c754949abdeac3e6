"""`thumbtune chat`: the terminal chat by itself, without schedule or servers."""

from __future__ import annotations

from bot.cli.common import (
    DEFAULT_SCOPE,
    ConfigOption,
    DataDirOption,
    JsonOption,
    Output,
    ScopeOption,
    run,
    settings_or_exit,
)
from bot.cli.terminal import Terminal
from bot.cli.up import running_world


def chat(
    scope: ScopeOption = DEFAULT_SCOPE,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Chat on the terminal, vote, correct, retrain; lines may be piped in."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        async with running_world(settings, output) as (world, _):
            await Terminal(world, output.console, scope).run()
            stats = world.engine.stats()
        output.result(
            {"scope": scope, "replies": stats.replies_total, "tokens": stats.tokens_total}
        )

    run(main)
