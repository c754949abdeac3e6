"""Whether instructions are still followed: prompts whose instructions a rule checks.

The prompts (IFEval's easy ones, `prompts_ifeval_easy.jsonl`) are no part of this repository: they
are looked for, and without them, or without the checkers of `lm-eval`, this part is left out. Which
are asked is chosen once, on the base: those it passes in every one of its trials, since one passed
by luck is lost by luck. How the base fares is measured in runs on which nothing was chosen, with
the same luck as an adapter's. What an echo of the prompt and a fixed short answer pass is kept
beside: of what this base passes, most.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.learning.cells import draw
from core.files import write_atomic
from core.jobs import ADAPTER, JobSpec, read_spec

DATA = "THUMBTUNE_BENCH_DATA"
"""The environment variable that names the directory with the prompts."""
PROMPTS = "prompts_ifeval_easy.jsonl"
CHOSEN, FOLLOWED = "instructions.json", "followed.json"
MOST, MAX_TOKENS = 16, 128
_BESIDE = Path(__file__).parents[3] / "shared" / "data"
_TRIALS = ((0.0, 0), (0.7, 1), (0.7, 2))
"""(temperature, seed) of the runs on the base that choose: greedy, and as a chat is drawn."""
_MEASURED = ((0.7, 77), (0.7, 78))
_SHORT = "I am not sure about that."
_CHECKERS = ("lm_eval", "nltk", "langdetect", "immutabledict", "six")
_LEFT_OUT = "change_case:capital_word_frequency"
"""Its checker wants data that no package carries."""
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+")

Follows = Callable[["Instructed", str], bool]


@dataclass(frozen=True, slots=True)
class Instructed:
    """A prompt, and what a reply to it must hold to, in IFEval's words."""

    key: int
    prompt: str
    instructions: tuple[str, ...]
    kwargs: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Followed:
    """A reply to a chosen prompt and whether it followed every instruction."""

    key: int
    text: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Basis:
    """What the figure stands on: `asked` of `of` prompts, and which shares of those an echo and a
    short answer pass.
    """

    asked: int
    of: int
    echo: float
    short: float


@dataclass(frozen=True, slots=True)
class Choice:
    """What is asked, of so many prompts, and what an echo, a short answer and the base make of
    it.
    """

    prompts: list[Instructed]
    of: int
    echo: float
    short: float
    base: list[Followed]

    @property
    def basis(self) -> Basis:
        """Return what a report says of it."""
        return Basis(len(self.prompts), self.of, self.echo, self.short)


def find_data(named: Path | None = None) -> Path | None:
    """Return the directory with the prompts: the one named, the environment's, or the one beside
    the repository; None where the prompts or the checkers are missing.
    """
    given = named or (Path(os.environ[DATA]) if os.environ.get(DATA) else None)
    directory = given or _BESIDE
    there = (directory / PROMPTS).exists() and all(find_spec(name) for name in _CHECKERS)
    return directory if there else None


def read_prompts(directory: Path) -> list[Instructed]:
    """Read the prompts that can be checked here."""
    lines = (directory / PROMPTS).read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [
        Instructed(
            row["key"], row["prompt"], tuple(row["instruction_id_list"]), tuple(row["kwargs"])
        )
        for row in rows
        if _LEFT_OUT not in row["instruction_id_list"]
    ]


def follows(asked: Instructed, reply: str) -> bool:
    """Say whether a reply follows every instruction, by IFEval's strict rule."""
    utils = _checkers()
    example = utils.InputExample(
        asked.key, list(asked.instructions), asked.prompt, list(asked.kwargs)
    )
    return bool(utils.test_instruction_following_strict(example, reply).follow_all_instructions)


