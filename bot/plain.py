"""What a run does and leaves out, in the plain words that every face uses. Knows no face."""

from __future__ import annotations

STAGES = {
    "queued": "Getting ready",
    "snapshot": "Choosing what to learn from",
    "training": "Learning",
    "judging": "Checking what was learnt",
    "publishing": "Putting the result in place",
    "done": "Done",
    "start": "Loading the model",
    "sft": "Learning from corrections",
    "kto": "Learning from votes",
    "dpo": "Learning from choices between replies",
    "rank": "Finding out what people like",
    "evaluate": "Comparing with how people voted",
    "end": "Ending",
}
"""What a run, or its job, does now."""

LEFT_OUT = {
    "no consent": "somebody in the conversation has not opted in",
    "not kept": "the words were not kept",
    "reviewed out": "dropped in a review",
    "dictated by the prompt": "the question dictated the answer",
    "a swarm of new people": "many new people said the same at once",
    "changed mind": "replaced by a later vote",
    "outvoted": "outvoted by others",
    "tie": "as many for as against",
    "too long": "too long to learn from",
    "empty text": "no text",
    "no prompt": "no question",
    "the two replies are the same": "both replies are the same",
    "the other reply is gone": "the other reply is gone",
    "asked again, but voted": "asked again, but the vote says it already",
}
"""Says in plain words why a signal was left out."""


def stage(name: str) -> str:
    """Return what a run does now; a job's own stages are called like `1-kto-apo_zero_unpaired`."""
    method = name.partition("-")[2].partition("-")[0]
    return STAGES.get(name) or STAGES.get(method, STAGES["training"])
