"""How held-out replies are ordered, against how people voted.

A recipe that trains on the votes themselves is asked by its implicit reward: log p(reply | prompt)
under a system minus under the base, summed over the reply's tokens, in nats: what KTO, APO and DPO
train (up to their beta). The sum, not the mean a token: measured, it tells honest from shuffled
votes far better (docs/gate.md). A recipe that ranks replies by a reward model is asked by that
model, which never saw the held-out votes: its adapter does not tell replies to different prompts
apart, and is not meant to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from core.jobs import ChatMessage, Example, PairExample, VoteExample
from core.report import PreferenceFigures
from trainer import figures
from trainer.figures import Judged
from trainer.ranked import Option
from trainer.scoring import Scored, System, Systems, Texts, reply_logprobs

Progress = Callable[[float, str], None]
Said = tuple[Sequence[ChatMessage], Option]
"""A prompt and a reply to it."""
Rate = Callable[[Sequence[Said]], Mapping[System, Sequence[float]]]
"""Gives the reward of each reply, by the candidate and, where there is one, by the live adapter."""


def measure_preference(
    held_out: Sequence[Example], seed: int, rate: Rate
) -> PreferenceFigures | None:
    """Say how held-out replies are ordered; None if no row can be ordered."""
    laid = _laid(held_out)
    if not laid.said:
        return None
    judged = {system: laid.judged(rewards) for system, rewards in rate(laid.said).items()}
    own, live = judged["candidate"], judged.get("live")
    lengths = laid.judged([float(option.words) for _, option in laid.said])
    up = sum(own.labels)
    return PreferenceFigures(
        margin=figures.person_bootstrap(figures.margin, own, seed),
        accuracy=figures.person_bootstrap(figures.accuracy, own, seed),
        p_value=figures.permutation_p(own, seed),
        over_live=figures.difference_bootstrap(figures.accuracy, own, live, seed) if live else None,
        length_baseline=figures.known(figures.accuracy(lengths)),
        liked=up,
        disliked=len(own.labels) - up,
        pairs=len(own.differences),
        people=len(own.people()),
    )


def implicit_rewards(systems: Systems, texts: Texts, on_progress: Progress) -> Rate:
    """Return what rates replies by how much likelier they have become than under the base, nats."""

    def rate(said: Sequence[Said]) -> dict[System, list[float]]:
        rows = [
            Scored(
                texts.prompt([message.model_dump() for message in prompt]),
                texts.reply(option.text, complete=option.complete),
            )
            for prompt, option in said
        ]
        found: dict[System, list[float]] = {}
        for place, system in enumerate(systems.names):
            on_progress(
                place / len(systems.names),
                f"scoring {len(rows)} held-out replies with the {system}",
            )
            found[system] = reply_logprobs(systems, system, rows)
        base = found.pop("base")
        return {
            system: [own - before for own, before in zip(values, base, strict=True)]
            for system, values in found.items()
        }

    return rate


@dataclass(frozen=True, slots=True)
class _Laid:
    """Held-out replies in a row: those voted on, then both of each pair."""

    votes: list[VoteExample]
    pairs: list[PairExample]

    @property
    def said(self) -> list[Said]:
        return [
            *((vote.prompt, Option(vote.completion, vote.complete)) for vote in self.votes),
            *(
                (pair.prompt, option)
                for pair in self.pairs
                for option in (
                    Option(pair.chosen, pair.chosen_complete),
                    Option(pair.rejected, pair.rejected_complete),
                )
            ),
        ]

    def judged(self, rewards: Sequence[float]) -> Judged:
        """Return rewards of the row as what people said of it."""
        chosen, rejected = (rewards[len(self.votes) + side :: 2] for side in (0, 1))
        return Judged(
            rewards=list(rewards[: len(self.votes)]),
            labels=[vote.label for vote in self.votes],
            voters=[vote.person for vote in self.votes],
            differences=[a - b for a, b in zip(chosen, rejected, strict=True)],
            choosers=[pair.person for pair in self.pairs],
        )


def _laid(held_out: Sequence[Example]) -> _Laid:
    """Leave out demonstrations: they have nothing to be ordered against."""
    return _Laid(
        [one for one in held_out if isinstance(one, VoteExample)],
        [one for one in held_out if isinstance(one, PairExample)],
    )
