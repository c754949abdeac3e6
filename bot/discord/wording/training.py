"""What /retrain and /training answer with, and what a run's message says as it goes on.

The run's message is seen by everybody in the channel; the rest by the admin who asked.
"""

from __future__ import annotations

from bot import plain
from bot.discord.text import duration

OWNERS_ONLY = (
    "All servers share one adapter here, so only the people who run me can do this. "
    "Their ids stand in `discord.owners` in the operator's settings."
)
"""Refuses training, review and export to a server's admin when servers share one adapter."""
TRAINING_DISABLED = (
    "Training is switched off for the whole bot. Whoever runs me can change that with "
    "`training.enabled = true` in the settings."
)
"""Answers /retrain when the operator switched training off."""
SERVER_OFF = (
    "Training is switched off for this server, so nothing was started. "
    "An admin can switch it on with /settings training."
)
"""Answers /retrain while the server's own switch is off."""
NO_PERMISSION = (
    "There is nothing of this server's to learn from: whoever runs me holds no permission to train "
    "on what is written on Discord, so no words are kept here. With one, they can set "
    "`discord.training_permission`, and people can then opt in with /privacy."
)
"""Answers /retrain when there is nothing to learn from and the operator has no permission."""
RUNNING_ALREADY = (
    "A training run is going on here already, and there can only be one. /training status shows it "
    "and /training cancel stops it."
)
"""Answers /retrain while another run of this server goes on."""
NOTHING_RUNS = "No training is running here. /retrain starts one."
"""Answers the cancel command and button when there is nothing to cancel."""
CANCELLING = (
    "I am stopping the training run. What it learnt so far is dropped; nothing else changes."
)
"""Answers the cancel command and button."""
BROKEN = "The training run broke off before it was done, and nothing of it is used."
"""Says at the end of a run that failed what that means."""
NO_HISTORY = "Nothing has been trained here yet. /retrain starts the first run."
"""Answers /training history before the first run."""
NO_CHANNEL = (
    "This message can no longer be updated, and I may not write in this channel, so the progress "
    "stops here. The training goes on; /training status shows it."
)
"""Replaces a run's progress after 15 minutes where the bot may not post."""

TITLE = "Training"
"""Heads a run's message while it goes on."""
PLAN_TITLE = "What a run would learn from"
"""Heads the answer to /retrain dry_run."""
STATUS_TITLE = "Training here"
"""Heads the answer to /training status."""
HISTORY_TITLE = "The last training runs"
"""Heads the answer to /training history."""
CANCEL = "Cancel"
"""Labels the button under a run's message."""

RECIPES = {
    "sft": "imitate corrections and liked replies",
    "kto": "learn from 👍 and 👎",
    "apo": "learn from 👍 and 👎, gently",
    "dpo": "learn from choices between two replies",
    "bon": "find out what people like, and learn from my own replies ranked by it",
}
"""Says in a plan what each step of a recipe does."""

OUTCOMES = {
    "promoted": "Accepted",
    "canary": "Accepted, on trial",
    "refused": "Refused",
    "failed": "Failed",
    "cancelled": "Cancelled",
    "interrupted": "Interrupted",
}
"""Heads a run's message at its end, and names its end in /training history."""

NEXT = {
    "promoted": "Vote on the new replies; /adapter rollback brings the version before back.",
    "canary": (
        "It answers some new conversations now, and the votes there decide. /adapter list shows "
        "how it stands; /adapter promote and /adapter rollback end the trial at once."
    ),
    "refused": (
        "Nothing has changed. More votes from more people help most; then try /retrain again."
    ),
    "failed": "Nothing has changed. Please tell whoever runs me; then try /retrain again.",
    "cancelled": "Nothing has changed. /retrain starts anew whenever you like.",
    "interrupted": "Nothing has changed. /retrain starts anew whenever you like.",
}
"""Tells at a run's end what to do next."""

STAGES = plain.STAGES
"""What a run does now, in its message."""

LEFT_OUT = {
    **plain.LEFT_OUT,
    "dictated by the prompt": "the question dictated the answer; look at it in /feedback review",
    "a swarm of new people": "many new people said the same at once; look in /feedback review",
}
"""Says in plain words why a signal was left out, and where to look."""

