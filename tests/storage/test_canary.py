"""A canary's trial in the database: one trial, sides that last, votes as they stand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from core.canary import BlindChoice, Thumb
from core.errors import Conflict, NotFound
from core.records import Reply, utc_now
from storage.canary import Before, Part
from storage.database import Database
from tests.storage.conftest import Chat, adapter

CANARY, OLDER = "console@v2", "console@v1"
BEGINNING = "2026-01-01T00:00:00.000000Z"


@pytest.fixture
def tried(chat: Chat) -> Chat:
    """Version 1 is live, version 2 on trial with half of the new conversations."""
    for version in (1, 2):
        chat.db.adapters.add(adapter(version))
    chat.db.adapters.promote(OLDER, actor="cli")
    chat.db.adapters.begin_trial(CANARY, share=0.5, actor="gate", detail="accepted")
    return chat


def states(db: Database) -> dict[str, str]:
    return {record.name: record.state for record in db.adapters.list("console")}


def trial_states(db: Database) -> list[tuple[str, str]]:
    """Every trial, newest first: (candidate, state)."""
    return [(trial.candidate, trial.state) for trial in db.trials.list("console")]


def answered(chat: Chat, talk: str, *, canary: bool) -> Reply:
    """Store a finished reply that takes part in the trial."""
    trial = chat.db.trials.canary("console")
    assert trial is not None
    reply = chat.finish(chat.start(authors=[chat.person.id]), "an answer")
    chat.db.canary.take_part(reply.id, Part(trial.id, talk, canary))
    return reply


def test_a_trial_begins_with_pointer_state_and_share(tried: Chat) -> None:
    """All three are there, beginning again changes nothing, and who is live speaks on."""
    trial = tried.db.trials.canary("console")
    assert trial is not None
    assert (trial.candidate, trial.reference, trial.share) == (CANARY, OLDER, 0.5)
    assert tried.db.adapters.begin_trial(CANARY, share=0.2, actor="gate") == trial
    scope = tried.db.scopes.get("console")
    assert (scope.live, scope.canary) == (OLDER, CANARY)
    assert states(tried.db) == {OLDER: "live", CANARY: "canary"}


def test_what_is_refused_or_live_cannot_go_on_trial(tried: Chat) -> None:
    """Neither is a candidate; and nothing becomes a canary without a trial."""
    tried.db.adapters.add(adapter(3, state="refused"))
    for name in (OLDER, "console@v3"):
        with pytest.raises(Conflict, match="cannot go on trial"):
            tried.db.adapters.begin_trial(name, share=0.5, actor="cli")
    with pytest.raises(Conflict, match="cannot be set to canary"):
        tried.db.adapters.set_state("console@v3", "canary", actor="cli")


def test_a_newer_canary_takes_the_place(tried: Chat) -> None:
    """The older trial is closed with the reason, and its adapter retired."""
    tried.db.adapters.add(adapter(3))
    tried.db.adapters.begin_trial("console@v3", share=0.5, actor="gate")
    assert states(tried.db) == {OLDER: "live", CANARY: "retired", "console@v3": "canary"}
    assert trial_states(tried.db) == [("console@v3", "open"), (CANARY, "undecided")]
    assert tried.db.adapters.get(CANARY).detail == "console@v3 takes its place"


@pytest.mark.parametrize(
    ("end", "state", "live"),
    [
        (lambda db: db.adapters.promote(CANARY, actor="cli"), "live", CANARY),
        (lambda db: db.adapters.rollback("console", actor="cli"), "retired", OLDER),
        (lambda db: db.adapters.promote_base("console", actor="cli"), "candidate", None),
        (lambda db: db.adapters.set_state(CANARY, "refused", actor="cli"), "refused", OLDER),
        (
            lambda db: db.adapters.withdraw(CANARY, fallback=OLDER, reason="damaged"),
            "refused",
            OLDER,
        ),
    ],
)
def test_whatever_an_admin_moves_ends_the_trial(
    tried: Chat, end: Callable[[Database], object], state: str, live: str | None
) -> None:
    """No trial stays open, no pointer stands, and what the gate said of a promoted one stays."""
    end(tried.db)
    scope = tried.db.scopes.get("console")
    assert (scope.live, scope.canary, states(tried.db)[CANARY]) == (live, None, state)
    assert trial_states(tried.db) == [(CANARY, "undecided")]
    if state == "live":
        assert tried.db.adapters.get(CANARY).detail == "accepted"


@pytest.mark.parametrize(("shown", "state"), [("worse", "refused"), ("undecided", "candidate")])
def test_a_trial_ends_with_what_it_showed(tried: Chat, shown: str, state: str) -> None:
    """Worse is refused, undecided waits; ending it again changes nothing."""
    for _ in range(2):
        tried.db.adapters.end_trial("console", shown, actor="canary", why="so it is")  # type: ignore[arg-type]
    assert trial_states(tried.db) == [(CANARY, shown)]
    record = tried.db.adapters.get(CANARY)
    assert (record.state, record.detail) == (state, "so it is")
    assert tried.db.scopes.get("console").live == OLDER


def test_a_rollback_after_a_trial_goes_back_as_ever(tried: Chat) -> None:
    """The first rollback takes the canary back, the second who was live."""
    assert tried.db.adapters.rollback("console", actor="cli").live == OLDER
    assert tried.db.adapters.rollback("console", actor="cli").live is None


def test_a_talk_keeps_its_side(tried: Chat) -> None:
    """Found by its conversation, or by a message in sight that shows its newest reply."""
    before = tried.db.canary.before
    assert before(tried.conversation, (), since=BEGINNING) is None
    first = answered(tried, "talk", canary=True)
    tried.db.replies.show(first.id, "7", ["70"])
    trial = tried.db.trials.canary("console")
    assert trial is not None
    same = Before(Part(trial.id, "talk", True))
    assert before(tried.conversation, (), since=BEGINNING) == same
    other = tried.db.conversations.open("console", person_id=tried.person.id)
    assert before(other, ("69", "70"), since=BEGINNING) == same
    assert before(other, ("69",), since=BEGINNING) is None
    assert before(tried.conversation, ("70",), since=utc_now()) is None


def test_a_talk_from_before_has_no_side(tried: Chat) -> None:
    """Its newest reply took part in nothing; replies of the arena are passed over."""
    tried.say("hi")
    assert tried.db.canary.before(tried.conversation, (), since=BEGINNING) == Before(None)
    answered(tried, "talk", canary=False)
    one, two = tried.say("a"), tried.say("b")
    arena = tried.db.trials.ensure("console", "arena", candidate=CANARY, reference=OLDER)
    tried.db.trials.add_match(
        arena.id, candidate_reply=one.id, reference_reply=two.id, candidate_first=True
    )
    found = tried.db.canary.before(tried.conversation, (), since=BEGINNING)
    assert found is not None and found.part is not None and not found.part.canary


def test_thumbs_are_read_as_they_stand(tried: Chat) -> None:
    """In the order first given; a changed mind counts, a dropped or withdrawn vote does not."""
    trial = tried.db.trials.canary("console")
    assert trial is not None
    one, two = answered(tried, "a", canary=True), answered(tried, "b", canary=False)
    bob, ada = tried.someone("bob").id, tried.person.id
    tried.db.feedback.vote(two.id, ada, "up")
    tried.db.feedback.vote(one.id, bob, "up")
    tried.db.feedback.vote(two.id, ada, "down")
    tried.db.feedback.vote(two.id, bob, "up")
    tried.db.feedback.withdraw(two.id, bob)
    assert tried.db.canary.thumbs(trial.id) == [
        Thumb(ada, "b", False, False),
        Thumb(bob, "a", True, True),
    ]


def test_what_is_forgotten_no_longer_counts(tried: Chat) -> None:
    """Forgetting a person takes their thumbs, and the replies to them, out of the trial."""
    trial = tried.db.trials.canary("console")
    assert trial is not None
    mine = answered(tried, "a", canary=True)
    bob = tried.someone("bob")
    tried.db.feedback.vote(mine.id, bob.id, "up")
    tried.db.people.forget(bob.id, actor="cli")
    assert tried.db.canary.thumbs(trial.id) == []
    tried.db.people.forget(tried.person.id, actor="cli")
    assert tried.db._connection.value("SELECT count(*) FROM trial_replies") == 0
    assert tried.db.trials.canary("console") == trial


def test_blind_choices_between_the_two_are_read(tried: Chat) -> None:
    """Ties and other pairs are left out."""
    trial = tried.db.trials.canary("console")
    assert trial is not None
    for reference in (OLDER, "base"):
        arena = tried.db.trials.ensure("console", "arena", candidate=CANARY, reference=reference)
        match = tried.db.trials.add_match(
            arena.id,
            candidate_reply=tried.say("a").id,
            reference_reply=tried.say("b").id,
            candidate_first=True,
        )
        tried.db.trials.choose(match.id, tried.person.id, "first")
        tried.db.trials.choose(match.id, tried.someone("bob").id, "tie")
    (choice,) = tried.db.canary.choices(trial)
    assert (choice.person, choice.won) == (tried.person.id, True)
    assert isinstance(choice, BlindChoice)


def test_a_part_needs_its_reply(tried: Chat) -> None:
    """A reply that is gone takes part in nothing."""
    trial = tried.db.trials.canary("console")
    assert trial is not None
    with pytest.raises(NotFound):
        tried.db.canary.take_part("r_0", Part(trial.id, "a", True))


def test_a_run_ends_with_its_version_on_trial(chat: Chat) -> None:
    """With a share, row, trial and the run's end are one transaction; again changes nothing."""
    run = chat.db.runs.create("console", recipe="kto", owner_pid=1)
    for _ in range(2):
        ended = chat.db.runs.publish(
            run.id,
            adapter(1, run_id=run.id),
            verdict_state="canary",
            promote=True,
            actor="cli",
            detail="accepted",
            share=0.5,
        )
    assert (ended.state, ended.detail) == ("canary", "accepted")
    assert states(chat.db) == {"console@v1": "canary"}
    assert trial_states(chat.db) == [("console@v1", "open")]
    assert chat.db.runs.active() == []
