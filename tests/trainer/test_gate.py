"""The gate: each bound alone refuses and is named; what is missing is said."""

from __future__ import annotations

from typing import Any

import pytest

from core.report import Interval, PreferenceFigures, Report, RewardFigures, SystemFigures
from core.sections import GateSettings
from trainer.gate import judge

BOUNDS = GateSettings()


def interval(value: float, half: float = 0.1) -> Interval:
    return Interval(value=value, low=value - half, high=value + half, n=60)


def preference(**changes: Any) -> PreferenceFigures:
    good = PreferenceFigures(
        margin=interval(4.0),
        accuracy=interval(0.8),
        p_value=0.0004,
        length_baseline=0.4,
        liked=14,
        disliked=46,
        pairs=0,
        people=9,
    )
    return good.model_copy(update=changes)


def system(**changes: Any) -> SystemFigures:
    good = SystemFigures(
        keep_score=0.9,
        keep_n=38,
        perplexity=40.0,
        kl_to_base=0.02,
        median_words=50.0,
        repetition=0.04,
        empty=0.0,
        unfinished=0.3,
        samples=32,
    )
    return good.model_copy(update=changes)


def report(figures: PreferenceFigures | None, reference: str = "base", **candidate: Any) -> Report:
    return Report.model_validate(
        {
            "run_id": "run_1",
            "adapter": "console@v2",
            "recipe": "kto",
            "why": "votes only",
            "reference": reference,
            "preference": figures,
            "systems": {
                "base": system(),
                "live": system(keep_score=0.7),
                "candidate": system(**candidate),
            },
            "samples": [],
            "train_counts": {},
            "eval_counts": {},
            "times_s": {},
            "train_metrics": {},
        }
    )


def test_a_good_candidate_is_accepted_in_plain_words() -> None:
    """Every check passes and the sentence says on how many votes."""
    verdict = judge(report(preference()), BOUNDS)
    assert verdict.accepted
    assert verdict.failed == ()
    assert verdict.summary.startswith("Accepted: on 60 held-out votes the adapter orders 80%")


@pytest.mark.parametrize(
    ("name", "votes", "candidate", "words"),
    [
        (
            "held_out",
            {"liked": 5, "disliked": 5},
            {},
            "only 10 held-out votes and pairs to test on; 6 more",
        ),
        ("people", {"people": 1}, {}, "comes from 1 people; 2 more are needed"),
        (
            "both_sides",
            {"liked": 1, "disliked": 59},
            {},
            "only 1 held-out replies are liked; 3 more",
        ),
        (
            "luck",
            {"p_value": 0.38},
            {},
            "no better than luck could (accuracy 0.80, interval 0.70 to 0.90",
        ),
        ("accuracy", {"accuracy": interval(0.55)}, {}, "orders too few comparisons"),
        (
            "over_live",
            {"over_live": interval(-0.2)},
            {},
            "live adapter orders held-out replies better",
        ),
        ("keep_set", {}, {"keep_score": 0.6}, "it passes 60% of the keep-set, the base 90%"),
        ("perplexity", {}, {"perplexity": 80.0}, "perplexity on plain text is 2.000 times"),
        ("perplexity", {}, {"perplexity": float("inf")}, "damaged the model"),
        ("kl", {}, {"kl_to_base": 9.0}, "too far from the base: 9.000 nats"),
        ("kl", {}, {"kl_to_base": float("nan")}, "too far from the base"),
        ("length", {}, {"median_words": 2.0}, "from 50 to 2 words"),
        ("length", {}, {"median_words": 400.0}, "from 50 to 400 words"),
        ("repetition", {}, {"repetition": 0.5}, "repeat themselves more"),
        ("empty", {}, {"empty": 0.5}, "share of empty replies is 0.500"),
    ],
)
def test_each_bound_alone_refuses_and_is_named(
    name: str, votes: dict[str, Any], candidate: dict[str, Any], words: str
) -> None:
    """One figure out of bounds is the one failed check, and the reason given."""
    verdict = judge(report(preference(**votes), **candidate), BOUNDS)
    assert not verdict.accepted
    assert [check.name for check in verdict.failed] == [name]
    assert words in verdict.summary


def test_no_held_out_feedback_is_a_refusal() -> None:
    """An empty test set can never accept."""
    verdict = judge(report(None), BOUNDS)
    assert not verdict.accepted
    assert "no held-out feedback to test on; at least 16 are needed" in verdict.summary


