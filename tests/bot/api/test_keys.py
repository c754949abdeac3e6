"""Who may speak: nobody without a key once there is one, administrators for adapters only."""

from __future__ import annotations

import httpx
import openai
import pytest

from bot.api.app import api_state, create_api
from bot.web.server import serving
from bot.world import World
from tests.bot.api.conftest import HELLO, Served, served_by


async def test_on_this_machine_without_keys_none_is_needed(served: Served) -> None:
    """Any key that a client has to send is taken for none."""
    done = await served.client("anything").chat.completions.create(model="base", messages=HELLO)
    assert (await served.reply(done.id)).scope == "api"


async def test_the_first_key_closes_the_door_at_once(served: Served) -> None:
    """A wrong key, none and a revoked one are refused as OpenAI refuses; a right one is not."""
    right = await served.key("web")
    for wrong in ("none", right + "x", right[:-1], ""):
        with pytest.raises(openai.AuthenticationError) as refused:
            await served.client(wrong or "none").models.list()
        assert refused.value.code == "invalid_api_key"
    assert (await served.client(right).models.list()).data
    await served.world.database.run(lambda db: db.keys.revoke("web", actor="test"))
    with pytest.raises(openai.AuthenticationError):
        await served.client(right).models.list()


@pytest.mark.parametrize("header", ["", "Bearer", "Basic abc", "bearer \xff", "token"])
async def test_an_odd_header_is_no_key(served: Served, header: str) -> None:
    """It is refused, never an error of ours."""
    await served.key("web")
    async with served.http() as http:
        sent = {"Authorization": header.encode("latin-1")}
        answer = await http.get("/v1/models", headers=sent)
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/v1/load_lora_adapter", "/v1/unload_lora_adapter"])
async def test_adapters_are_for_administrators(served: Served, path: str) -> None:
    """A user's key is told so."""
    user, admin = await served.key("web"), await served.key("boss", "admin")
    async with served.http(user) as http:
        assert (await http.post(path, json={})).status_code == 403
    async with served.http(admin) as http:
        assert (await http.post(path, json={})).status_code == 400


async def test_where_others_can_reach_it_keys_are_demanded_even_if_there_is_none(
    world: World,
) -> None:
    """As after the last one was revoked; health is told to anybody, figures are not."""
    async with served_by(world, host="0.0.0.0") as served, served.http() as http:  # noqa: S104
        codes = {path: (await http.get(path)).status_code for path in _OPEN}
    assert codes == _OPEN


async def test_behind_a_proxy_keys_are_demanded_although_it_is_on_this_machine(
    world: World,
) -> None:
    """Whoever the proxy lets through comes from here, and is not the operator."""
    api = create_api(world, private=False)
    async with serving(api, host="127.0.0.1", port=0) as url:
        async with httpx.AsyncClient(base_url=url, headers={"Host": "bot.example.org"}) as http:
            codes = [(await http.get(path)).status_code for path in ("/healthz", "/v1/models")]
        await api_state(api).settle()
    assert codes == [200, 401]


_OPEN = {"/healthz": 200, "/readyz": 200, "/metrics": 401, "/v1/models": 401, "/v1/privacy": 401}


async def test_a_user_sees_their_own_scope_only(served: Served) -> None:
    """A completion of another scope is unknown to them, and known to an administrator."""
    shop, blog = await served.key("shop", scope="shop"), await served.key("blog", scope="blog")
    boss = await served.key("boss", "admin")
    done = await served.client(shop).chat.completions.create(model="live", messages=HELLO)
    codes = []
    for key in (blog, shop, boss):
        async with served.http(key) as http:
            vote = {"id": done.id, "kind": "up"}
            codes.append((await http.post("/v1/feedback", json=vote)).status_code)
    assert codes == [404, 200, 200]


async def test_no_route_answers_without_a_key_but_health(served: Served) -> None:
    """Whatever the method; nothing tells which routes there are, and no page describes them."""
    await served.key("web")
    async with served.http() as http:
        for path in ("/docs", "/redoc", "/openapi.json", "/", "/v1", "/v1/files", "/static/x"):
            assert (await http.get(path)).status_code == 404, path
        asked = [
            httpx.Request("POST", f"{served.url}{path}", json={})
            for path in ("/v1/chat/completions", "/v1/feedback", "/v1/load_lora_adapter")
        ]
        assert [(await http.send(one)).status_code for one in asked] == [401, 401, 401]
        answer = await http.get("/healthz")
    assert "server" not in answer.headers
