"""`thumbtune generate`: answer a file of prompts with the base or an adapter."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.progress import track

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
from bot.world import World, open_world
from core.errors import InvalidInput
from core.files import write_atomic
from core.generation import GenerationRequest, GenerationResult, Message, Role, Sampling


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: Role
    content: str


class _PromptLine(BaseModel):
    """A line of the prompts file: one of the two keys."""

    model_config = ConfigDict(extra="forbid")
    prompt: str | None = None
    messages: list[_Turn] | None = None


def generate(
    prompts: Annotated[Path, typer.Option(help='Lines of {"prompt": …} or {"messages": […]}.')],
    out: Annotated[Path, typer.Option(help="The file to write, one JSON object a line.")],
    adapter: Annotated[str, typer.Option(help="live, base or a name such as console@v3.")] = "live",
    scope: ScopeOption = DEFAULT_SCOPE,
    seed: Annotated[int, typer.Option(help="The same seed gives the same replies.")] = 0,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest reply.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="0 is greedy.")] = None,
    system: Annotated[str | None, typer.Option(help="A system prompt before each.")] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer every prompt of a file; nothing is stored in the database."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        asked = _read_prompts(prompts, system)
        if not out.parent.is_dir():
            raise InvalidInput(f"{out.parent} is not a directory; make it first")
        async with open_world(settings, output.say) as world:
            name = await _resolve(world, adapter, scope)
            chat = settings.chat
            sampling = Sampling(
                temperature=chat.temperature if temperature is None else temperature,
                top_p=chat.top_p,
                top_k=chat.top_k,
                max_tokens=max_tokens or chat.max_tokens,
            )
            results = await _answer_all(world, asked, name, sampling, seed, output)
        lines = [_line(messages, result) for messages, result in zip(asked, results, strict=True)]
        write_atomic(out, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        output.say(f"{len(lines)} replies by {name} written to {out}")
        output.result({"replies": len(lines), "adapter": name, "file": out})

    run(main)


async def _resolve(world: World, adapter: str, scope: str) -> str:
    if adapter == "live":
        return await world.registry.speaking(scope)
    await world.registry.ensure_resident(adapter)
    return adapter


async def _answer_all(
    world: World,
    asked: list[tuple[Message, ...]],
    adapter: str,
    sampling: Sampling,
    seed: int,
    output: Output,
) -> list[GenerationResult]:
    """Answer in order of asking, as many at once as the engine takes; reply i has seed + i."""
    from dataclasses import replace

    places = asyncio.Semaphore(world.settings.serving.max_batch)

    async def answer(index: int, messages: tuple[Message, ...]) -> GenerationResult:
        async with places:
            request = GenerationRequest(messages, adapter, replace(sampling, seed=seed + index))
            return await world.engine.generate(request).result()

    tasks = [asyncio.create_task(answer(index, messages)) for index, messages in enumerate(asked)]
    for done in track(
        asyncio.as_completed(tasks), "answering", total=len(tasks), console=output.console
    ):
        await done
    return [task.result() for task in tasks]


def _read_prompts(path: Path, system: str | None) -> list[tuple[Message, ...]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from None
    asked = [
        _parse(path, number, line, system)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not asked:
        raise InvalidInput(f'{path} holds no prompt; expected lines such as {{"prompt": "Hello"}}')
    return asked


def _parse(path: Path, number: int, line: str, system: str | None) -> tuple[Message, ...]:
    try:
        parsed = _PromptLine.model_validate_json(line)
    except ValidationError as error:
        raise InvalidInput(f"{path}, line {number}: {error.errors()[0]['msg']}") from None
    if (parsed.prompt is None) == (parsed.messages is None):
        raise InvalidInput(f'{path}, line {number}: expected either "prompt" or "messages"')
    if parsed.prompt is not None:
        messages: tuple[Message, ...] = (Message("user", parsed.prompt),)
    else:
        messages = tuple(Message(turn.role, turn.content) for turn in parsed.messages or [])
    if not messages or messages[-1].role != "user" or not messages[-1].content.strip():
        raise InvalidInput(
            f"{path}, line {number}: the last message must be the user's and not empty"
        )
    return ((Message("system", system),) if system else ()) + messages


def _line(messages: tuple[Message, ...], result: GenerationResult) -> dict[str, Any]:
    return {
        "prompt": messages[-1].content,
        "reply": result.text,
        "adapter": result.adapter,
        "finish_reason": result.finish_reason,
        "tokens": len(result.token_ids),
    }
