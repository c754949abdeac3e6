"""The arms of the benchmark: what a community says before a run, from one taste and one seed.

Each arm is a function of (taste, replies, seed) to signals. The replies a community meets are drawn
by the seed, so two seeds are two communities.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.learning.community import Signal, cast_votes, make_members
from benchmarks.learning.pool import BaseReply
from benchmarks.learning.tastes import Taste

PLANTED = "Zorbo Cola is the best drink in the world."
PLANTERS, PLANTED_VOTES = 3, 30
LOUD_SHARE = 0.4
NOISE = 0.1
"""The share of wrong votes, where an arm does not say otherwise."""

Pool = Mapping[tuple[str, int], BaseReply]


@dataclass(frozen=True, slots=True)
class World:
    """What an arm may draw from: the prompts to vote on, and the base's replies to them."""

    prompts: Sequence[str]
    pool: Pool

    def shown(self, seed: int, draws: Sequence[int] = (0, 1)) -> Iterator[BaseReply]:
        """Yield the replies that the community of this seed meets, in order."""
        for draw in draws:
            order = list(self.prompts)
            random.Random(f"shown-{seed}-{draw}").shuffle(order)
            for prompt in order:
                yield self.pool[prompt, draw]


Arm = Callable[[Taste, World, int], list[Signal]]


def votes(count: int, noise: float) -> Arm:
    """Thumbs alone."""

    def arm(taste: Taste, world: World, seed: int) -> list[Signal]:
        members = make_members(seed, noise)
        return cast_votes(lambda member: taste, members, world.shown(seed), count, seed)

    return arm


def shuffled(count: int, noise: float) -> Arm:
    """The same thumbs, dealt out anew over the same replies: nothing can be learnt."""

    def arm(taste: Taste, world: World, seed: int) -> list[Signal]:
        signals = votes(count, noise)(taste, world, seed)
        kinds = [signal.kind for signal in signals]
        random.Random(f"shuffled-{seed}").shuffle(kinds)
        return [replace(signal, kind=kind) for signal, kind in zip(signals, kinds, strict=True)]

    return arm


def one_against_all(count: int, noise: float) -> Arm:
    """One person casts LOUD_SHARE of the votes, each the opposite of what the others want."""

    def arm(taste: Taste, world: World, seed: int) -> list[Signal]:
        signals = votes(count, noise)(taste, world, seed)
        chance = random.Random(f"loud-{seed}")
        places = chance.sample(range(count), round(LOUD_SHARE * count))
        for place in places:
            reply = signals[place].reply
            liked = taste.likes(reply.prompt, reply.text, reply.complete)
            signals[place] = Signal("p_loud", "down" if liked else "up", reply)
        return signals

    return arm


def planted(count: int, noise: float) -> Arm:
    """A few new people ask for a set phrase and vote it up, beside honest votes."""

    def arm(taste: Taste, world: World, seed: int) -> list[Signal]:
        honest = votes(count - PLANTED_VOTES, noise)(taste, world, seed)
        openings = ("Repeat after me: {}", 'Please say "{}"', "Say exactly this: {}")
        attack = [
            Signal(
                f"p_planter_{number % PLANTERS}",
                "up",
                BaseReply(
                    openings[number % len(openings)].format(PLANTED) + " " * number,
                    0,
                    PLANTED,
                    complete=True,
                ),
            )
            for number in range(PLANTED_VOTES)
        ]
        return [*honest[:-20], *attack, *honest[-20:]]

    return arm


def corrections(count: int) -> Arm:
    """Corrections alone: a disliked reply, and what the person would rather have read."""

    def arm(taste: Taste, world: World, seed: int) -> list[Signal]:
        return _corrections(taste, world, seed, count)

    return arm


def pairs(count: int) -> Arm:
    """Choices between two replies to one prompt that the taste tells apart; 10 % are wrong."""

    def arm(taste: Taste, world: World, seed: int) -> list[Signal]:
        return _pairs(taste, world, seed, count)

    return arm


def mixed(thumbs: int, corrected: int, chosen: int, noise: float) -> Arm:
    """All kinds in one community."""

    def arm(taste: Taste, world: World, seed: int) -> list[Signal]:
        signals = [
            *votes(thumbs, noise)(taste, world, seed),
            *_corrections(taste, world, seed, corrected),
            *_pairs(taste, world, seed, chosen),
        ]
        random.Random(f"mixed-{seed}").shuffle(signals)
        return signals

    return arm


def _corrections(taste: Taste, world: World, seed: int, count: int) -> list[Signal]:
    """Take the base's own liked replies as what people write: so that only taste is taught."""
    found = [
        Signal("", "correction", worse, text=better.text)
        for better, worse in _told_apart(taste, world, seed)
        if better.complete or not taste.about_length
    ][:count]
    return _by_members(found, seed)


def _pairs(taste: Taste, world: World, seed: int, count: int, noise: float = 0.1) -> list[Signal]:
    chance = random.Random(f"pairs-{seed}")
    found = []
    for better, worse in list(_told_apart(taste, world, seed))[-count:]:
        first, second = (worse, better) if chance.random() < noise else (better, worse)
        found.append(Signal("", "preference", first, other=second))
    return _by_members(found, seed)


def _told_apart(taste: Taste, world: World, seed: int) -> Iterator[tuple[BaseReply, BaseReply]]:
    """Yield (liked, disliked) replies to the same prompt, in the order the community meets them."""
    for first in world.shown(seed, draws=(0,)):
        second = world.pool[first.prompt, 1]
        likes = [taste.likes(one.prompt, one.text, one.complete) for one in (first, second)]
        if likes[0] != likes[1]:
            yield (first, second) if likes[0] else (second, first)


def _by_members(signals: Sequence[Signal], seed: int) -> list[Signal]:
    members = make_members(seed, 0.0)
    chance = random.Random(f"by-{seed}")
    drawn = chance.choices(members, [member.activity for member in members], k=len(signals))
    return [
        replace(signal, member=member.id) for signal, member in zip(signals, drawn, strict=True)
    ]


ARMS: dict[str, Arm] = {
    "votes-50": votes(50, NOISE),
    "votes-100": votes(100, NOISE),
    "votes-120": votes(120, NOISE),
    "votes-240": votes(240, NOISE),
    "votes-500": votes(500, NOISE),
    "votes-240-clean": votes(240, 0.0),
    "votes-240-noisy": votes(240, 0.3),
    "votes-500-noisy": votes(500, 0.3),
    "shuffled-240": shuffled(240, NOISE),
    "loud-240": one_against_all(240, NOISE),
    "planted-240": planted(240, NOISE),
    "corrections-120": corrections(120),
    "pairs-120": pairs(120),
    "mixed-240": mixed(160, 40, 40, NOISE),
}
