"""What `/adapter` says, to admins alone; the public line says who let which version speak."""

from __future__ import annotations

from core.generation import BASE

STATES = {
    "candidate": "waiting to be promoted",
    "canary": "on trial with some conversations",
    "live": "speaking now",
    "retired": "retired",
    "refused": "refused",
}
"""How the state of a version reads in /adapter list and show."""

LIST_TITLE = "My versions here"
"""Heads the answer to /adapter list."""
LIST_EMPTY = (
    "I have no versions of my own here yet; the base model speaks. Once people have voted, "
    "`/retrain` makes the first."
)
"""Answers /adapter list before the first training."""
COMPARE_TITLE = "Two versions side by side"
"""Heads the answer to /adapter compare."""
NOTHING_TO_COMPARE = "There is only one version here, so there is nothing to compare yet."
"""Answers /adapter compare where there is one version only."""
SAME_TWICE = "Those are one and the same version. Name two, or none to see the newest two."
"""Told to the admin who used /adapter compare."""
ALREADY_SPEAKS = "That version speaks here already, so there is nothing to change."
"""Told to the admin who wants to promote the version that speaks."""
NOTHING_BEFORE = "Nothing but the base model ever spoke here, so there is no way back to go."
"""Told to the admin who used /adapter rollback."""
LEFT_AS_IT_WAS = "Nothing was changed."
"""Told to the admin who pressed Cancel."""
OWNERS_ONLY = (
    "All servers share one set of versions here, so only the people who run me can change which "
    "one speaks."
)
"""Told to a server's admin where the operator lets all servers share one adapter."""
PROMOTE = "Let it speak"
"""Labels the button that promotes."""
PROMOTE_ANYWAY = "Promote anyway"
"""Labels the button that promotes a refused version."""
CANCEL = "Cancel"
"""Labels the button that leaves everything as it is."""
BASE_HAS_NO_PAGE = (
    "The base model is what I was before any training, so there is nothing to show. "
    "`/adapter compare` sets it beside a version."
)
"""Answers /adapter show for the base model."""
SHOW_NO_RUN = "It was not trained here, so I have no figures of it."
"""In /adapter show, for a version that was brought from elsewhere."""
SHOW_NO_VERDICT = "Its training run never came to the final check."
"""In /adapter show, for a version whose run broke off before the gate."""
FIELD_LIKES = "Liked replies"
"""Labels a part of /adapter show and compare."""
FIELD_LEARNT = "Learnt from"
"""Labels a part of /adapter show."""
FIELD_WHY = "Why it is in this state"
"""Labels a part of /adapter show."""
FIELD_TRIAL = "On trial"
"""Labels a part of /adapter show and /training status."""
FIELD_ARENA = "In the arena"
"""Labels a part of /adapter compare."""
NO_VOTES = "no votes yet"
"""Stands for the like-rate of a version nobody voted on."""
REASON_UNKNOWN = "it was not kept."
"""Stands for the reason of a refusal that nobody wrote down."""
NO_MATCHES = "no votes yet; `/arena` begins a match"
"""Stands for the tally of versions that never met in the arena."""


def version(name: str) -> str:
    """Name a version in a sentence: “v3”, or “the base model”."""
    return "the base model" if name == BASE else name.rpartition("@")[2]


def heading(name: str) -> str:
    """Name a version at the head of a line or a page."""
    return "Base model" if name == BASE else f"Version {version(name).removeprefix('v')}"


def _first(name: str) -> str:
    """Name a version at the beginning of a sentence."""
    return "The base model" if name == BASE else heading(name)


def who_speaks(live: str, previous: str) -> str:
    """Say at the end of /adapter list who speaks, and who did before."""
    if live == previous:
        return f"Speaking now: {version(live)}."
    return f"Speaking now: {version(live)}. Before that: {version(previous)}."


