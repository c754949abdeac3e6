"""How adapter versions look on Discord: the list, one version's page, two side by side.

Pure functions of what the services found; nothing here reads or changes anything.
"""

from __future__ import annotations

from typing import Any

import discord

from bot.adapters import Figures, Likes, Shelf
from bot.arena import Standing
from bot.canary import TrialStanding
from bot.discord.text import excerpt
from bot.discord.wording import adapters as words
from core.generation import BASE
from core.intervals import wilson
from core.records import AdapterRecord, Run, parse_time

LISTED = 20
REASON_CHARS = 900
DESCRIPTION_CHARS = 4000


def standing_of(standings: list[Standing], one: str, other: str) -> Standing | None:
    """Return how the blind votes between two versions stand, whichever was the newer then."""
    return next((s for s in standings if {s.candidate, s.reference} == {one, other}), None)


def _made(record: AdapterRecord) -> str:
    return discord.utils.format_dt(parse_time(record.created_at), "R")


def liked_text(stand: TrialStanding) -> str:
    """Return the votes on both sides of a trial as a sentence without its full stop."""
    sides, trial = stand.evidence.sides, stand.trial
    liked = words.trial_liked(
        trial.candidate,
        sides.canary_up,
        sides.canary_down,
        trial.reference,
        sides.live_up,
        sides.live_down,
    )
    count = sides.won + sides.lost
    return liked + (words.trial_choices(sides.won, count, trial.candidate) if count else "")


def trial_text(stand: TrialStanding) -> str:
    """Return where a trial stands, in a few sentences."""
    trial, evidence = stand.trial, stand.evidence
    return words.trial(
        trial.candidate,
        trial.reference,
        percent=round(100 * (trial.share or 0)),
        liked=liked_text(stand),
        better=words.trial_evidence(evidence.better, evidence.needed_better),
        worse=words.trial_evidence(evidence.worse, evidence.needed_worse),
        thumbs=evidence.thumbs,
        most=stand.most_thumbs,
        ends_at=int(parse_time(stand.ends_at).timestamp()),
    )


def list_embed(stand: Shelf, trial: TrialStanding | None = None) -> discord.Embed:
    """Return the list of versions, newest first, with the base model last."""
    lines = [
        words.list_line(one.name, one.state, _made(one), words.likes(*_of(stand.likes, one.name)))
        for one in stand.adapters[:LISTED]
    ]
    if len(stand.adapters) > LISTED:
        lines.append(words.list_more(len(stand.adapters) - LISTED))
    base_likes = words.likes(*_of(stand.likes, BASE))
    lines.append(words.base_line(base_likes, speaks=stand.live == BASE))
    lines.append("\n" + words.who_speaks(stand.live, stand.previous))
    if trial:
        lines.append(trial_text(trial))
    if not stand.adapters:
        lines = [words.LIST_EMPTY]
    return discord.Embed(title=words.LIST_TITLE, description="\n".join(lines))


def show_embed(
    record: AdapterRecord,
    run: Run | None,
    likes: Likes,
    reason: str,
    trial: TrialStanding | None = None,
) -> discord.Embed:
    """Return one version's page; `run` is None for one that was not trained here, `trial` for one
    that is not on trial.

    `reason` says why it is in its state, where the gate's summary does not say it already.
    """
    verdict = (run.report or {}).get("verdict") if run else None
    lines = [words.show_state(record.state, _made(record), record.run_id or "")]
    if verdict:
        lines += [f"\n{verdict['summary']}\n", *(_check_line(one) for one in verdict["checks"])]
    else:
        lines.append(words.SHOW_NO_VERDICT if run else words.SHOW_NO_RUN)
    text = "\n".join(lines)[:DESCRIPTION_CHARS]
    embed = discord.Embed(title=words.heading(record.name), description=text)
    embed.add_field(name=words.FIELD_LIKES, value=_likes_line(likes), inline=False)
    if trial:
        embed.add_field(name=words.FIELD_TRIAL, value=trial_text(trial), inline=False)
    if run and run.counts:
        embed.add_field(name=words.FIELD_LEARNT, value=_learnt(run), inline=False)
    if reason and not (verdict and reason in verdict["summary"]):
        shown = excerpt(reason, REASON_CHARS)
        embed.add_field(name=words.FIELD_WHY, value=shown, inline=False)
    return embed


def _check_line(check: dict[str, Any]) -> str:
    return words.check_line(check["figure"], check["value"], check["bound"], passed=check["passed"])


def _learnt(run: Run) -> str:
    """Say what a run learnt from, as it was counted when the run began."""
    counts = run.counts
    left_out = sum(int(n) for key, n in counts.items() if key.startswith("left_out_"))
    return words.learnt_from(
        str(counts.get("recipe", run.recipe)),
        examples=int(counts.get("train_total", 0)),
        people=int(counts.get("train_people", 0)),
        liked=int(counts.get("train_liked", 0)),
        disliked=int(counts.get("train_disliked", 0)),
        pairs=int(counts.get("train_pairs", 0)),
        held_out=int(counts.get("held_out_total", 0)),
        left_out=left_out,
    )


def compare_embed(figures: tuple[Figures, Figures], standing: Standing | None) -> discord.Embed:
    """Return two versions side by side; `standing` is None where they never met."""
    embed = discord.Embed(title=words.COMPARE_TITLE)
    for one in figures:
        lines = [_likes_line(one.likes)]
        if one.accuracy is not None:
            own = one.accuracy
            lines.append(words.preference(own.value, own.low, own.high))
        if one.odds is not None:
            lines.append(words.odds(one.odds.value, one.odds.low, one.odds.high))
        if one.keep_score is not None:
            lines.append(words.keep_set(one.keep_score))
        embed.add_field(name=words.heading(one.name), value="\n".join(lines))
    embed.add_field(name=words.FIELD_ARENA, value=_arena_lines(standing), inline=False)
    return embed


def _arena_lines(standing: Standing | None) -> str:
    if standing is None or standing.share is None:
        return words.NO_MATCHES
    s = standing
    won = words.tally(s.candidate, s.wins, s.losses, s.ties, s.people)
    return f"{won}\n{words.tally_share(s.candidate, standing.share, s.low, s.high)}"


def _likes_line(likes: Likes) -> str:
    up, down = likes
    return words.likes_interval(up, down, *wilson(up, up + down))


def _of(likes: dict[str, Likes], name: str) -> Likes:
    return likes.get(name, (0, 0))
