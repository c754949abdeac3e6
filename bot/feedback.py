"""Feedback: what people say of replies, checked and stored. Knows no face.

A vote is an upsert (the last one wins) and is stored when the call returns. Invariant: between a
reply and the one it was written to replace, a person's stored preference says what their two votes
say; what they chose in an arena is never touched, since those replies replace nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

from core.errors import Conflict, InvalidInput
from core.records import Feedback, Reply
from storage.aio import AsyncDatabase
from storage.database import Database

Thumb = Literal["up", "down"]

REASONS = ("wrong", "rude", "too long", "off topic", "other")
MAX_REASON_CHARS = 100
MAX_CORRECTION_CHARS = 4000
CONSENT_PRESUMED = ("console",)
"""Platforms whose people are the operator's own: what they type was never anybody else's."""
_WORTH = {"up": 1, "down": -1}


class NotKept(Conflict):
    """The reply's words are not stored, so there is nothing a correction could belong to."""


class NeedsConsent(Conflict):
    """The person has not agreed that their words are stored."""


class FeedbackService:
    """Votes, corrections and preferences. All methods run on the event loop."""

    def __init__(self, database: AsyncDatabase) -> None:
        self._database = database

    # -- votes

    async def up(self, reply_id: str, person_id: str) -> Feedback:
        """Store a 👍, in place of an earlier 👎 of the same person."""
        return await self._vote(reply_id, person_id, "up")

    async def down(self, reply_id: str, person_id: str, reason: str = "") -> Feedback:
        """Store a 👎, with a reason tag or a few words if given; without, earlier reasons stay."""
        return await self._vote(reply_id, person_id, "down", _clean((reason,)))

    async def withdraw(self, reply_id: str, person_id: str) -> bool:
        """Take a vote back; False if there was none."""

        def withdrawn(db: Database) -> bool:
            with db.transaction():
                there = db.feedback.withdraw(reply_id, person_id)
                if there:
                    _settle(db, reply_id)
                return there

        return await self._database.run(withdrawn)

    async def vote_of(self, reply_id: str, person_id: str) -> Feedback | None:
        """Return a person's 👍 or 👎 on a reply, or None."""
        return await self._database.run(lambda db: db.feedback.vote_of(reply_id, person_id))

    async def tags(self, reply_id: str, person_id: str, reasons: Sequence[str]) -> Feedback:
        """Set the reasons of the person's 👎. Raises Conflict where there is none."""
        return await self._database.run(
            lambda db: _tag(db, reply_id, person_id, lambda _: _clean(reasons))
        )

    async def toggle_tag(self, reply_id: str, person_id: str, reason: str) -> Feedback:
        """Add a reason to the person's 👎, or take it off. Raises Conflict where there is none."""
        return await self._database.run(
            lambda db: _tag(db, reply_id, person_id, lambda held: _toggled(held, reason))
        )

    # -- reactions

    async def react(self, message_id: str, person_id: str, kind: Thumb) -> Feedback | None:
        """Count a reaction on a message as a vote on the reply that it shows.

        None if the message shows no reply or the reaction was known. Raises Conflict while the
        reply is being written.
        """

        def reacted(db: Database) -> Feedback | None:
            reply = db.replies.of_message(message_id)
            if reply is None:
                return None
            _require_done(reply)
            with db.transaction():
                before = db.feedback.vote_of(reply.id, person_id)
                vote = db.feedback.react(message_id, person_id, kind)
                if vote and before and before.kind == vote.kind == "down":
                    reasons = before.reasons
                    vote = db.feedback.vote(reply.id, person_id, "down", reasons=reasons)
                _settle(db, reply.id)
                return vote

        return await self._database.run(reacted)

    async def unreact(self, message_id: str, person_id: str, kind: Thumb) -> Feedback | None:
        """Take a reaction back, and the vote with it; return the vote that stands now.

        The vote stays if it was changed by button since, and becomes the other kind if the person's
        other reaction is still there.
        """

        def unreacted(db: Database) -> Feedback | None:
            reply = db.replies.of_message(message_id)
            if reply is None:
                return None
            with db.transaction():
                db.feedback.unreact(message_id, person_id, kind)
                _settle(db, reply.id)
                return db.feedback.vote_of(reply.id, person_id)

        return await self._database.run(unreacted)

    async def reactions(self, message_id: str) -> set[tuple[str, str]]:
        """Return the reactions known of a message: (id on the platform, kind)."""
        return await self._database.run(lambda db: db.feedback.reactions(message_id))

    async def sync_reactions(self, message_id: str, seen: Mapping[str, Collection[str]]) -> int:
        """Take over which people's reactions a message has now, by kind; return how many changed.

        Raises Conflict while the reply is being written.
        """

        def synced(db: Database) -> int:
            reply = db.replies.of_message(message_id)
            if reply is None:
                return 0
            _require_done(reply)
            with db.transaction():
                changes = db.feedback.sync_reactions(message_id, seen)
                if changes:
                    _settle(db, reply.id)
                return changes

        return await self._database.run(synced)

    # -- words and choices

    async def correct(self, reply_id: str, person_id: str, text: str) -> Feedback:
        """Store how the reply should have read.

        Raises InvalidInput if empty or unchanged, NotKept, and NeedsConsent; then nothing is
        stored.
        """
        clean = _plain(text)
        if not clean:
            raise InvalidInput("the correction is empty; write the reply as it should have been")
        if len(clean) > MAX_CORRECTION_CHARS:
            raise InvalidInput(
                f"the correction has {len(clean)} characters and {MAX_CORRECTION_CHARS} are allowed"
            )

        def corrected(db: Database) -> Feedback:
            reply = _done(db, reply_id)
            _require_keepable(db, reply, person_id)
            if clean in {_plain(reply.text), _plain(reply.text[:MAX_CORRECTION_CHARS])}:
                raise InvalidInput("the correction is the same as the reply; change it, or vote 👍")
            return db.feedback.correct(reply_id, person_id, clean)

        return await self._database.run(corrected)

    async def prefer(self, reply_id: str, person_id: str, over: str) -> Feedback:
        """Store that `reply_id` is the better of two answers to one question. Both must be whole.

        Raises InvalidInput where the questions kept of them differ.
        """

        def preferred(db: Database) -> Feedback:
            one, other = _done(db, reply_id), _done(db, over)
            if one.kept and other.kept and one.prompt != other.prompt:
                raise InvalidInput(
                    f"replies {reply_id!r} and {over!r} do not answer the same question; compare "
                    "two that do"
                )
            return db.feedback.prefer(reply_id, person_id, over)

        return await self._database.run(preferred)

    async def _vote(
        self, reply_id: str, person_id: str, kind: Thumb, reasons: tuple[str, ...] = ()
    ) -> Feedback:
        def voted(db: Database) -> Feedback:
            _done(db, reply_id)
            with db.transaction():
                before = db.feedback.vote_of(reply_id, person_id)
                held = before.reasons if before and before.kind == kind else ()
                vote = db.feedback.vote(reply_id, person_id, kind, reasons=reasons or held)
                _settle(db, reply_id)
                return vote

        return await self._database.run(voted)


