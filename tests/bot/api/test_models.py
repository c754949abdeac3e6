"""Model names: the base, what is live, and every version, each exactly itself."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from bot.adapters import promote
from tests.bot.api.conftest import HELLO, LONG, Served, standstill
from tests.bot.test_registry import publish


async def written_by(
    served: Served, model: str, key: str = "none", messages: list[Any] = HELLO
) -> str:
    """Ask a model; return which adapter the stored reply names, which the answer names too."""
    done = await served.client(key).chat.completions.create(model=model, messages=messages)
    row = await served.reply(done.id)
    assert row.adapter == done.model
    return row.adapter


async def test_every_version_is_a_model(served: Served) -> None:
    """The list, one of it, and a request to each; a version is loaded when it is asked for."""
    name = await publish(served.world, 1, seed=1, scope="api")
    listed = [model.id async for model in served.client().models.list()]
    assert listed == ["live", "base", name]
    assert (await served.client().models.retrieve(name)).id == name
    assert served.world.engine.stats().adapters == ()
    assert [await written_by(served, model) for model in listed] == ["base", "base", name]


async def test_live_follows_the_pointer_and_a_version_does_not(served: Served) -> None:
    """After a promotion `live` is the new one, `base` is still the base."""
    name = await publish(served.world, 1, seed=1, scope="api")
    await promote(served.world.database, served.world.settings.data_dir, name, actor="test")
    await served.world.registry.sync()
    assert [await written_by(served, model) for model in ("live", "base")] == [name, "base"]


@pytest.mark.parametrize("name", ["gpt-4o", "api@v9", "../../etc/passwd", "base ", "", "\x00"])
async def test_an_unknown_model_is_not_found(served: Served, name: str) -> None:
    """As OpenAI says it, in the list's place and in a request's."""
    with pytest.raises(openai.NotFoundError) as refused:
        await served.client().chat.completions.create(model=name, messages=HELLO)
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    async with served.http() as http:
        assert (await http.get("/v1/models/gpt-4o")).json()["error"]["code"] == "model_not_found"


async def test_a_stream_ends_on_the_version_it_began_with(served: Served) -> None:
    """A promotion in its middle changes the next request, not the running one."""
    name = await publish(served.world, 1, seed=1, scope="api")
    with standstill(served.world):
        stream = await served.client().chat.completions.create(
            model="live", messages=HELLO, stream=True, **LONG
        )
        first = await anext(stream)
        database, data_dir = served.world.database, served.world.settings.data_dir
        await promote(database, data_dir, name, actor="test")
        following = asyncio.create_task(served.world.registry.sync())
    await following
    assert await written_by(served, "live") == name
    assert {chunk.model async for chunk in stream} == {"base"}
    row = await served.reply(first.id)
    alone = await served.client().chat.completions.create(model="base", messages=HELLO, **LONG)
    assert (row.adapter, row.text) == ("base", alone.choices[0].message.content)


async def test_a_user_sees_the_versions_of_their_scope(served: Served) -> None:
    """Another scope's, and one that was refused, do not exist for them; for administrators do."""
    own = await publish(served.world, 1, seed=1, scope="shop")
    foreign = await publish(served.world, 1, seed=2, scope="blog")
    bad = await publish(served.world, 2, seed=3, scope="shop")
    await served.world.database.run(lambda db: db.adapters.set_state(bad, "refused", actor="test"))
    user, admin = await served.key("shop", scope="shop"), await served.key("boss", "admin")
    seen = {
        key: [model.id async for model in served.client(key).models.list()] for key in (user, admin)
    }
    assert seen[user] == ["live", "base", own]
    assert seen[admin] == ["live", "base", foreign, own, bad]
    with pytest.raises(openai.NotFoundError):
        await written_by(served, foreign, user)


async def test_a_version_whose_files_are_gone_is_refused(served: Served) -> None:
    """The sentence says why and not where; the next request to another is answered."""
    name = await publish(served.world, 1, seed=1, scope="api")
    weights = served.world.settings.data_dir / "adapters/api/v1/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(openai.BadRequestError, match="corrupt or altered") as refused:
        await written_by(served, name)
    assert str(served.world.settings.data_dir) not in str(refused.value)
    assert await written_by(served, "base") == "base"


async def test_a_canary_answers_whole_talks(served: Served) -> None:
    """`live` draws a talk once: its later requests, and all its choices, are its version's."""
    name = await publish(served.world, 1, seed=1, scope="api")
    await served.world.database.run(
        lambda db: db.adapters.begin_trial(name, share=0.5, actor="gate")
    )
    await served.world.registry.sync()
    seen = set()
    for number in range(12):
        talk: Any = [{"role": "user", "content": f"Question {number}"}]
        longer = [*talk, {"role": "assistant", "content": "Hm"}, {"role": "user", "content": "Go"}]
        models = {await written_by(served, "live", messages=turns) for turns in (talk, longer)}
        assert len(models) == 1
        seen |= models
    assert seen == {"base", name}
