"""From feedback rows to training examples: who may teach what, and how loudly.

Owns consent, deduplication, contradictions and the weight of each example; an example never rests
on a row without consent or on one reviewed out. Knows no torch and no SQL.

Weights. People who say the same of the same text add up to a net strength s (a vote or correction
counts 1, asking again 0.3, contradictions are subtracted), and the example gets min(s, √s, 2). Its
weight belongs to the people behind it in equal parts of their strength. Then, within each type of
example, people whose weight exceeds `person_share` of the total T are scaled down together: with U
the weight of the others and k people capped, T = U / (1 − k·share) and each of the k gets share·T.
With too few people for that everybody gets as much as the quietest. In the same way prompts of the
same words share a cap of SUBJECT_SHARE where there are many. At last all weights are divided by the
largest. What looks planted (trainer.suspicion) is left out until an admin has looked at it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

from core.garbage import uncollected
from core.generation import FinishReason
from core.jobs import ChatMessage, DemonstrationExample, Example, PairExample, VoteExample
from core.records import FeedbackRow
from trainer.suspicion import prompt_subject, suspicious

AGAIN_STRENGTH = 0.3
"""Asking for another reply is a weak 👎: people also do it out of curiosity."""
MAX_AGREEMENT = 2.0
"""However many agree, one text never counts more than two."""
SUBJECT_SHARE, MANY_SUBJECTS = 0.1, 20
"""Of so many different prompts or more, those of the same words weigh no more than this share."""
MAX_CHARS = 20_000
"""A completion longer than this is no chat reply."""

Kind = Literal["vote", "pair", "demonstration"]


@dataclass(frozen=True, slots=True)
class Selection:
    """The examples, ordered by time, and how many rows were left out for which reason."""

    examples: list[Example]
    left_out: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Text:
    text: str
    complete: bool = True


@dataclass(frozen=True, slots=True)
class _Claim:
    """One person's word on one text, or on two. `liked` says which way round it is."""

    kind: Kind
    row: FeedbackRow
    texts: tuple[_Text, ...]  # a vote or demonstration: (completion,); a pair: (chosen, rejected)
    liked: bool
    strength: float

    @property
    def subject(self) -> tuple[object, ...]:
        """What the claim is about, equal for those who agree and those who contradict."""
        return self.kind, self.row.prompt, tuple(sorted(part.text.strip() for part in self.texts))

    @property
    def side(self) -> str:
        """Which of the two things one can say of the subject."""
        return self.texts[0].text.strip() if self.kind == "pair" else str(self.liked)


@dataclass(frozen=True, slots=True)
class _Agreement:
    """The claims that won on one subject and what they weigh, by person."""

    claims: list[_Claim]
    shares: dict[str, float]


@uncollected()
def select_examples(
    rows: Sequence[FeedbackRow], *, person_share: float, max_chars: int = MAX_CHARS
) -> Selection:
    """Turn all feedback of a scope into weighted examples, whatever the order of the rows."""
    left_out: Counter[str] = Counter()
    ordered = sorted(rows, key=lambda row: (row.feedback.at, row.feedback.id))
    admitted = _admitted(ordered, left_out)
    claims = (claim for claim in _claims(admitted, left_out) if _usable(claim, max_chars, left_out))
    agreements = _settle(claims, left_out)
    weights = _capped_weights(agreements, person_share)
    examples = [
        _example(agreement, weight) for agreement, weight in zip(agreements, weights, strict=True)
    ]
    return Selection(
        sorted(examples, key=lambda example: (example.at, example.type)), dict(left_out)
    )


def count_examples(examples: Iterable[Example]) -> dict[str, int]:
    """Count `liked`, `disliked`, `pairs`, `demonstrations`, `people` and the `total`."""
    listed = list(examples)
    votes = [example.label for example in listed if isinstance(example, VoteExample)]
    return {
        "liked": sum(votes),
        "disliked": len(votes) - sum(votes),
        "pairs": sum(isinstance(example, PairExample) for example in listed),
        "demonstrations": sum(isinstance(example, DemonstrationExample) for example in listed),
        "people": len({example.person for example in listed}),
        "total": len(listed),
    }


