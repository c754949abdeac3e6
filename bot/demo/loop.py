"""The loop once, from first chat to swapped adapter, measured on prompts nobody trained on.

A simulated community (bot.demo.community) chats with the real bot through the same services a
person uses, votes, and lets it train; the gate decides. Then unseen prompts are asked of the base
and of whoever speaks. Nothing is forced: a refusal is a result too.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from bot.demo.community import NONE, Taste, make_members, split_prompts, votes_up
from bot.driver import Outcome
from bot.world import World
from core.generation import BASE, GenerationRequest, Message, Sampling
from core.jobs import Progress
from core.records import Person, Reply
from storage.database import Database

SCOPE = "demo"
MAX_TOKENS = 80
BOOTSTRAP_ROUNDS = 4000
Tell = Callable[[str, float, str], None]
"""Called with a step's name, its share done in [0, 1], and a few words."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply to an unseen prompt and whether the stated taste likes it."""

    text: str
    complete: bool
    liked: bool


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo found. Rates are shares of unseen prompts in [0, 1]; times are seconds."""

    seed: int
    taste: str
    votes_up: int
    votes_down: int
    prompts: tuple[str, ...]
    before: tuple[Answer, ...]
    after: tuple[Answer, ...]
    outcome: Outcome
    speaking: str
    difference_interval: tuple[float, float]
    times_s: dict[str, float] = field(default_factory=dict)

    @property
    def base_like_rate(self) -> float:
        """Share of the base's replies that the taste likes."""
        return rate(self.before)

    @property
    def live_like_rate(self) -> float:
        """Share of the speaking adapter's replies that the taste likes."""
        return rate(self.after)


def rate(answers: Sequence[Answer]) -> float:
    """Return the share of liked answers."""
    return sum(answer.liked for answer in answers) / len(answers)


def difference_interval(
    before: Sequence[Answer], after: Sequence[Answer], seed: int
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the difference of like-rates, prompts resampled as
    pairs.
    """
    rng = random.Random(f"bootstrap-{seed}")
    gains = [int(new.liked) - int(old.liked) for old, new in zip(before, after, strict=True)]
    means = sorted(
        sum(rng.choices(gains, k=len(gains))) / len(gains) for _ in range(BOOTSTRAP_ROUNDS)
    )
    return means[int(0.025 * BOOTSTRAP_ROUNDS)], means[int(0.975 * BOOTSTRAP_ROUNDS) - 1]


class Demo:
    """One run of the demo in an empty world."""

    def __init__(
        self, world: World, taste: Taste, *, seed: int, votes: int, unseen: int, tell: Tell
    ) -> None:
        self._world = world
        self._taste = taste
        self._seed = seed
        self._tell = tell
        self._members = make_members(seed)
        self._train, self._unseen = split_prompts(seed, votes, unseen)
        self._rng = random.Random(f"demo-{seed}")
        self._times_s: dict[str, float] = {}

    async def run(self) -> DemoResult:
        """Chat, vote, measure, train, measure again."""
        people = await self._join()
        with self._timed("chat"):
            replies = await self._chat(people)
        with self._timed("vote"):
            ups = await self._vote(people, replies)
        with self._timed("ask the base"):
            before = await self._ask(BASE, "ask the base")
        with self._timed("train and judge"):
            outcome = await self._learn()
        await self._world.registry.sync()
        speaking = await self._world.registry.speaking(SCOPE)
        with self._timed("ask again"):
            after = before if speaking == BASE else await self._ask(speaking, "ask again")
        return DemoResult(
            seed=self._seed,
            taste=self._taste.name,
            votes_up=ups,
            votes_down=len(replies) - ups,
            prompts=tuple(self._unseen),
            before=tuple(before),
            after=tuple(after),
            outcome=outcome,
            speaking=speaking,
            difference_interval=difference_interval(before, after, self._seed),
            times_s=self._times_s,
        )

    async def _join(self) -> list[Person]:
        def join(db: Database) -> list[Person]:
            return [
                db.people.ensure(
                    "demo", member.name.lower(), display_name=member.name, consent="given"
                )
                for member in self._members
            ]

        return await self._world.database.run(join)

    async def _chat(self, people: list[Person]) -> list[tuple[int, Reply]]:
        """Each prompt is asked by one person, drawn by activity; returns (person, reply) in prompt
        order.
        """
        weights = [member.activity for member in self._members]
        askers = self._rng.choices(range(len(people)), weights, k=len(self._train))
        done = 0

        async def ask(index: int, asker: int, prompt: str) -> tuple[int, Reply]:
            nonlocal done
            async with places:
                conversation = await self._world.chat.open(SCOPE, people[asker])
                sampling = self._sampling(self._seed * 100_000 + index)
                writing = await self._world.chat.say(
                    conversation, people[asker].id, prompt, sampling=sampling
                )
                reply = await writing.finished()
            done += 1
            self._tell("chat", done / len(self._train), f"{done} of {len(self._train)} chats")
            return asker, reply

        places = asyncio.Semaphore(self._world.settings.serving.max_batch)
        work = (
            ask(index, *pair) for index, pair in enumerate(zip(askers, self._train, strict=True))
        )
        return list(await asyncio.gather(*work))

    async def _vote(self, people: list[Person], replies: list[tuple[int, Reply]]) -> int:
        """Each asker votes on their reply; with the taste `none` the same votes fall at random."""
        votes = [
            votes_up(
                self._taste,
                self._members[asker],
                reply.text,
                reply.finish_reason == "stop",
                self._rng,
            )
            for asker, reply in replies
        ]
        if self._taste is NONE:
            self._rng.shuffle(votes)
        for done, ((asker, reply), up) in enumerate(zip(replies, votes, strict=True), start=1):
            cast = self._world.feedback.up if up else self._world.feedback.down
            await cast(reply.id, people[asker].id)
            self._tell("vote", done / len(votes), f"{done} votes, {sum(votes[:done])} up")
        return sum(votes)

    async def _ask(self, adapter: str, step: str) -> list[Answer]:
        """Answer every unseen prompt with one adapter; the same seeds for each adapter."""
        done = 0

        async def ask(index: int, prompt: str) -> Answer:
            nonlocal done
            async with places:
                request = GenerationRequest(
                    (Message("user", prompt),),
                    adapter,
                    self._sampling(self._seed * 100_000 + 50_000 + index),
                )
                result = await self._world.engine.generate(request).result()
            done += 1
            self._tell(
                step, done / len(self._unseen), f"{done} of {len(self._unseen)} by {adapter}"
            )
            complete = result.finish_reason == "stop"
            return Answer(result.text, complete, self._taste.likes(result.text, complete))

        places = asyncio.Semaphore(self._world.settings.serving.max_batch)
        work = (ask(index, prompt) for index, prompt in enumerate(self._unseen))
        return list(await asyncio.gather(*work))

    async def _learn(self) -> Outcome:
        def tell(progress: Progress) -> None:
            self._tell("train and judge", progress.fraction, f"{progress.stage} {progress.message}")

        return await self._world.learning.retrain(SCOPE, actor="demo", on_progress=tell)

    def _sampling(self, seed: int) -> Sampling:
        chat = self._world.settings.chat
        return replace(
            Sampling(temperature=chat.temperature, top_p=chat.top_p, top_k=chat.top_k),
            max_tokens=MAX_TOKENS,
            seed=seed,
        )

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        started = time.monotonic()
        self._tell(step, 0.0, "")
        yield
        self._times_s[step] = round(time.monotonic() - started, 1)
        self._tell(step, 1.0, "")
