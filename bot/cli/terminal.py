"""The chat on a terminal: streaming replies, votes, training and swaps by slash commands.

Works on a real terminal (line editing, a training line under the prompt) and on a pipe (plain
lines), so that it can be scripted. Knows the services only.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from typing import Any

from rich.console import Console

from bot.adapters import promote, roll_back
from bot.canary import Decided
from bot.cli.common import DEFAULT_SCOPE
from bot.cli.progress import describe
from bot.cli.tables import show_adapters, show_verdict
from bot.registry import Swap
from bot.world import World
from core.errors import EngineBusy, ThumbtuneError
from core.jobs import Progress
from core.records import Person, Reply

HELP = """\
Write to chat. Then say what you think of the last reply:
  /up              👍 it was good
  /down [reason]   👎 it was not; a few words if you like
  /fix TEXT        ✏️ what it should have said
  /again           🔁 another version
And look after the learning:
  /retrain         learn from the feedback, let the gate judge, swap if it is better
  /adapters        which versions there are, and which one speaks
  /promote NAME    let a version (or base) speak
  /rollback        end a trial, else back to what spoke before
  /new             start a new conversation
  /help  /quit"""


class Terminal:
    """One person at a terminal. Run it once."""

    def __init__(self, world: World, console: Console, scope: str = DEFAULT_SCOPE) -> None:
        self._world = world
        self._console = console
        self._scope = scope
        self._training: asyncio.Task[None] | None = None
        self._training_line = ""
        self._last: Reply | None = None
        self._person: Person | None = None
        self._conversation = ""
        self._commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "/up": self._up,
            "/down": self._down,
            "/fix": self._fix,
            "/again": self._again,
            "/retrain": self._retrain,
            "/adapters": self._adapters,
            "/promote": self._promote,
            "/rollback": self._rollback,
            "/new": self._new,
            "/help": self._help,
        }

    async def run(self) -> None:
        """Chat until /quit, end of input or Ctrl-D."""
        self._person = await self._world.database.run(
            lambda db: db.people.ensure(
                "console", "operator", display_name="operator", consent="given"
            )
        )
        await self._new("")
        self._world.registry.on_swap(self._announce)
        self._world.canary.on_decision(self._announce_decision)
        speaking = await self._world.registry.speaking(self._scope)
        self._print(f"Thumbtune · {self._world.base.name} · speaking: {speaking} · /help for help")
        interactive = sys.stdin.isatty() and sys.stdout.isatty()
        lines, printing = self._typed_lines() if interactive else (_piped_lines(), nullcontext())
        with printing:
            async for line in lines:
                if line.strip() in ("/quit", "/exit"):
                    break
                await self._take(line.strip())
        await self._stop_training(wait=not interactive)

    async def _take(self, line: str) -> None:
        if not line:
            return
        try:
            command, _, rest = line.partition(" ")
            if line.startswith("/"):
                await self._commands.get(command, self._unknown)(rest.strip())
            else:
                await self._say(line)
        except ThumbtuneError as error:
            self._print(f"! {error}", style="red")

    # -- chatting

    async def _say(self, text: str) -> None:
        person = self._me()
        try:
            writing = await self._world.chat.say(self._conversation, person.id, text)
        except EngineBusy as busy:
            self._print(f"… {busy}", style="yellow")
            return
        await self._show(writing)

    async def _again(self, _: str) -> None:
        last = self._need_last()
        await self._show(await self._world.chat.again(last.id, self._me().id))

    async def _show(self, writing: Any) -> None:
        self._console.print(f"{writing.reply.adapter} ▸ ", style="bold cyan", end="", markup=False)
        try:
            async for piece in writing:
                self._console.print(piece, end="", markup=False, soft_wrap=True)
        except (KeyboardInterrupt, asyncio.CancelledError):
            writing.cancel()
            raise
        finally:
            self._console.print()
        self._last = await writing.finished()
        if self._last.finish_reason in ("length", "deadline"):
            self._print(f"  (cut: {self._last.finish_reason})", style="dim")

    async def _new(self, _: str) -> None:
        self._conversation = await self._world.chat.open(self._scope, self._me())
        self._last = None

    # -- voting

    async def _up(self, _: str) -> None:
        await self._world.feedback.up(self._need_last().id, self._me().id)
        await self._thanks("👍 kept")

    async def _down(self, reason: str) -> None:
        await self._world.feedback.down(self._need_last().id, self._me().id, reason)
        await self._thanks("👎 kept")

    async def _fix(self, text: str) -> None:
        await self._world.feedback.correct(self._need_last().id, self._me().id, text)
        await self._thanks("✏️ kept")

    async def _thanks(self, what: str) -> None:
        scope = self._scope
        waiting, _ = await self._world.database.run(lambda db: db.feedback.waiting(scope))
        self._print(f"{what}; {waiting} to learn from (/retrain)", style="dim")

    # -- learning

    async def _retrain(self, recipe: str) -> None:
        if self._training and not self._training.done():
            self._print(f"already training: {self._training_line}", style="yellow")
            return
        self._training = asyncio.create_task(self._learn(recipe or None), name="retrain")
        self._print("training has begun; go on chatting, the swap is announced", style="dim")

    async def _learn(self, recipe: str | None) -> None:
        try:
            outcome = await self._world.learning.retrain(
                self._scope, actor="console:operator", recipe=recipe, on_progress=self._note
            )
        except (ThumbtuneError, OSError) as error:
            self._print(f"! training failed: {error}", style="red")
            return
        finally:
            self._training_line = ""
        if outcome.verdict:
            show_verdict(self._console, outcome.verdict)
        else:
            self._print(f"{outcome.run.state}: {outcome.run.detail}", style="yellow")
        await self._world.registry.sync()

    def _note(self, progress: Progress) -> None:
        self._training_line = f"{progress.fraction:.0%} {describe(progress)}"

    async def _stop_training(self, *, wait: bool) -> None:
        if not self._training or self._training.done():
            return
        if not wait:
            self._print("stopping the training run; it can go on later", style="yellow")
            self._training.cancel()
        await asyncio.gather(self._training, return_exceptions=True)

    async def _adapters(self, _: str) -> None:
        scope = self._scope
        row = await self._world.database.run(lambda db: db.scopes.get(scope))
        found = await self._world.database.run(lambda db: db.adapters.list(scope))
        trial = await self._world.canary.standing(scope)
        show_adapters(self._console, found, [row], [trial] if trial else [])

    async def _promote(self, name: str) -> None:
        world = self._world
        await promote(
            world.database,
            world.settings.data_dir,
            name,
            scope=self._scope,
            actor="console:operator",
        )
        await world.registry.sync()

    async def _rollback(self, _: str) -> None:
        world = self._world
        await roll_back(
            world.database, world.settings.data_dir, self._scope, actor="console:operator"
        )
        await world.registry.sync()

    def _announce(self, swap: Swap) -> None:
        if swap.scope != self._scope:
            return
        if swap.refused:
            self._print(
                f"✗ {swap.old} was taken back, {swap.new} speaks: {swap.refused}", style="red"
            )
        else:
            self._print(f"✓ {swap.new} speaks from now on (was {swap.old})", style="bold green")

    async def _announce_decision(self, decided: Decided) -> None:
        trial = decided.standing.trial
        if trial.scope == self._scope:
            style = {"better": "bold green", "worse": "red"}.get(decided.outcome, "yellow")
            self._print(f"{trial.candidate}: {decided.why}", style=style)

    # -- small things

    async def _help(self, _: str) -> None:
        self._print(HELP)

    async def _unknown(self, _: str) -> None:
        self._print("no such command; /help lists them", style="yellow")

    def _me(self) -> Person:
        if self._person is None:
            raise ThumbtuneError("the terminal is not running")
        return self._person

    def _need_last(self) -> Reply:
        if self._last is None:
            raise ThumbtuneError("there is no reply yet; say something first")
        return self._last

    def _print(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, markup=False, soft_wrap=True)

    def _typed_lines(self) -> tuple[AsyncIterator[str], Any]:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.patch_stdout import patch_stdout

        session: PromptSession[str] = PromptSession(
            "you ▸ ",
            bottom_toolbar=lambda: (
                f" training {self._training_line}" if self._training_line else None
            ),
            refresh_interval=1.0,
        )

        async def lines() -> AsyncIterator[str]:
            while True:
                try:
                    yield await session.prompt_async()
                except KeyboardInterrupt:
                    continue
                except EOFError:
                    return

        return lines(), patch_stdout(raw=True)


async def _piped_lines() -> AsyncIterator[str]:
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield line