def test_one_kind_of_thumb_is_a_refusal() -> None:
    """Likes alone leave nothing to compare."""
    verdict = judge(report(preference(liked=60, disliked=0, p_value=1.0)), BOUNDS)
    assert "only 0 held-out replies are disliked; 4 more are needed" in verdict.summary


def test_pairs_make_up_for_a_missing_side() -> None:
    """Enough arena choices are a test of their own."""
    assert judge(report(preference(liked=0, disliked=0, pairs=20)), BOUNDS).accepted


def test_the_live_adapter_is_the_reference_where_there_is_one() -> None:
    """Against a live adapter that passes 0.70 of the keep-set, 0.60 is within the bound."""
    verdict = judge(report(preference(), reference="live", keep_score=0.6), BOUNDS)
    assert verdict.accepted


def test_rows_show_every_figure_and_bound() -> None:
    """The table holds failed and passed checks alike."""
    rows = judge(report(preference(p_value=0.38), empty=0.5), BOUNDS).rows()
    marks = {figure: mark for mark, figure, _, _ in rows}
    assert marks["how often luck would order them as well"] == "✗"
    assert marks["empty replies"] == "✗"
    assert marks["people behind them"] == "✓"
    assert ("✗", "how often luck would order them as well", "38%", "at most 5.0%") in rows


def reward(**changes: Any) -> RewardFigures:
    good = RewardFigures(
        accuracy=interval(0.79),
        p_value=0.0004,
        style={},
        length_z=0.4,
        prompts=180,
        drawn=720,
        pairs=126,
        gain=interval(0.5),
    )
    return good.model_copy(update=changes)


def with_reward(**changes: Any) -> Report:
    """A report of ranked pairs, whose adapter orders held-out votes by chance."""
    chance = preference(accuracy=interval(0.5), p_value=0.5)
    return report(chance).model_copy(update={"reward": reward(**changes)})


def test_ranked_pairs_are_judged_by_what_the_votes_foretell() -> None:
    """They do not order replies to different questions; the folds and new replies decide."""
    verdict = judge(with_reward(), BOUNDS)
    assert verdict.accepted
    assert "luck would foretell them as well under 0.1% of the time" in verdict.summary
    assert {"luck", "gain"} <= {check.name for check in verdict.checks}


def test_votes_full_of_errors_are_not_judged_by_how_many_are_in_order() -> None:
    """A reward that knows the taste may order them no better than chance; luck and gain decide."""
    verdict = judge(with_reward(accuracy=interval(0.45)), BOUNDS)
    assert verdict.accepted
    assert "accuracy" not in {check.name for check in verdict.checks}


@pytest.mark.parametrize(
    ("changes", "name", "why"),
    [
        ({"p_value": 0.3}, "luck", "nothing in 60 votes and pairs foretells the others"),
        ({"gain": interval(0.05)}, "gain", "hold no more of what people asked for than the base's"),
        ({"gain": None}, "gain", "not measured"),
        ({"over_live": interval(-0.3)}, "over_live", "the live adapter's replies hold more"),
    ],
)
def test_each_bound_on_ranked_pairs_refuses_alone(
    changes: dict[str, Any], name: str, why: str
) -> None:
    """Votes that foretell nothing, replies with no more of it, a live adapter that has more."""
    verdict = judge(with_reward(**changes), BOUNDS)
    assert [check.name for check in verdict.failed] == [name]
    assert why in verdict.summary


@pytest.mark.parametrize(
    ("contrary", "told"),
    [(["p1"], "1 person contradicted"), (["p1", "p2"], "2 people contradicted")],
)
def test_it_is_told_that_somebodys_word_was_turned_round(contrary: list[str], told: str) -> None:
    """Accepted or refused, and without a name."""
    for verdict in (
        judge(with_reward(contrary=contrary), BOUNDS),
        judge(with_reward(contrary=contrary, p_value=0.5), BOUNDS),
    ):
        assert told in verdict.summary
        assert "p1" not in verdict.summary
    assert "contradicted" not in judge(with_reward(), BOUNDS).summary


def test_it_is_told_how_many_people_hardly_agree_with_others() -> None:
    """Those whose votes count for less than half, without their names."""
    summary = judge(with_reward(wrong={"p1": 0.1, "p2": 0.3, "p3": 0.45}), BOUNDS).summary
    assert "What 2 people said hardly agrees with what all others say" in summary
    assert "p2" not in summary
    assert "agrees" not in judge(with_reward(wrong={"p1": 0.25}), BOUNDS).summary