def choose(home: Path, spec: JobSpec, data: Path, check: Follows = follows) -> None:
    """Choose the prompts on the base; kept in `home`, and never chosen anew."""
    if (home / CHOSEN).exists():
        return
    stable = every = read_prompts(data)
    for temperature, seed in _TRIALS:
        said = _ask(spec, None, stable, temperature, seed)
        stable = [one for one, text in zip(stable, said, strict=True) if check(one, text)]
    kept = stable[:MOST]
    chosen = Choice(
        prompts=kept,
        of=len(every),
        echo=_share(check(one, one.prompt) for one in kept),
        short=_share(check(one, _SHORT) for one in kept),
        base=_measured(spec, None, kept, check),
    )
    write_atomic(home / CHOSEN, json.dumps(asdict(chosen)))


def read_choice(home: Path) -> Choice | None:
    """Return what was chosen, or None."""
    if not (home / CHOSEN).exists():
        return None
    row: dict[str, Any] = json.loads((home / CHOSEN).read_text(encoding="utf-8"))
    prompts = [
        Instructed(one["key"], one["prompt"], tuple(one["instructions"]), tuple(one["kwargs"]))
        for one in row["prompts"]
    ]
    return Choice(**{**row, "prompts": prompts, "base": [Followed(**one) for one in row["base"]]})


def follow(home: Path, cell: Path, check: Follows = follows) -> None:
    """Ask a finished cell's adapter the chosen prompts; idempotent."""
    choice = read_choice(home)
    if choice is None:
        raise FileNotFoundError(f"{home / CHOSEN}: choose the prompts first")
    if not (cell / FOLLOWED).exists():
        said = _measured(read_spec(cell), cell / ADAPTER, choice.prompts, check)
        write_atomic(cell / FOLLOWED, json.dumps([asdict(one) for one in said]))


def read_followed(home: Path, cell: Path) -> tuple[list[Followed], list[Followed]]:
    """Return what the base and the cell's adapter made of the chosen prompts; empty where it was
    not asked.
    """
    choice = read_choice(home)
    if choice is None or not (cell / FOLLOWED).exists():
        return [], []
    own = json.loads((cell / FOLLOWED).read_text(encoding="utf-8"))
    return choice.base, [Followed(**row) for row in own]


def _measured(
    spec: JobSpec, adapter: Path | None, asked: Sequence[Instructed], check: Follows
) -> list[Followed]:
    return [
        Followed(one.key, text, check(one, text))
        for temperature, seed in _MEASURED
        for one, text in zip(asked, _ask(spec, adapter, asked, temperature, seed), strict=True)
    ]


def _ask(
    spec: JobSpec,
    adapter: Path | None,
    asked: Sequence[Instructed],
    temperature: float,
    seed: int,
) -> list[str]:
    prompts = [one.prompt for one in asked]
    drawn = draw(spec, adapter, prompts, seed=seed, temperature=temperature, max_tokens=MAX_TOKENS)
    return [one.text for one in drawn]


def _share(hits: Iterable[bool]) -> float:
    listed = list(hits)
    return sum(listed) / len(listed) if listed else 0.0


@cache
def _checkers() -> Any:
    """Import IFEval's checkers alone: the harness around them wants packages that they do not, and
    a download of sentence rules for which our own stand in.
    """
    harness = Path(str(import_module("lm_eval").__file__))
    tasks = ModuleType("lm_eval.tasks")
    tasks.__path__ = [str(harness.parent / "tasks")]
    sys.modules.setdefault("lm_eval.tasks", tasks)
    rank = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = "1"  # only rank 0 downloads, and it does so at import
    try:
        utils = import_module("lm_eval.tasks.ifeval.utils")
    finally:
        os.environ.pop("LOCAL_RANK") if rank is None else os.environ.update(LOCAL_RANK=rank)
    # else its verdict on a short text is drawn anew
    import_module("langdetect").DetectorFactory.seed = 0
    texts: Any = import_module("lm_eval.tasks.ifeval.instructions_util")
    texts._get_sentence_tokenizer = _Sentences
    return utils


class _Sentences:
    """Stands in for NLTK's sentence splitter."""

    def tokenize(self, text: str) -> list[str]:
        """Split after a full stop, an exclamation or a question mark and white space."""
        return [part for part in _SENTENCE_END.split(text.strip()) if part]