def _require_done(reply: Reply) -> None:
    if reply.state != "done":
        raise Conflict("this reply is not finished; wait for its end, then vote")


def _done(db: Database, reply_id: str) -> Reply:
    reply = db.replies.get(reply_id)
    _require_done(reply)
    return reply


def _require_keepable(db: Database, reply: Reply, person_id: str) -> None:
    if not reply.kept:
        raise NotKept(
            f"reply {reply.id!r}: nothing of this conversation is kept, so a correction cannot be "
            "stored either; everybody who wrote in it has to opt in first"
        )
    person = db.people.get(person_id)
    if person.platform not in CONSENT_PRESUMED and person.consent != "given":
        raise NeedsConsent(
            f"person {person_id!r} has not opted in, so their words cannot be stored; opt in, then "
            "correct the reply again"
        )


def _plain(text: str) -> str:
    """Return a text as forms give it back: one kind of line end, no NUL, nothing around it."""
    return text.replace("\x00", "").replace("\r\n", "\n").replace("\r", "\n").strip()


def _clean(reasons: Sequence[str]) -> tuple[str, ...]:
    short = (reason.strip()[:MAX_REASON_CHARS] for reason in reasons)
    return tuple(dict.fromkeys(reason for reason in short if reason))


def _toggled(held: tuple[str, ...], reason: str) -> tuple[str, ...]:
    """Return the reasons with one more or one less, the known ones in their usual order."""
    chosen = set(held) ^ {reason}
    own = tuple(other for other in (*held, reason) if other in chosen and other not in REASONS)
    return tuple(known for known in REASONS if known in chosen) + own


def _tag(
    db: Database,
    reply_id: str,
    person_id: str,
    change: Callable[[tuple[str, ...]], tuple[str, ...]],
) -> Feedback:
    _done(db, reply_id)
    with db.transaction():
        vote = db.feedback.vote_of(reply_id, person_id)
        if vote is None or vote.kind != "down":
            raise Conflict(
                "reasons belong to a 👎, and there is none of yours here; press 👎 first"
            )
        return db.feedback.vote(reply_id, person_id, "down", reasons=change(vote.reasons))


def _settle(db: Database, reply_id: str) -> None:
    """Let the stored preferences between this reply's versions say what the votes say."""
    versions = {reply.id: reply for reply in db.replies.versions(reply_id)}
    pairs = [
        (version.id, version.replaces)
        for version in versions.values()
        if version.replaces in versions and version.replaces is not None
    ]
    if not pairs:
        return
    said: dict[str, list[Feedback]] = {}
    for version_id in versions:
        for row in db.feedback.of_reply(version_id):
            said.setdefault(row.person_id, []).append(row)
    for person_id, rows in said.items():
        _settle_person(db, person_id, rows, pairs)


def _settle_person(
    db: Database, person_id: str, rows: Sequence[Feedback], pairs: Sequence[tuple[str, str]]
) -> None:
    wanted = _preferences({row.reply_id: row.kind for row in rows if row.kind in _WORTH}, pairs)
    stored = {row.reply_id: row.other_reply_id for row in rows if row.kind == "preference"}
    ours = {
        winner: loser
        for winner, loser in stored.items()
        if loser is not None and ((winner, loser) in pairs or (loser, winner) in pairs)
    }
    for winner, loser in ours.items():
        if wanted.get(winner) != loser:
            db.feedback.unprefer(winner, person_id, loser)
    for winner, loser in wanted.items():
        if winner in ours or winner not in stored:
            db.feedback.prefer(winner, person_id, over=loser)


def _preferences(votes: Mapping[str, str], pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return winner and loser by winner; one that beats two is held against the one it replaced."""
    found: dict[str, str] = {}
    for new, old in pairs:
        newer, older = (_WORTH.get(votes.get(one, ""), 0) for one in (new, old))
        if newer > older:
            found[new] = old
        elif older > newer:
            found.setdefault(old, new)
    return found