def _admitted(rows: Iterable[FeedbackRow], left_out: Counter[str]) -> list[FeedbackRow]:
    kept = []
    for row in rows:
        if row.feedback.dropped:
            left_out["reviewed out"] += 1
        elif not row.all_consented:
            left_out["no consent"] += 1
        else:
            kept.append(row)
    aside = suspicious(kept)
    left_out.update(aside.values())
    return [row for row in kept if row.feedback.id not in aside]


def _claims(rows: list[FeedbackRow], left_out: Counter[str]) -> Iterable[_Claim]:
    """Yield what each row says: one thing or two, or none if its author voted as well."""
    votes = {
        (row.feedback.reply_id, row.feedback.person_id): row
        for row in rows
        if row.feedback.kind in ("up", "down")
    }
    for row in rows:
        key = row.feedback.reply_id, row.feedback.person_id
        reply = _Text(row.reply_text, _ended(row.finish_reason))
        match row.feedback.kind:
            case "up" | "down" if votes[key] is not row:
                left_out["changed mind"] += 1
            case "up":
                yield _Claim("vote", row, (reply,), liked=True, strength=1.0)
                older = votes.get((row.other_id or "", row.feedback.person_id))
                if row.other_text is not None and (older is None or older.feedback.kind != "up"):
                    yield _Claim("pair", row, (reply, _other(row)), liked=True, strength=1.0)
            case "down":
                yield _Claim("vote", row, (reply,), liked=False, strength=1.0)
            case "correction":
                correction = _Text(row.feedback.text or "")
                yield _Claim("demonstration", row, (correction,), liked=True, strength=1.0)
                yield _Claim("pair", row, (correction, reply), liked=True, strength=1.0)
            case "preference" if row.other_text is None:
                left_out["the other reply is gone"] += 1
            case "preference":
                yield _Claim("pair", row, (reply, _other(row)), liked=True, strength=1.0)
            case "regenerate":
                newer = votes.get((row.feedback.other_reply_id or "", row.feedback.person_id))
                if newer is not None and newer.feedback.kind == "up":
                    better = _Text(newer.reply_text, _ended(newer.finish_reason))
                    yield _Claim("pair", row, (better, reply), liked=True, strength=1.0)
                if key in votes:
                    left_out["asked again, but voted"] += 1
                else:
                    yield _Claim("vote", row, (reply,), liked=False, strength=AGAIN_STRENGTH)


def _ended(reason: FinishReason | None) -> bool:
    """Say whether the model itself ended the reply; unknown (an import) counts as ended."""
    return reason in (None, "stop")


def _other(row: FeedbackRow) -> _Text:
    return _Text(row.other_text or "", _ended(row.other_finish_reason))


def _usable(claim: _Claim, max_chars: int, left_out: Counter[str]) -> bool:
    texts = [part.text.strip() for part in claim.texts]
    if not all(texts):
        left_out["empty text"] += 1
    elif not any(
        message.content.strip() for message in claim.row.prompt if message.role != "system"
    ):
        left_out["no prompt"] += 1
    elif max(map(len, texts)) > max_chars:
        left_out["too long"] += 1
    elif len(texts) == 2 and texts[0] == texts[1]:
        left_out["the two replies are the same"] += 1
    else:
        return True
    return False


def _settle(claims: Iterable[_Claim], left_out: Counter[str]) -> list[_Agreement]:
    """Merge those who agree, let the majority win where they do not, and drop ties."""
    subjects: defaultdict[tuple[object, ...], list[_Claim]] = defaultdict(list)
    for claim in claims:
        subjects[claim.subject].append(claim)
    agreements = []
    for said in subjects.values():
        ranked = sorted(_sides(said), key=lambda side: -sum(_strengths(side).values()))
        winners = _strengths(ranked[0])
        against = sum(sum(_strengths(side).values()) for side in ranked[1:])
        net = sum(winners.values()) - against
        if net <= 1e-9:
            left_out["tie"] += sum(map(len, ranked))
            continue
        left_out["outvoted"] += sum(map(len, ranked[1:]))
        weight = min(net, sqrt(net), MAX_AGREEMENT) / sum(winners.values())
        shares = {person: weight * strength for person, strength in winners.items()}
        agreements.append(_Agreement(ranked[0], shares))
    if not left_out["outvoted"]:
        del left_out["outvoted"]
    return agreements


