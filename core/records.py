"""The rows of the loop as frozen values: what crosses the border between storage and everything
else.

Times are UTC ISO-8601 text with microseconds (`2026-11-23T20:15:00.000000Z`), so that they sort as
text.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from core.generation import FinishReason, Message, Sampling

SignalKind = Literal["up", "down", "correction", "preference", "regenerate"]
RunState = Literal[
    "queued",
    "snapshot",
    "training",
    "judging",
    "publishing",
    "promoted",
    "canary",
    "refused",
    "failed",
    "cancelled",
    "interrupted",
]
AdapterState = Literal["candidate", "canary", "live", "retired", "refused"]
ReplyState = Literal["pending", "done", "failed"]
Consent = Literal["unknown", "given", "refused"]
TrialKind = Literal["canary", "arena"]
TrialState = Literal["open", "better", "worse", "undecided"]
MatchChoice = Literal["candidate", "reference", "tie"]
ApiRole = Literal["user", "admin"]

ACTIVE_RUN_STATES: tuple[RunState, ...] = (
    "queued",
    "snapshot",
    "training",
    "judging",
    "publishing",
)


ID_DIGITS = "[0-9a-f]{16,24}"
"""What follows an identifier's prefix, as a pattern: 24 digits, of earlier versions 16."""


def new_id(prefix: str, at: float | None = None) -> str:
    """Return a fresh unguessable identifier such as `r_67748580…`: the second, 64 random bits.

    `at` is the moment, in seconds since 1970; None is now. What is made together lies together in
    an index over identifiers, so that reading it in the order of time stays on the same few pages.
    """
    second = int(time.time() if at is None else at)
    return f"{prefix}_{second:08x}{secrets.token_hex(8)}"


def utc_now() -> str:
    """Return the present as sortable UTC text with microseconds."""
    return utc_text(datetime.now(UTC))


def utc_text(moment: datetime) -> str:
    """Return a time-zone-aware moment as sortable UTC text."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime:
    """Read ISO-8601 text; a time without a zone counts as UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Scope:
    """A world with its own adapter family: a Discord server, the console, an import.

    `live`, `previous` and `canary` are adapter names, or None for the base model.
    """

    name: str
    persona: str
    training_enabled: bool
    live: str | None
    previous: str | None
    canary: str | None
    live_since: str | None


@dataclass(frozen=True, slots=True)
class Person:
    """A human on a platform; `consent` is theirs to give and says whether their words may train.

    On a platform whose message ids grow with time it holds from the id `consent_from` on.
    """

    id: str
    platform: str
    platform_id: str
    display_name: str
    consent: Consent
    consent_at: str | None
    last_seen: str | None
    consent_from: int = 0


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation as a list shows it: `title` is the beginning of what was said first."""

    id: str
    scope: str
    title: str
    updated_at: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation by a person (role `user`) or the bot (`assistant`, with
    `reply_id`).
    """

    id: str
    conversation_id: str
    position: int
    role: Literal["user", "assistant"]
    text: str
    person_id: str | None
    reply_id: str | None
    at: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What the bot wrote: pinned to one adapter (`base` or a name) from its first token to its
    last.

    `prompt` is what the model was shown (system message first, if any). `replaces` is the reply
    that a person asked to have written again, `origin` the first of all its versions. One that is
    not `kept` has no prompt and no text: people did not agree to either being stored.
    """

    id: str
    conversation_id: str
    scope: str
    prompt: tuple[Message, ...]
    text: str
    adapter: str
    sampling: Sampling
    state: ReplyState
    seed: int | None
    finish_reason: FinishReason | None
    prompt_tokens: int
    tokens: int
    first_token_s: float | None
    total_s: float | None
    replaces: str | None
    kept: bool
    at: str
    origin: str = ""


@dataclass(frozen=True, slots=True)
class ShownMessage:
    """A message of a platform that shows a reply now; `position` orders a reply's messages.

    `place` is the platform's key of the conversation, where it was asked for.
    """

    message_id: str
    channel_id: str
    reply_id: str
    position: int
    place: str = ""


@dataclass(frozen=True, slots=True)
class Feedback:
    """One person's signal on one reply.

    `text` is the correction, for kind `correction`. `other_reply_id` is the reply that lost, for
    kind `preference`. `dropped` marks a row an admin reviewed out of training; `reviewed_at` is
    when an admin last decided on it, None if nobody did since the person last changed it.
    """

    id: str
    reply_id: str
    person_id: str
    kind: SignalKind
    text: str | None
    other_reply_id: str | None
    reasons: tuple[str, ...]
    dropped: bool
    at: str
    reviewed_at: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A training run: a state machine whose every step can be repeated after a crash.

    `owner_pid` is the process that drives it; `adapter` the name it trains. `detail` says why it
    ended.
    """

    id: str
    scope: str
    state: RunState
    recipe: str
    adapter: str | None
    directory: str
    counts: dict[str, Any]
    dataset_sha256: str | None
    report: dict[str, Any] | None
    detail: str
    owner_pid: int | None
    cancel_requested: bool
    force: bool
    created_at: str
    updated_at: str


@dataclass(frozen=True, slots=True)
class AdapterRecord:
    """A published adapter version; `directory` is relative to the data directory."""

    name: str
    scope: str
    version: int
    base_sha256: str
    run_id: str | None
    directory: str
    sha256: str
    state: AdapterState
    detail: str
    created_at: str


@dataclass(frozen=True, slots=True)
class Trial:
    """A comparison of two adapters (names, or `base`) by people's choices.

    `share` is that of new conversations drawn for the candidate, of a canary; else None.
    """

    id: str
    scope: str
    kind: TrialKind
    candidate: str
    reference: str
    state: TrialState
    created_at: str
    updated_at: str
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """Two replies to the same prompt, shown side by side; `candidate_first` says in which order."""

    id: str
    trial_id: str
    candidate_reply: str
    reference_reply: str
    candidate_first: bool
    at: str


@dataclass(frozen=True, slots=True)
class MatchVote:
    """What a person chose in a match; choosing again replaces it."""

    match_id: str
    person_id: str
    choice: MatchChoice
    at: str


@dataclass(frozen=True, slots=True)
class Tally:
    """How many choices each side of a trial has, and how many people chose."""

    candidate: int
    reference: int
    ties: int
    people: int


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of the HTTP API, without the key: what it may do and for which scope.

    `consented` says that the operator stated consent for everybody who speaks through it.
    """

    name: str
    role: ApiRole
    scope: str
    consented: bool
    created_at: str
    revoked_at: str | None


@dataclass(frozen=True, slots=True)
class Event:
    """An audit line: who did what to what, and when. Never changed, never removed."""

    id: int
    at: str
    actor: str
    action: str
    subject: str
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FeedbackRow:
    """A signal joined with all that training needs to know of it.

    `authors` are the ids of every human who wrote in the context (the voter excluded unless they
    wrote there); `all_consented` says that each of them and the voter gave consent and that
    the text is kept. `other_text` is the reply that lost a preference, or that this one was written
    to replace; `other_finish_reason` how that one ended.
    """

    feedback: Feedback
    scope: str
    platform: str
    person_name: str
    prompt: tuple[Message, ...]
    reply_text: str
    reply_adapter: str
    finish_reason: FinishReason | None
    other_text: str | None
    authors: tuple[str, ...]
    all_consented: bool
    other_finish_reason: FinishReason | None = None
    other_id: str | None = None
