"""Split examples into train and held-out by person and by time. Knows no torch and no SQL.

Invariants: a prompt (its text, whoever wrote it and whatever the system message) is on one side
only; the same input gives the same split. First whole people are held out, drawn by seed, for about
half of the share: what is learnt must please those who never taught it. Then the latest rows of the
rest fill up, so that the figures are about what comes next. Both steps keep each kind (liked,
disliked, pair, demonstration) on both sides where there are at least two of it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.jobs import ChatMessage, Example, VoteExample

MIN_PEOPLE = 3
"""With fewer people holding one out whole would cost too much of the data."""


@dataclass(frozen=True, slots=True)
class Split:
    """Which examples train and which are kept for the gate, and in one sentence how they were
    chosen."""

    train: list[Example]
    held_out: list[Example]
    why: str


@dataclass(frozen=True, slots=True)
class _Group:
    """All examples of one prompt: they stay together."""

    examples: tuple[Example, ...]

    @property
    def people(self) -> set[str]:
        return {example.person for example in self.examples}

    @property
    def latest(self) -> str:
        return max(example.at for example in self.examples)

    @property
    def kinds(self) -> Counter[str]:
        return Counter(map(_kind, self.examples))


def split_examples(examples: Sequence[Example], *, held_out_share: float, seed: int) -> Split:
    """Hold out about `held_out_share` of the examples; fewer than two prompts are all trained
    on."""
    groups = _by_prompt(examples)
    totals: Counter[str] = Counter(map(_kind, examples))
    quota = round(held_out_share * len(examples))
    chosen_people = _draw_people(groups, totals, quota // 2, seed)
    held = [group for group in groups if group.people & chosen_people]
    of_people = sum(len(group.examples) for group in held)
    rest = [group for group in groups if not group.people & chosen_people]
    held += _latest(rest, held, totals, held_out_share)
    kept = {id(example) for group in held for example in group.examples}
    held_out = [example for example in examples if id(example) in kept]
    train = [example for example in examples if id(example) not in kept]
    people = {example.person for example in examples}
    why = (
        f"held out {len(held_out)} of {len(examples)} examples: all {of_people} that share a "
        f"prompt with {len(chosen_people)} of {len(people)} people, "
        f"and the latest {len(held_out) - of_people} of the rest"
    )
    return Split(train, held_out, why)


def prompt_key(example: Example) -> str:
    """Return what makes the prompts of two examples the same."""
    return words_of(example.prompt)


def prompts_of(examples: Iterable[Example]) -> dict[str, Sequence[ChatMessage]]:
    """Return the prompts of examples by what makes them the same, each once."""
    return {prompt_key(one): one.prompt for one in examples}


def words_of(prompt: Sequence[ChatMessage]) -> str:
    """Return the words of a prompt, without system message, case and spacing."""
    spoken = (message for message in prompt if message.role != "system")
    return "\n".join(
        f"{message.role}: {' '.join(message.content.casefold().split())}" for message in spoken
    )


def _kind(example: Example) -> str:
    if isinstance(example, VoteExample):
        return "liked" if example.label else "disliked"
    return example.type


def _by_prompt(examples: Sequence[Example]) -> list[_Group]:
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(prompt_key(example), []).append(example)
    return [_Group(tuple(group)) for group in groups.values()]


def _draw_people(
    groups: list[_Group], totals: Counter[str], quota: int, seed: int
) -> frozenset[str]:
    """Draw people whose groups fit into `quota` and leave at least half of each kind to train
    on."""
    people = sorted({person for group in groups for person in group.people})
    if len(people) < MIN_PEOPLE:
        return frozenset()
    random.Random(seed).shuffle(people)
    chosen: frozenset[str] = frozenset()
    for person in people:
        held = [group for group in groups if group.people & (chosen | {person})]
        kinds = _count(held)
        fits = kinds.total() <= quota and len(chosen) < len(people) - 2
        if fits and all(2 * kinds[kind] <= totals[kind] for kind in kinds):
            chosen |= {person}
    return chosen


def _latest(
    rest: list[_Group], held: list[_Group], totals: Counter[str], share: float
) -> list[_Group]:
    """Take the latest groups until each kind has its share held out, never all of a kind."""
    taken: list[_Group] = []
    count = _count(held)
    waiting = sorted(rest, key=lambda group: group.latest, reverse=True)
    for kind in sorted(totals, key=lambda kind: totals[kind]):
        wanted = max(round(share * totals[kind]), 1)
        for group in list(waiting):
            if count[kind] >= wanted:
                break
            after = count + group.kinds
            spares = all(after[other] < totals[other] for other in group.kinds)
            if group.kinds[kind] and spares:
                taken.append(group)
                waiting.remove(group)
                count = after
    return taken


def _count(groups: list[_Group]) -> Counter[str]:
    return sum((group.kinds for group in groups), Counter())
