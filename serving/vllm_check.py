"""What a vLLM server can be held to before it answers for us: its base, its reading, its LoRA.

It names its base and says no hash, so what can be compared is: the name or place of the base, the
length it takes, and the tokens a fixed chat becomes there. Which bytes its weights are, nobody can
ask. Pure: takes answers, raises ModelError or returns what was learnt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import httpx

from core.basemodel import BaseModel
from core.errors import AdapterRefused, EngineStopped, InvalidInput, ModelError, ThumbtuneError
from core.generation import Message
from core.sections import ServingSettings
from serving.prompt import Tokenizer, render
from serving.vllm_places import IMPOSSIBLE_RANK
from serving.vllm_reply import vllm_words

_TURNS = (
    Message("user", "Wie heißt die Hauptstadt der Schweiz? 🗺"),
    Message("assistant", "  Bern,\tsince 1848.\n"),
    Message("user", "And 12345 + 678.9 = 日本 naïve?"),
)
_SYSTEM = Message("system", "Answer in one word.")
_MAX_RANK = re.compile(r"greater than max_lora_rank (\d+)")
OFF = (
    "adapters cannot be loaded there; start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and "
    "--enable-lora"
)


@dataclass(frozen=True, slots=True)
class Cards:
    """What /v1/models says: the base's first name, place and length; adapters' place and base."""

    base: str
    root: str
    max_tokens: int
    adapters: Mapping[str, tuple[str, str]]

    def has(self, called: str, there: str) -> bool:
        """Say whether an adapter is listed under its name, with its place and the base."""
        return self.adapters.get(called) == (there, self.base)


@dataclass(frozen=True, slots=True)
class Probed:
    """What a few greedy tokens tell: which were read, and how likely each that was drawn is."""

    read: tuple[int, ...]
    scores: tuple[float, ...]


def read_cards(url: str, answer: httpx.Response) -> Cards:
    """Read the answer of /v1/models. Raises ModelError where it is not vLLM's."""
    try:
        cards = answer.json()["data"]
        base = next(card for card in cards if card["parent"] is None)
        return Cards(
            base=str(base["id"]),
            root=str(base["root"]),
            max_tokens=int(base["max_model_len"]),
            adapters={
                str(card["id"]): (str(card["root"]), str(card["parent"]))
                for card in cards
                if card["parent"] is not None
            },
        )
    except (ValueError, KeyError, TypeError, StopIteration):
        raise ModelError(
            f"{url}/models is not what vLLM answers; serving.remote_url should end with /v1, and "
            "`vllm serve` should listen there"
        ) from None


def check_base(url: str, cards: Cards, base: BaseModel, settings: ServingSettings) -> None:
    """Compare name or place, and length. Raises ModelError."""
    ours = {base.name, str(base.path), str(base.path.resolve())}
    moved = cards.root.startswith("/") and _last(cards.root) in {_last(name) for name in ours}
    same = cards.root in ours or moved  # a directory has another place on another machine
    if settings.vllm_base:
        same = cards.root == settings.vllm_base
    if not same:
        wanted = settings.vllm_base or f"{base.name} or {base.path.resolve()}"
        raise ModelError(
            f"{url}: its base is {cards.root!r}, expected {wanted}; an adapter fits one base only. "
            "Start vLLM with the base of [model], or, if it is that one under another name, say so "
            "in serving.vllm_base"
        )
    if cards.max_tokens < settings.max_context_tokens:
        raise ModelError(
            f"{url}: takes {cards.max_tokens} tokens, serving.max_context_tokens is "
            f"{settings.max_context_tokens}; start vLLM with --max-model-len "
            f"{settings.max_context_tokens}, or lower the setting"
        )


def fixed_chat(tokenizer: Tokenizer) -> tuple[Message, ...]:
    """Return the chat that both sides read; without a system message where a template has none."""
    try:
        render(tokenizer, (_SYSTEM, *_TURNS))
    except InvalidInput:
        return _TURNS
    return (_SYSTEM, *_TURNS)


def check_reading(
    url: str, ours: Sequence[int], theirs: Sequence[int], tokenizer: Tokenizer
) -> None:
    """Compare what a chat became on both sides. Raises ModelError with where they part."""
    if tuple(ours) == tuple(theirs):
        return
    same = 0
    for one, other in zip(ours, theirs, strict=False):
        if one != other:
            break
        same += 1
    here, there = (str(tokenizer.decode(list(ids[same : same + 12]))) for ids in (ours, theirs))
    raise ModelError(
        f"{url}: reads a chat otherwise than the base of [model]: from token {same} on ours says "
        f"{here!r}, its tokens would be {there!r} here; the tokenizer or the chat template is "
        "another one (start vLLM with the same base, and without --chat-template)"
    )


