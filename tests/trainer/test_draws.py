"""What the base is asked before a run trains."""

from __future__ import annotations

from pathlib import Path

from tests.trainer.rows import DPO, job_spec, vote
from trainer.draws import prompts_to_ask


def test_prompts_of_liked_replies_are_asked_first(tmp_path: Path) -> None:
    """Each once, in the order said; the room that is left goes to others, drawn by the seed."""
    said = [vote(n % 10 == 7, person=f"p{n}", prompt=f"Q{n % 30}", at=n) for n in range(60)]
    asked = {
        seed: [
            prompt[-1].content
            for prompt in prompts_to_ask(job_spec(tmp_path, DPO, ranked_prompts=8, seed=seed), said)
        ]
        for seed in (0, 1)
    }
    for prompts in asked.values():
        assert len(prompts) == len({*prompts}) == 8
        assert {"Q7", "Q17", "Q27"} <= {*prompts}
        assert prompts == sorted(prompts, key=lambda text: int(text[1:]))
    assert asked[0] != asked[1]
