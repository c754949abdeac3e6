"""What is said of completions is stored once, for whom it is said, and only where it may be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.bot.api.conftest import HELLO, Served


async def complete(served: Served, key: str = "none", **about: Any) -> str:
    """Ask for a completion; return its id."""
    made = await served.client(key).chat.completions.create(
        model="base", messages=HELLO, temperature=1.5, **about
    )
    return made.id


async def say(served: Served, key: str | None = None, **said: Any) -> tuple[int, dict[str, Any]]:
    """Give feedback; return status and body."""
    async with served.http(key) as http:
        answer = await http.post("/v1/feedback", json=said)
    return answer.status_code, answer.json()


async def test_a_vote_is_stored_once_and_changed_by_the_next(served: Served) -> None:
    """Twice up is one row; down replaces it, with its reason; withdrawing takes it away, twice."""
    done = await complete(served)
    first = await say(served, id=done, kind="up")
    assert first == await say(served, id=done, kind="up") and first[0] == 200
    await say(served, id=done, kind="down", reason="rude")
    assert [(row.kind, row.reasons) for row in await served.feedback(done)] == [("down", ("rude",))]
    for _ in range(2):
        assert (await say(served, id=done, kind="withdraw"))[0] == 200
    assert await served.feedback(done) == []


async def test_a_correction_and_a_preference_are_stored(served: Served) -> None:
    """Both of the operator's own, so both may train."""
    better, worse = await complete(served), await complete(served)
    assert (await say(served, id=better, kind="preference", over=worse))[0] == 200
    assert (await say(served, id=worse, kind="correction", text="Hello to you"))[0] == 200
    rows = await served.world.database.run(lambda db: db.feedback.rows("api", consented_only=True))
    assert [row.feedback.kind for row in rows] == ["preference", "correction"]
    assert rows[0].feedback.other_reply_id == worse and rows[1].feedback.text == "Hello to you"


@pytest.mark.parametrize(
    ("said", "status", "text"),
    [
        ({"id": "r_nothing", "kind": "up"}, 404, "no completion 'r_nothing'"),
        ({"id": "r_\x00", "kind": "up"}, 404, "no completion"),
        ({"id": "\ud800", "kind": "up"}, 400, "Invalid JSON"),
        ({"kind": "up"}, 400, "id: "),
        ({"id": "{done}", "kind": "love"}, 400, "kind: "),
        ({"id": "{done}", "kind": "correction"}, 400, "text: expected"),
        ({"id": "{done}", "kind": "correction", "text": "x" * 5000}, 400, "4000 are allowed"),
        ({"id": "{done}", "kind": "preference"}, 400, "over: expected"),
        ({"id": "{done}", "kind": "preference", "over": "{done}"}, 400, "over itself"),
        ({"id": "{done}", "kind": "preference", "over": "r_nothing"}, 404, "no completion"),
    ],
)
async def test_what_makes_no_sense_is_told(
    served: Served, said: dict[str, str], status: int, text: str
) -> None:
    """In OpenAI's shape, and nothing is stored."""
    done = await complete(served)
    filled = {key: done if value == "{done}" else value for key, value in said.items()}
    async with served.http() as http:
        answer = await http.post("/v1/feedback", content=json.dumps(filled))
    assert (answer.status_code, text in answer.json()["error"]["message"]) == (status, True)
    assert await served.feedback(done) == []


async def test_a_preference_needs_the_same_question(served: Served) -> None:
    """Answers to two questions cannot be compared."""
    one = await complete(served)
    made = await served.client().chat.completions.create(
        model="base", messages=[{"role": "user", "content": "Another question"}]
    )
    status, body = await say(served, id=one, kind="preference", over=made.id)
    assert status == 400 and "same question" in body["error"]["message"]


async def test_without_consent_words_are_not_kept_but_votes_are(served: Served) -> None:
    """A user of an application is unknown until they agree: no text, no correction, no training."""
    key = await served.key("web")
    done = await complete(served, key, user="ada")
    row = await served.reply(done)
    assert (row.text, row.prompt, row.kept) == ("", (), False) and row.tokens > 0
    assert (await say(served, key, id=done, kind="up", user="ada"))[0] == 200
    status, body = await say(served, key, id=done, kind="correction", text="Hi", user="ada")
    assert status == 409 and "opt in" in body["error"]["message"]
    rows = await served.world.database.run(lambda db: db.feedback.rows("api"))
    assert [(one.feedback.kind, one.all_consented) for one in rows] == [("up", False)]


async def test_consent_is_given_taken_back_and_exported(served: Served) -> None:
    """From then on words are kept; refusing removes them; forgetting removes the rest."""
    key = await served.key("web")
    async with served.http(key) as http:
        agreed = await http.post("/v1/privacy", json={"user": "ada", "consent": "given"})
        assert agreed.json()["consent"] == "given"
        done = await complete(served, key, user="ada")
        assert (await served.reply(done)).kept
        await say(served, key, id=done, kind="up", user="ada")
        held = (await http.get("/v1/privacy", params={"user": "ada"})).json()
        assert held["person"]["platform_id"] == "web/ada"
        refused = await http.post("/v1/privacy", json={"user": "ada", "consent": "refused"})
        assert (refused.json()["replies"], refused.json()["votes"]) == (0, 1)
        assert (await served.reply(done)).text == ""
        gone = await http.delete("/v1/privacy", params={"user": "ada"})
        assert gone.status_code == 200 and await served.feedback(done) == []


async def test_consent_stated_with_the_key_holds_for_all_but_who_refused(served: Served) -> None:
    """The operator says so when making it; one person's refusal goes before."""
    key = await served.key("web", consented=True)
    async with served.http(key) as http:
        await http.post("/v1/privacy", json={"user": "bob", "consent": "refused"})
    kept = [(await served.reply(await complete(served, key, user=user))).kept for user in _USERS]
    assert kept == [True, True, False]


_USERS = ("", "ada", "bob")


async def test_the_same_user_of_two_keys_is_two_people(served: Served) -> None:
    """An application speaks for its own people only."""
    for name in ("web", "shop"):
        key = await served.key(name)
        await complete(served, key, user="ada")
    people = await served.world.database.run(lambda db: db.people.list())
    assert [one.platform_id for one in people if one.platform == "api"] == ["web/ada", "shop/ada"]


async def test_the_operator_is_not_forgotten_from_afar(served: Served) -> None:
    """Without a key and a user the API would remove what the terminal holds."""
    async with served.http() as http:
        answer = await http.delete("/v1/privacy")
    assert answer.status_code == 400 and "operator" in answer.json()["error"]["message"]