def read_probe(url: str, model: str, answer: httpx.Response) -> Probed:
    """Read the answer to a probe.

    Raises EngineStopped where another model answers, or in another shape.
    """
    try:
        body: Any = answer.json()
        wrote, choice = body["model"], body["choices"][0]
        read = tuple(int(token) for token in body["prompt_token_ids"])
        drawn = choice["token_ids"]
        scores = tuple(float(token["logprob"]) for token in choice["logprobs"]["content"])
    except (ValueError, KeyError, TypeError, IndexError):
        raise EngineStopped(
            f"{url} does not say which tokens it read and drew (`return_token_ids`, `logprobs`): "
            f"{answer.text[:200]}; a vLLM that does is needed"
        ) from None
    if wrote != model:
        raise EngineStopped(
            f"{url}: {wrote!r} answers where {model!r} was asked; VLLM_SKIP_MODEL_NAME_VALIDATION "
            "must not be set for vLLM"
        )
    if not drawn:
        raise EngineStopped(f"{url}: {model!r} answers with nothing")
    return Probed(read, scores)


def check_heard(url: str, name: str, base: Probed, adapter: Probed) -> None:
    """See that an adapter changes what is written. Raises AdapterRefused.

    A server may load one whose tensors have names it does not know, and write as without it. The
    same scores to the last digit are that; other ones say that something is applied.
    """
    if base.scores == adapter.scores:
        raise AdapterRefused(
            f"adapter {name}: {url} has loaded it and writes exactly as without it; the names of "
            "its tensors may not be those of vLLM's model, or it changes nothing"
        )


def check_listed(url: str, cards: Cards, called: str, there: str) -> None:
    """See that an adapter is listed under its name with its place and base. Raises EngineStopped.

    A name of ours with another place is somebody else's: it is never taken for ours.
    """
    root, parent = cards.adapters.get(called, ("", ""))
    if not cards.has(called, there):
        found = f"it lies in {root!r} on {parent!r}" if root else "it is not there"
        raise EngineStopped(
            f"{url}: {called} should be loaded from {there!r} on {cards.base!r}, but {found}; take "
            "it out there (POST /v1/unload_lora_adapter) and try again"
        )


def load_fault(url: str, name: str, there: str, answer: httpx.Response) -> ThumbtuneError:
    """Return what it means that an adapter was not loaded: its own fault, or the server's."""
    words, status = vllm_words(answer), answer.status_code
    if status == httpx.codes.NOT_FOUND and "No adapter found" not in words:
        return EngineStopped(f"{url}: {OFF}")
    if status == httpx.codes.NOT_FOUND:
        return EngineStopped(
            f"{url} sees no {there}; serving.vllm_adapters must be a directory that vLLM's machine "
            "mounts too, and serving.vllm_adapters_there what it is called over there"
        )
    if "LoRA is not enabled" in words:
        return EngineStopped(f"{url}: {OFF}")
    if "EngineCore encountered an issue" in words or "The server had an error" in words:
        return EngineStopped(f"{url}: vLLM's engine has died ({words}); restart it")
    rank = "; start vLLM with a larger --max-lora-rank" if _MAX_RANK.search(words) else ""
    return AdapterRefused(f"adapter {name}: {url} says: {words}{rank}")


def largest_rank(url: str, there: str, rank: int, answer: httpx.Response) -> int | None:
    """Read the largest rank the server takes from its refusal of the marker; None if unsaid.

    Raises ModelError where it could load nothing of ours, or nothing of `rank`.
    """
    fault = load_fault(url, "the probe", there, answer)
    if isinstance(fault, EngineStopped):
        raise ModelError(str(fault))
    found = _MAX_RANK.search(str(fault))
    most = int(found[1]) if found and str(IMPOSSIBLE_RANK) in str(fault) else None
    if most is not None and most < rank:
        raise ModelError(
            f"{url}: takes adapters of rank {most} at most, training.lora_rank is {rank}; start "
            f"vLLM with --max-lora-rank {rank}, or lower the setting"
        )
    return most


def _last(place: str) -> str:
    return PurePosixPath(place).name