FIELDS = {
    "learn": "Would learn from",
    "held_out": "Kept aside for the check",
    "how": "How, and why",
    "left_out": "Left out",
    "time": "Time left",
    "loss": "Loss",
    "margin": "Margin",
    "speaks": "Speaks now",
    "checks": "What did not hold",
    "next": "What next",
    "operator": "For whoever runs me",
    "runs": "Runs now",
    "waiting": "Waits to be learnt",
    "itself": "Starts by itself",
}
"""Labels the parts of a run's message and of the answers."""


def recipe(name: str, *, chosen: bool) -> str:
    """Say in a plan how the run would learn; `chosen` is false where an admin named the recipe."""
    ways = ", then ".join(RECIPES.get(part, part) for part in name.split("+"))
    why = "it suits what there is most of" if chosen else "as you asked"
    return f"`{name}`: {ways} ({why})"


def moved(link: str) -> str:
    """Replace a run's progress in the message that Discord lets me update for 15 minutes only."""
    return f"The progress goes on in a message of its own: {link}"


def counts(*, liked: int, disliked: int, corrections: int, choices: int, people: int) -> str:
    """Count examples in a plan and in the history."""
    return (
        f"👍 {liked} · 👎 {disliked} · ✏️ {corrections} · ⚖️ {choices}, "
        f"from {people} {'person' if people == 1 else 'people'}"
    )


def left_out(reason: str, number: int) -> str:
    """Tell how many signals were left out for one reason."""
    return f"{number}: {LEFT_OUT.get(reason, reason)}"


def too_little(reason: str) -> str:
    """Say what is missing when there is too little to learn from."""
    return f"There is too little to learn from so far. {reason[:1].upper()}{reason[1:]}."


def speaks(adapter: str) -> str:
    """Name who replies from now on; `base` is the model as it came."""
    return "the base model" if adapter == "base" else f"`{adapter}`"


def broken(figure: str, value: str, bound: str) -> str:
    """Tell one check that did not hold, with what was found and what is asked."""
    return f"• {figure}: {value} ({bound})"


def failed_run(reason: str, log: str) -> str:
    """Tell the operator why a run broke and where its log is."""
    return f"{reason}\nLog: `{log}` in the data directory"


def running(stage_name: str, percent: int, link: str) -> str:
    """Tell in /training status what runs, with a link to its message if there is one."""
    return f"{plain.stage(stage_name)}, {percent} %{f' · {link}' if link else ''}"


def waiting(signals: int, people: int) -> str:
    """Tell in /training status what came in since the last run."""
    return f"{signals} new signals from {people} {'person' if people == 1 else 'people'}"


def by_itself(votes: int, people: int, *, cron_at: int) -> str:
    """Tell when training starts without anybody asking; `cron_at` is Unix time, 0 for never."""
    parts = []
    if votes:
        parts.append(f"after {votes} new signals from at least {people} people")
    if cron_at:
        parts.append(f"<t:{cron_at}:R>, if there is anything new")
    return " · ".join(parts) or "never; /retrain starts it, /training schedule changes this"


def starts(when: str) -> str:
    """Answer /training schedule without a number."""
    return f"Training starts here by itself: {when}."


def schedule_set(votes: int, people: int) -> str:
    """Confirm what /training schedule changed."""
    if not votes:
        return "Done: this server no longer trains by itself after a number of votes."
    return (
        f"Done: once {votes} new signals from at least {people} people wait, training starts by "
        "itself. 0 switches that off."
    )


def history_line(at: int, state: str, recipe: str, accuracy: float | None) -> str:
    """Head a run in /training history; `at` is Unix time."""
    figure = "" if accuracy is None else f" · orders {accuracy:.0%} as people voted"
    return f"<t:{at}:d> **{OUTCOMES.get(state, plain.stage(state))}** · {recipe}{figure}"


def eta(seconds: float | None) -> str:
    """Say how long a run will still take."""
    return "not known yet" if seconds is None else f"about {duration(seconds)}"