def _sides(claims: Iterable[_Claim]) -> Iterable[list[_Claim]]:
    """Part those who say different things of one subject."""
    sides: defaultdict[str, list[_Claim]] = defaultdict(list)
    for claim in claims:
        sides[claim.side].append(claim)
    return sides.values()


def _strengths(claims: Iterable[_Claim]) -> dict[str, float]:
    """Return each person's strongest word: saying it twice counts once."""
    strengths: dict[str, float] = {}
    for claim in claims:
        person = claim.row.feedback.person_id
        strengths[person] = max(claim.strength, strengths.get(person, 0.0))
    return strengths


def _capped_weights(agreements: Sequence[_Agreement], person_share: float) -> list[float]:
    totals: defaultdict[Kind, Counter[str]] = defaultdict(Counter)
    for agreement in agreements:
        for person, share in agreement.shares.items():
            totals[agreement.claims[0].kind][person] += share  # type: ignore[assignment]
    factors = {kind: cap_factors(dict(of_kind), person_share) for kind, of_kind in totals.items()}
    weights = [
        sum(
            share * factors[agreement.claims[0].kind][person]
            for person, share in agreement.shares.items()
        )
        for agreement in agreements
    ]
    weights = _capped_by_subject(agreements, weights)
    largest = max(weights, default=1.0)
    return [weight / largest for weight in weights]


def _capped_by_subject(agreements: Sequence[_Agreement], weights: list[float]) -> list[float]:
    """Let prompts that are nearly the same share a cap, where there are many others."""
    subjects = [prompt_subject(agreement.claims[0].row) for agreement in agreements]
    totals: Counter[str] = Counter()
    for subject, weight in zip(subjects, weights, strict=True):
        totals[subject] += weight  # type: ignore[assignment]
    if len(totals) < MANY_SUBJECTS:
        return weights
    factors = cap_factors(dict(totals), SUBJECT_SHARE)
    return [weight * factors[subject] for subject, weight in zip(subjects, weights, strict=True)]


def cap_factors(totals: dict[str, float], person_share: float) -> dict[str, float]:
    """Return each person's factor in (0, 1], after which nobody exceeds `person_share`.

    People are capped from the loudest on, until the next one lies under the cap that those below
    leave. If that takes everybody, each gets the smallest total.
    """
    ranked = sorted(totals, key=lambda person: -totals[person])
    for capped in range(len(ranked)):
        others = sum(totals[person] for person in ranked[capped:])
        room = 1.0 - capped * person_share
        if room <= 1e-9:
            break
        cap = person_share * others / room
        if totals[ranked[capped]] <= cap * (1 + 1e-9):
            return {person: min(1.0, cap / totals[person]) for person in ranked}
    smallest = min(totals.values(), default=1.0)
    return {person: smallest / totals[person] for person in ranked}


def _example(agreement: _Agreement, weight: float) -> Example:
    """Build the example; its person and time are those of the first who said it."""
    first = agreement.claims[0]
    prompt = [
        ChatMessage(role=message.role, content=message.content) for message in first.row.prompt
    ]
    ids = sorted({claim.row.feedback.id for claim in agreement.claims})
    person, at = first.row.feedback.person_id, first.row.feedback.at
    if first.kind == "pair":
        chosen, rejected = first.texts
        return PairExample(
            feedback_ids=ids,
            person=person,
            at=at,
            prompt=prompt,
            weight=weight,
            chosen=chosen.text,
            chosen_complete=chosen.complete,
            rejected=rejected.text,
            rejected_complete=rejected.complete,
        )
    (text,) = first.texts
    if first.kind == "demonstration":
        return DemonstrationExample(
            feedback_ids=ids,
            person=person,
            at=at,
            prompt=prompt,
            weight=weight,
            completion=text.text,
            complete=text.complete,
        )
    return VoteExample(
        feedback_ids=ids,
        person=person,
        at=at,
        prompt=prompt,
        weight=weight,
        completion=text.text,
        complete=text.complete,
        label=first.liked,
    )