def trial(
    name: str,
    other: str,
    *,
    percent: int,
    liked: str,
    better: str,
    worse: str,
    thumbs: int,
    most: int,
    ends_at: int,
) -> str:
    """Say how a version on trial stands, in /adapter list and show and /training status."""
    return (
        f"{_first(name)} answers {percent}% of new conversations, and votes decide between it and "
        f"{version(other)}. {liked}. Evidence that it is better: {better}; that it is worse: "
        f"{worse}. The trial ends <t:{ends_at}:R> or after {most} conversations with a vote "
        f"({thumbs} so far); undecided, {version(other)} speaks on. `/adapter promote` and "
        "`/adapter rollback` end it at once."
    )


def trial_liked(name: str, up: int, down: int, other: str, other_up: int, other_down: int) -> str:
    """Give the likes of both sides of a trial, one for each conversation."""
    return (
        f"{_first(name)} was liked in {up} of {up + down} conversations, {version(other)} in "
        f"{other_up} of {other_up + other_down}"
    )


def trial_choices(won: int, count: int, name: str) -> str:
    """Give the blind choices of a trial."""
    return f", and {won} of {count} blind choices fell on {version(name)}"


def trial_evidence(value: float, needed: float) -> str:
    """Give evidence against what decides: 1 is none, and luck seldom reaches the second."""
    return f"{value:.2g} of {needed:.3g} needed"


def decided_better(name: str, before: str, liked: str) -> str:
    """Posted in a channel when the votes on a trial promoted a version."""
    place = f"in the place of {version(before)}"
    return f"🔧 Your votes let {version(name)} speak here now, {place}. {liked}."


def decided_worse(name: str, live: str, liked: str) -> str:
    """Posted in a channel when the votes on a trial took a version back."""
    again = f"{_first(live)} speaks everywhere again"
    return f"↩️ Your votes took {version(name)} back. {again}. {liked}."


def decided_nothing(name: str, live: str, liked: str) -> str:
    """Posted in a channel when a trial ended and the votes had decided nothing."""
    return (
        f"⚖️ The trial of {version(name)} is over, and the votes decided nothing. {liked}. "
        f"{_first(live)} speaks on; `/adapter promote` lets {version(name)} speak all the same."
    )


def trial_ended(who: str, name: str, live: str) -> str:
    """Posted in the channel when an admin ended a trial; `who` is a mention that pings nobody."""
    return f"↩️ {who} ended the trial of {version(name)}. {_first(live)} speaks everywhere again."


def ends_trial(name: str) -> str:
    """Tell the admin who is about to promote a version that this ends a trial."""
    return f"That ends the trial of {version(name)}."


def list_line(name: str, state: str, made: str, likes: str) -> str:
    """Describe one version in /adapter list."""
    return f"**{version(name)}** · {STATES.get(state, state)} · made {made} · {likes}"


def base_line(likes: str, *, speaks: bool) -> str:
    """Describe the base model in /adapter list."""
    return f"**base** · {STATES['live'] if speaks else 'always there'} · {likes}"


def list_more(count: int) -> str:
    """Say that older versions are not listed."""
    return f"… and {count} older"


def likes(up: int, down: int) -> str:
    """Give thumbs in a few characters."""
    if not up + down:
        return NO_VOTES
    return f"👍 {up} 👎 {down} ({up / (up + down):.0%} of {up + down})"


def likes_interval(up: int, down: int, low: float, high: float) -> str:
    """Give thumbs with the 95 % interval of the share that liked a reply."""
    shown = likes(up, down)
    return f"{shown}, likely {low:.0%} to {high:.0%}" if up + down else shown


def show_state(state: str, made: str, run: str) -> str:
    """Say in /adapter show what state a version is in, when it was made and by which run."""
    return f"{STATES.get(state, state).capitalize()} · made {made}" + (
        f" · run `{run}`" if run else ""
    )


