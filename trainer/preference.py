"""How a candidate orders held-out replies, against how people voted.

The implicit reward of a reply is log p(reply | prompt) under a system minus under the base, summed
over the reply's tokens, in nats: what KTO, APO and DPO train (up to their beta). The sum, not the
mean a token: measured, it tells honest from shuffled votes far better (docs/gate.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from core.jobs import DemonstrationExample, Example, PairExample, VoteExample
from core.report import PreferenceFigures
from trainer import figures
from trainer.figures import Judged
from trainer.scoring import Scored, System, Systems, Texts, reply_logprobs

Progress = Callable[[float, str], None]


def measure_preference(
    systems: Systems, texts: Texts, held_out: Sequence[Example], seed: int, on_progress: Progress
) -> PreferenceFigures | None:
    """Say how candidate (and live) order held-out replies; None if no row can be ordered."""
    rows, judged_by = _scored_rows(texts, held_out)
    if not rows:
        return None
    logprobs: dict[System, list[float]] = {}
    for place, system in enumerate(systems.names):
        on_progress(
            place / len(systems.names), f"scoring {len(rows)} held-out replies with the {system}"
        )
        logprobs[system] = reply_logprobs(systems, system, rows)
    judged = {
        system: judged_by(
            [implicit_reward(a, b) for a, b in zip(values, logprobs["base"], strict=True)]
        )
        for system, values in logprobs.items()
    }
    own, live = judged["candidate"], judged.get("live")
    lengths = judged_by([float(len(row.reply_ids)) for row in rows])
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


def implicit_reward(logprob: float, base_logprob: float) -> float:
    """Return log p(reply) under a system minus under the base: a sum over its tokens, nats."""
    return logprob - base_logprob


def _scored_rows(
    texts: Texts, held_out: Sequence[Example]
) -> tuple[list[Scored], Callable[[Sequence[float]], Judged]]:
    """Lay votes and pairs out as rows to score, and say how rewards of the rows become `Judged`."""
    rows: list[Scored] = []
    votes: list[tuple[VoteExample, int]] = []
    pairs: list[tuple[PairExample, int]] = []
    for example in held_out:
        if isinstance(example, DemonstrationExample):
            continue  # a demonstration has nothing to be ordered against
        prompt = texts.prompt([message.model_dump() for message in example.prompt])
        if isinstance(example, VoteExample):
            votes.append((example, len(rows)))
            rows.append(Scored(prompt, texts.reply(example.completion, complete=example.complete)))
        else:
            pairs.append((example, len(rows)))
            rows += [
                Scored(prompt, texts.reply(example.chosen, complete=example.chosen_complete)),
                Scored(prompt, texts.reply(example.rejected, complete=example.rejected_complete)),
            ]

    def judged(rewards: Sequence[float]) -> Judged:
        return Judged(
            rewards=[rewards[place] for _, place in votes],
            labels=[example.label for example, _ in votes],
            voters=[example.person for example, _ in votes],
            differences=[rewards[place] - rewards[place + 1] for _, place in pairs],
            choosers=[example.person for example, _ in pairs],
        )

    return rows, judged
