"""Measure a trained candidate against the base and the live adapter: the figures of a job's report.

Everything is measured on what the candidate was not trained on: held-out feedback, the keep-set, plain
reference text, and replies drawn to held-out prompts. Says nothing about good enough (see gate). Formulas,
units and measured distributions: docs/gate.md.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from statistics import fmean, median
from typing import Any

from core.jobs import DemonstrationExample, Example, JobSpec, PairExample, VoteExample
from core.report import PreferenceFigures, Sample, SystemFigures
from trainer import figures
from trainer.figures import Judged
from trainer.keepset import MAX_TOKENS, keep_parts, keep_score, load_keepset
from trainer.sampling import Drawing, Drawn, draw_replies
from trainer.scoring import Scored, System, Systems, kl_to_base, perplexity, reply_logprobs

LIVE = "live"
SAMPLES_SHOWN = 10
TEMPERATURE, TOP_P = 0.7, 0.95

Progress = Callable[[float, str], None]


def evaluate_job(
    spec: JobSpec,
    model: Any,
    tokenizer: Any,
    held_out: Sequence[Example],
    *,
    on_progress: Progress = lambda fraction, message: None,
) -> dict[str, Any]:
    """Return the Report's parts `reference`, `preference`, `systems` and `samples`.

    `model` is a PeftModel with the candidate as its active adapter; the base is the same model with the
    adapter off. With `spec.live_path` the live adapter is loaded beside it for the time of the call. The
    weights are left as they were; the model is left in evaluation mode. `on_progress` gets a fraction of
    this call in [0, 1] and what is being measured.
    """
    model.eval()
    if spec.live_path:
        model.load_adapter(spec.live_path, adapter_name=LIVE, is_trainable=False)
    try:
        systems = Systems(model, LIVE if spec.live_path else None)
        return _measure(spec, systems, Texts(tokenizer, spec.max_length), held_out, on_progress)
    finally:
        if spec.live_path:
            model.delete_adapter(LIVE)


def _measure(
    spec: JobSpec,
    systems: Systems,
    texts: Texts,
    held_out: Sequence[Example],
    on_progress: Progress,
) -> dict[str, Any]:
    """Measure every part; preference takes about a quarter of the time, drawing replies most of the rest."""
    preference = measure_preference(
        systems, texts, held_out, spec.seed, _part(on_progress, 0.0, 0.25)
    )
    prompts = sample_prompts(held_out, spec.sample_prompts, spec.seed)
    base_rows: list[Scored] = []
    parts: dict[System, SystemFigures] = {}
    replies: dict[System, list[str]] = {}
    for place, system in enumerate(systems.names):
        start, width = 0.25 + 0.75 * place / len(systems.names), 0.75 / len(systems.names)
        measured = _measure_system(
            systems,
            system,
            texts,
            prompts,
            base_rows,
            spec,
            _part(on_progress, start, start + width),
        )
        parts[system], replies[system] = measured.figures, measured.replies
        base_rows = base_rows or measured.rows
    on_progress(1.0, "measured")
    return {
        "reference": "live" if LIVE in systems.names else "base",
        "preference": preference,
        "systems": parts,
        "samples": _shown(prompts, replies),
    }


class Texts:
    """Turns chats and replies into token ids as the model's own template writes them."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.end_id = int(tokenizer.eos_token_id)

    def prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Return a chat's ids up to where the reply begins; the oldest tokens go first if it is too long."""
        ids = self.tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, return_dict=True
        )["input_ids"]
        return list(ids[-self.max_length :])

    def plain(self, text: str) -> list[int]:
        """Return a text's ids, no special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def reply(self, text: str, finished: bool) -> list[int]:
        """Return a reply's ids; the end token follows only if the reply was finished, not cut by a limit."""
        ids = self.plain(text)[: self.max_length]
        return [*ids, self.end_id] if finished or not ids else ids

    def read(self, ids: Sequence[int]) -> str:
        """Return the text of a reply's ids."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


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
    """Return log p(reply) under a system minus under the base, nats, summed over the reply's tokens."""
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
                rows.append(Scored(prompt, texts.reply(example.completion, example.complete)))
        else:
            pairs.append((example, len(rows)))
            rows += [
                Scored(prompt, texts.reply(example.chosen, example.chosen_complete)),
                Scored(prompt, texts.reply(example.rejected, example.rejected_complete)),
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


@dataclass(frozen=True, slots=True)
class _Measured:
    figures: SystemFigures
    replies: list[str]
    rows: list[Scored]


def _measure_system(
    systems: Systems,
    system: System,
    texts: Texts,
    prompts: Sequence[list[dict[str, str]]],
    base_rows: list[Scored],
    spec: JobSpec,
    on_progress: Progress,
) -> _Measured:
    """Measure one system; `base_rows` are the base's replies (empty while the base itself is measured)."""
    ends = frozenset({texts.end_id})
    items = load_keepset()
    greedy = draw_replies(
        systems,
        system,
        [texts.prompt([{"role": "user", "content": item.prompt}]) for item in items],
        ends,
        Drawing(max_tokens=MAX_TOKENS),
        lambda done: on_progress(0.4 * done, f"keep-set with the {system}"),
    )
    kept = [texts.read(reply.token_ids) for reply in greedy]
    ppl = perplexity(systems, system, [texts.plain(text) for text in reference_texts()])
    prompt_ids = [texts.prompt(prompt) for prompt in prompts]
    drawing = Drawing(
        max_tokens=spec.sample_max_tokens, temperature=TEMPERATURE, top_p=TOP_P, seed=spec.seed
    )
    drawn = draw_replies(
        systems, system, prompt_ids, ends, drawing,
        lambda done: on_progress(0.45 + 0.45 * done, f"sample replies of the {system}"),
    )  # fmt: skip
    rows = [
        Scored(prompt, [*reply.token_ids, *([texts.end_id] if reply.finished else [])])
        for prompt, reply in zip(prompt_ids, drawn, strict=True)
    ]
    kl = kl_to_base(
        systems,
        system,
        base_rows,
        lambda done: on_progress(0.9 + 0.1 * done, f"distance of the {system}"),
    )
    replies = [texts.read(reply.token_ids) for reply in drawn]
    shape = _shape(drawn, replies)
    keep = {
        "keep_score": keep_score(items, kept),
        "keep_n": len(items),
        "keep_parts": keep_parts(items, kept),
    }
    return _Measured(SystemFigures(**keep, perplexity=ppl, kl_to_base=kl, **shape), replies, rows)


def _shape(drawn: Sequence[Drawn], replies: Sequence[str]) -> dict[str, Any]:
    """Return the figures that need only the drawn replies; zeros if there are none."""
    ids = [reply.token_ids for reply in drawn]
    return {
        "median_words": float(median(len(reply.split()) for reply in replies)) if replies else 0.0,
        "repetition": fmean(map(figures.repeated_share, ids)) if ids else 0.0,
        "distinct_2": figures.distinct_share(ids),
        "empty": fmean(not reply for reply in replies) if replies else 0.0,
        "unfinished": fmean(not reply.finished for reply in drawn) if drawn else 0.0,
        "samples": len(drawn),
    }


def sample_prompts(
    held_out: Sequence[Example], limit: int, seed: int
) -> list[list[dict[str, str]]]:
    """Return up to `limit` different held-out prompts, drawn by `seed`, in the order they stand."""
    different: dict[str, list[dict[str, str]]] = {}
    for example in held_out:
        messages = [message.model_dump() for message in example.prompt]
        different.setdefault(json.dumps(messages, sort_keys=True), messages)
    prompts = list(different.values())
    kept = sorted(random.Random(seed).sample(range(len(prompts)), min(limit, len(prompts))))
    return [prompts[place] for place in kept]


def reference_texts() -> list[str]:
    """Return the paragraphs of the plain text perplexity is measured on."""
    text = files("trainer").joinpath("reference_text.txt").read_text(encoding="utf-8")
    return [paragraph.strip() for paragraph in text.split("\n\n") if paragraph.strip()]


def _shown(
    prompts: Sequence[list[dict[str, str]]], replies: dict[System, list[str]]
) -> list[Sample]:
    return [
        Sample(
            prompt=prompt[-1]["content"],
            replies={str(who): said[place] for who, said in replies.items()},
        )
        for place, prompt in enumerate(prompts[:SAMPLES_SHOWN])
    ]


def _part(on_progress: Progress, start: float, end: float) -> Progress:
    """Return a progress callback whose 0 to 1 is `start` to `end` of the whole."""
    return lambda fraction, message: on_progress(start + (end - start) * fraction, message)
