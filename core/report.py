"""What a job found out about its candidate: the figures the gate judges. Written as `report.json`.

Every figure is on data the candidate was not trained on. `System` is base, live or candidate.
"""

from __future__ import annotations

from math import exp
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import InvalidInput
from core.jobs import REPORT

_LARGEST = 20.0
"""Log-odds beyond which nothing is told apart any more."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(_Part):
    """A figure with its 95 % bootstrap interval (persons resampled) and how many rows it stands
    on."""

    value: float
    low: float
    high: float
    n: int


class PreferenceFigures(_Part):
    """How the candidate orders held-out replies by how people voted.

    The implicit reward of a reply is its log-probability under the candidate minus under the base,
    nats; where the run fitted a reward model of the votes, the reward is that model's, log-odds.
    `margin`: mean reward of liked replies minus that of disliked ones, or chosen minus
    rejected. `accuracy`: share of (liked, disliked) combinations and of pairs in the right order
    (an AUC; 0.5 is chance). `p_value`: how often thumbs dealt out at random over the same replies
    give this accuracy or more. `over_live`: accuracy of the candidate minus that of the live
    adapter; None without a live adapter, and where a reward model was asked. `length_baseline`: the
    accuracy of the rule "the reply of more words wins".
    """

    margin: Interval
    accuracy: Interval
    p_value: float = 1.0
    over_live: Interval | None = None
    length_baseline: float
    liked: int
    disliked: int
    pairs: int
    people: int


class SystemFigures(_Part):
    """One system's own behaviour on fixed prompts and texts.

    `keep_score`: share of the keep-set passed, in [0, 1]; `keep_parts` the same by kind of item.
    `perplexity`: exp of mean nats a token on reference text. `kl_to_base`: mean nats a token on the
    base's own replies. `median_words`, `repetition` (mean share of a reply's repeated 4-grams),
    `distinct_2` (distinct 2-grams over all 2-grams), `empty` and `unfinished` (share cut by the
    length limit) are of sampled replies to held-out prompts.
    """

    keep_score: float
    keep_n: int
    keep_parts: dict[str, float] = {}
    perplexity: float
    kl_to_base: float
    median_words: float
    repetition: float
    distinct_2: float = 0.0
    empty: float
    unfinished: float
    samples: int


class RewardFigures(_Part):
    """What a reward model found in the votes, and the pairs it chose to learn from.

    `accuracy` is as in PreferenceFigures, of rewards out of fold: each row is scored by a fit
    that never saw its prompt. `p_value` is trainer.luck's, on `tested` votes and pairs, held-out
    ones too (0 in reports from before they were). `style`: what each plain count of a reply adds
    to the log-odds of a 👍 when it grows by one standard deviation. `length_z`: by how many
    standard errors liked replies differ in length from disliked ones; `about_length` says that
    votes are about it. `drawn` replies to `prompts` prompts were ranked, `scouted` of them a
    scout's (trainer.scout). Of the base's, by the reward, `liked` is the share that people would
    like, and `likely` that of the better replies of its pairs. `gain`: by how much the
    candidate's replies to held-out prompts have more reward than the base's, in log-odds of a 👍,
    prompt by prompt; `over_live` the same against the live adapter's. `contrary` people voted
    against all others more surely than by chance; what they said is learnt from the other way
    round. `wrong` is how often each person's votes are, by what all others say (0 to ½;
    trainer.reliability); who is wrong more often teaches less.
    """

    accuracy: Interval
    p_value: float
    tested: int = 0
    style: dict[str, float]
    length_z: float
    about_length: bool = False
    prompts: int
    drawn: int
    pairs: int
    liked: float = 1.0
    likely: float = 1.0
    scouted: int = 0
    gain: Interval | None = None
    over_live: Interval | None = None
    contrary: list[str] = []
    wrong: dict[str, float] = {}


class Sample(_Part):
    """One prompt answered by each system, for people to read."""

    prompt: str
    replies: dict[str, str]


class Report(_Part):
    """Everything measured by one job."""

    format: Literal[1] = 1
    run_id: str
    adapter: str
    recipe: str
    why: str
    reference: Literal["base", "live"]
    preference: PreferenceFigures | None
    reward: RewardFigures | None = None
    systems: dict[str, SystemFigures]
    samples: list[Sample]
    train_counts: dict[str, int]
    eval_counts: dict[str, int]
    times_s: dict[str, float]
    train_metrics: dict[str, Any]

    @property
    def odds(self) -> Interval | None:
        """Return how many times the base's the odds of a 👍 are, as foretold from the votes.

        None where no reward was fitted to them (RewardFigures.gain).
        """
        gain = self.reward.gain if self.reward else None
        if gain is None:
            return None
        value, low, high = (exp(min(one, _LARGEST)) for one in (gain.value, gain.low, gain.high))
        return Interval(value=value, low=low, high=high, n=gain.n)


def read_report(directory: Path) -> Report:
    """Read `report.json` of a job directory; raises InvalidInput."""
    path = directory / REPORT
    try:
        return Report.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InvalidInput(f"{path}: no such file; the job has not finished") from None
    except ValidationError as error:
        raise InvalidInput(f"{path}: {error}") from error
