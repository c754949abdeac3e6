"""A version's figures as an admin sees them: from its run's report, short and without paths."""

from __future__ import annotations

import os
from math import log
from typing import Any

from simcord.env import Env

from bot.adapters import find, reason_of, shelf, side_by_side
from bot.arena import Standing
from bot.discord.versions import compare_embed, show_embed
from bot.world import World
from core.records import Run
from core.report import Interval, PreferenceFigures, Report, RewardFigures, SystemFigures
from storage.database import Database
from tests.bot.discord.conftest import Town
from tests.bot.test_arena import publish, speak, spoil

SCOPE = "console"
SUMMARY = "Refused: on 16 held-out votes the adapter orders replies no better than luck could."


def figures(keep: float) -> SystemFigures:
    """Return figures of one system with this share of the keep-set."""
    return SystemFigures(
        keep_score=keep,
        keep_n=10,
        perplexity=8.0,
        kl_to_base=0.1,
        median_words=20.0,
        repetition=0.0,
        empty=0.0,
        unfinished=0.0,
        samples=4,
    )


def report(run_id: str, name: str) -> dict[str, Any]:
    """Return what a run keeps of its judgement."""
    accuracy = Interval(value=0.75, low=0.5, high=0.9, n=16)
    preference = PreferenceFigures(
        margin=accuracy,
        accuracy=accuracy,
        length_baseline=0.5,
        liked=8,
        disliked=8,
        pairs=0,
        people=4,
    )
    measured = Report(
        run_id=run_id,
        adapter=name,
        recipe="kto",
        why="",
        reference="base",
        preference=preference,
        reward=RewardFigures(
            accuracy=accuracy,
            p_value=0.001,
            style={},
            length_z=0.0,
            prompts=8,
            drawn=32,
            pairs=8,
            gain=Interval(value=log(3.0), low=log(1.9), high=log(4.6), n=8),
        ),
        systems={"base": figures(1.0), "candidate": figures(0.9)},
        samples=[],
        train_counts={},
        eval_counts={},
        times_s={},
        train_metrics={},
    )
    check = {"figure": "empty replies", "value": "0.000", "bound": "at most 0.02", "passed": True}
    verdict = {"accepted": False, "checks": [check], "summary": SUMMARY}
    return {"report": measured.model_dump(), "verdict": verdict}


async def a_run(world: World, name: str) -> Run:
    """Store a run that was judged."""
    counts = {"recipe": "kto", "train_total": 12, "train_people": 1, "left_out_dropped": 2}

    def stored(db: Database) -> Run:
        db.scopes.ensure(SCOPE)
        run = db.runs.create(SCOPE, recipe="auto", owner_pid=os.getpid())
        db.runs.advance(run.id, "publishing", counts=counts, report=report(run.id, name))
        return db.runs.get(run.id)

    return await world.database.run(stored)


async def test_a_page_shows_checks_sources_and_reason_once(world: World) -> None:
    """The gate's figures, what was learnt from, and no second copy of the gate's summary."""
    run = await a_run(world, f"{SCOPE}@v1")
    await publish(world, 1, state="refused", detail=SUMMARY, run_id=run.id)
    (record,) = (await shelf(world.database, SCOPE)).adapters
    embed = show_embed(record, run, (0, 0), reason_of(record, world.settings.data_dir))
    assert SUMMARY in str(embed.description)
    assert "✅ empty replies: **0.000** (at most 0.02)" in str(embed.description)
    learnt = embed.fields[1].value
    assert str(learnt).startswith("12 examples by 1 person")
    assert "2 were left out" in str(learnt)
    assert len(embed.fields) == 2


async def test_a_reason_names_no_path(world: World) -> None:
    """What the engine said of a damaged version is shown without the machine's directories."""
    name = await publish(world, 1)
    await world.registry.speaking(SCOPE)
    spoil(world, name)
    await world.database.run(lambda db: db.adapters.promote(name, actor="test"))
    await world.registry.sync()
    (record,) = (await shelf(world.database, SCOPE)).adapters
    assert str(world.settings.data_dir) in record.detail
    assert str(world.settings.data_dir) not in reason_of(record, world.settings.data_dir)


async def test_the_base_has_the_figures_the_other_report_gives_it(world: World) -> None:
    """Side by side, keep-set and agreement come from the run's report, likes from votes."""
    run = await a_run(world, f"{SCOPE}@v1")
    name = await publish(world, 1, run_id=run.id)
    one, base = await side_by_side(world.database, SCOPE, name, "base")
    assert (one.keep_score, base.keep_score) == (0.9, 1.0)
    assert one.accuracy is not None
    assert (base.accuracy, base.odds) == (None, None)
    standing = Standing(name, "base", 3, 1, 0, 2, 0.75, 0.30, 0.95)
    embed = compare_embed((one, base), standing)
    assert "Fixed tasks still right: 90%" in str(embed.fields[0].value)
    assert "Agrees with held-out votes: 75%" in str(embed.fields[0].value)
    assert "foretold from votes: 3.0 × the base's (1.9 to 4.6)" in str(embed.fields[0].value)
    assert "foretold" not in str(embed.fields[1].value)
    assert str(embed.fields[2].value).splitlines() == [
        "v1 won 3, lost 1, tied 0, by 2 people.",
        "Share for v1: 75% (likely 30% to 95%; a tie is half).",
    ]


async def test_versions_are_found_by_number_or_name(world: World) -> None:
    """`1`, `v1` and the whole name mean the same version; `base` is always there."""
    name = await publish(world, 1)
    for called in ("1", "v1", "V1 ", name):
        assert await find(world.database, SCOPE, called) == name
    assert await find(world.database, SCOPE, "base") == "base"


async def test_a_comparison_is_sent_with_its_chart(town: Town, env: Env) -> None:
    """/adapter compare answers in private with the figures and a picture."""
    await speak(town.world, await publish(town.world, 1, scope=town.scope), town.scope)
    result = await town.admin.slash(town.channel, "adapter compare", **{"name": "v1"})
    shown = result.response
    assert shown is not None
    assert shown.ephemeral
    assert [field.name for field in shown.embeds[0].fields][:2] == ["Version 1", "Base model"]
    assert [file.filename for file in shown.attachments] == ["likes.png"]
    assert env.errors == []