def check_line(figure: str, value: str, bound: str, *, passed: bool) -> str:
    """Give one figure of the final check against its bound, in /adapter show."""
    return f"{'✅' if passed else '❌'} {figure}: **{value}** ({bound})"


def learnt_from(
    recipe: str,
    *,
    examples: int,
    people: int,
    liked: int,
    disliked: int,
    pairs: int,
    held_out: int,
    left_out: int,
) -> str:
    """Say in /adapter show what a version was made from."""
    return (
        f"{examples} examples by {people} {'person' if people == 1 else 'people'}: {liked} liked, "
        f"{disliked} disliked, {pairs} better-than pairs, the rest written by people. "
        f"{held_out} more were kept aside for the check, {left_out} were left out. "
        f"Recipe: {recipe}."
    )


def keep_set(share: float) -> str:
    """Give the share of fixed tasks that a version still masters, in /adapter compare."""
    return f"Fixed tasks still right: {share:.0%}"


def preference(value: float, low: float, high: float) -> str:
    """Give how often a version orders replies as people voted, in /adapter compare."""
    return f"Agrees with held-out votes: {value:.0%} ({low:.0%} to {high:.0%}; chance is 50%)"


def odds(times: float, low: float, high: float) -> str:
    """Give by how much likes of a version's replies are foretold to rise, in /adapter compare."""
    return f"Odds of a 👍, foretold from votes: {times:.1f} × the base's ({low:.1f} to {high:.1f})"


def tally(one: str, won: int, lost: int, ties: int, people: int) -> str:
    """Give the blind votes between two versions, in /adapter compare."""
    noun = "person" if people == 1 else "people"
    return f"{version(one)} won {won}, lost {lost}, tied {ties}, by {people} {noun}."


def tally_share(one: str, share: float, low: float, high: float) -> str:
    """Give the share of the blind votes with its interval, in /adapter compare."""
    return f"Share for {version(one)}: {share:.0%} (likely {low:.0%} to {high:.0%}; a tie is half)."


def confirm(name: str, live: str) -> str:
    """Ask the admin who wants to promote a version whether it is meant."""
    return (
        f"From the next reply on, {version(name)} will speak here in the place of "
        f"{version(live)}. Replies being written are not touched, and `/adapter rollback` brings "
        f"{version(live)} back at once."
    )


def confirm_refused(name: str, reason: str) -> str:
    """Warn the admin who wants to promote a version that was refused."""
    return (
        f"I would rather not: {version(name)} was refused. The reason: {reason}\n\n"
        "You can let it speak all the same. It will be written down that you overrode the check, "
        "and `/adapter rollback` takes it back."
    )


def done(name: str) -> str:
    """Told to the admin once a version speaks."""
    return f"Done: {version(name)} speaks now."


def now_speaks(who: str, name: str, before: str) -> str:
    """Posted in the channel after a promotion; `who` is a mention that pings nobody."""
    return f"🔧 {who} lets {version(name)} speak here now, in the place of {version(before)}."


def rolled_back(who: str, name: str, before: str) -> str:
    """Posted in the channel after a rollback; `who` is a mention that pings nobody."""
    return f"↩️ {who} took {version(before)} back. {_first(name)} speaks here again."


def damaged(name: str, live: str) -> str:
    """Told to the admin when a version's files are not as they were published."""
    return (
        f"{_first(name)} could not be used: its files are damaged or were altered, "
        f"so I did not let it speak. {_first(live)} speaks on. Whoever runs me can "
        "look closer with `thumbtune adapters verify`."
    )


def taken_back(name: str, live: str) -> str:
    """Told to the admin when a version could not be loaded after its promotion."""
    return f"{_first(name)} could not be loaded and was taken back. {_first(live)} speaks on."


def choice(name: str, state: str) -> str:
    """Name a version in the list that Discord offers while a command is typed."""
    return f"{heading(name)} · {STATES[state]}" if state in STATES else heading(name)
