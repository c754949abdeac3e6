"""Feedback rows and examples for the trainer's tests, made in one line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.generation import Message
from core.jobs import ChatMessage, DemonstrationExample, JobSpec, PairExample, Stage, VoteExample
from core.records import Feedback, FeedbackRow, SignalKind


def feedback_row(
    kind: SignalKind = "up",
    person: str = "ann",
    *,
    reply: str = "r1",
    text: str = "Hello!",
    prompt: str = "Hi",
    at: int | str = 0,
    fix: str | None = None,
    **other: Any,
) -> FeedbackRow:
    """Make a consented row; `other` overrides fields of the feedback or of the row."""
    of_feedback = {key: other.pop(key) for key in list(other) if key in Feedback.__slots__}
    feedback = {
        "id": f"{kind}-{reply}-{person}", "reply_id": reply, "person_id": person, "kind": kind,
        "text": fix, "other_reply_id": None, "reasons": (), "dropped": False,
        "at": moment(at) if isinstance(at, int) else at,
        **of_feedback,
    }  # fmt: skip
    row = {
        "scope": "console", "platform": "console", "person_name": person,
        "prompt": (Message("user", prompt),), "reply_text": text, "reply_adapter": "base",
        "finish_reason": "stop", "other_text": None, "authors": (person,), "all_consented": True,
        **other,
    }  # fmt: skip
    return FeedbackRow(feedback=Feedback(**feedback), **row)


def moment(second: int) -> str:
    """Return a sortable time so many seconds into a day."""
    return f"2026-01-01T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}.000000Z"


def _common(person: str, prompt: str, at: int) -> dict[str, Any]:
    asked = [ChatMessage(role="user", content=prompt)]
    return {"feedback_ids": [f"f{at}"], "person": person, "at": moment(at), "prompt": asked}


def vote(
    label: bool, *, person: str = "ann", prompt: str = "Hi", at: int = 0, **more: Any
) -> VoteExample:
    """Make a vote example."""
    completion = more.pop("completion", "yes yes" if label else "no no")
    return VoteExample(**_common(person, prompt, at), completion=completion, label=label, **more)


def pair(*, person: str = "ann", prompt: str = "Hi", at: int = 0, **more: Any) -> PairExample:
    """Make a pair example."""
    texts = {"chosen": "yes yes", "rejected": "no no", **more}
    return PairExample(**_common(person, prompt, at), **texts)


def correction(*, person: str = "ann", prompt: str = "Hi", at: int = 0) -> DemonstrationExample:
    """Make a demonstration example."""
    return DemonstrationExample(**_common(person, prompt, at), completion="yes yes")


def job_spec(base: Path, *stages: Stage, **more: Any) -> JobSpec:
    """Make a small float32 job on the CPU."""
    fields = {
        "run_id": "run_test", "adapter": "console@v1", "base_path": str(base), "base_model": "tiny",
        "base_sha256": "0" * 64, "recipe": "test", "why": "a test", "stages": list(stages),
        "lora_rank": 4, "lora_alpha": 8, "max_length": 256, "device": "cpu",
        "dtype": "float32", **more,
    }  # fmt: skip
    return JobSpec(**fields)


SFT = Stage(method="sft", loss="nll", learning_rate=3e-3, epochs=2, batch_size=4)
KTO = Stage(method="kto", loss="kto", learning_rate=3e-3, epochs=2, batch_size=4)
APO = Stage(method="kto", loss="apo_zero_unpaired", learning_rate=3e-3, epochs=2, batch_size=4)
DPO = Stage(method="dpo", loss="sigmoid", learning_rate=3e-3, epochs=2, batch_size=4)
