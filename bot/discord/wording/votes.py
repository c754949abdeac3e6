"""What votes, reasons and corrections are answered with. Everything here is seen only by the person
who voted; a vote never posts anything.
"""

from __future__ import annotations

from collections.abc import Sequence

UP = "👍 Thank you, your vote is counted."
UP_AGAIN = "👍 Your vote is already counted."
UP_CHANGED = "👍 Changed: your vote was 👎, now it is 👍."
DOWN = "👎 Thank you, your vote is counted. What was the matter? One tap is enough."
DOWN_AGAIN = "👎 Your vote is already counted. You can say what was the matter."
DOWN_CHANGED = "👎 Changed: your vote was 👍, now it is 👎. What was the matter? One tap is enough."
CONSENT_HINT = "Your vote counts either way; /privacy says what opting in would change."
TAKE_BACK = "Take it back"
TAKEN_BACK = "Done, your vote is taken back."
NOTHING_TO_TAKE_BACK = "There is no vote of yours on this reply any more."
NO_DOWN = (
    "Your vote on this reply is no longer 👎, so there is nothing to give a reason for. "
    "Press 👎 first."
)
GONE = (
    "I no longer have this reply: it expired, or it was deleted. Nothing was stored; "
    "newer replies work as usual."
)
STILL_WRITING = "This reply is not finished, so it cannot be voted on. Try again once it is whole."
BLOCKED = "The people who look after this server have asked me not to count your votes."

CORRECTION_TITLE = "What should I have said?"
CORRECTION_LABEL = "The reply as it should have been"
CORRECTED = "✏️ Thank you, your correction is kept. A later one on the same reply takes its place."
STILL_WRITING_EDIT = (
    "This reply is not finished, so it cannot be corrected. Try again once it is whole."
)
NEEDS_CONSENT = (
    "Your correction is not stored yet, because you have not opted in. If you opt in, I may store "
    "what you write to me wherever training is switched on, and learn from it; /privacy says "
    "exactly what is kept, and opting out works there at any time. I hold your correction for 15 "
    "minutes, in memory only."
)
OPT_IN_AND_KEEP = "Opt in and keep my correction"
OPTED_IN = "✏️ You have opted in and your correction is kept, thank you. /privacy undoes it."
DRAFT_GONE = (
    "I no longer have your correction: it was in memory only, for 15 minutes at most. Nothing was "
    "stored and you have not been opted in. Press ✏️ under the reply and write it again."
)
NOT_KEPT_NO_PERMISSION = (
    "I cannot keep a correction here, and nothing was stored: whoever runs me has no permission to "
    "learn from what is written on Discord. 👍 and 👎 are counted all the same."
)
NOT_KEPT_TRAINING_OFF = (
    "I cannot keep a correction here, and nothing was stored: training is switched off here. On "
    "a server, an admin can switch it on with /settings training. "
    "👍 and 👎 are counted all the same."
)
NOT_KEPT_CONSENT = (
    "I cannot keep a correction of this reply, and nothing was stored: when I wrote it, not "
    "everybody whose words it answers had opted in. Each of them can with /privacy; that holds for "
    "the replies that follow. 👍 and 👎 are counted all the same."
)

REASON_LABELS = {
    "wrong": "Wrong",
    "rude": "Rude",
    "too long": "Too long",
    "off topic": "Off topic",
    "other": "Something else",
}
"""The buttons under the answer to a 👎, by the tag that each stores."""


def reasons_kept(reasons: Sequence[str]) -> str:
    """Take the place of the answer to a 👎 once a reason was tapped; a second tap takes it off."""
    if not reasons:
        return "👎 Your vote is counted, with no reason given."
    labels = ", ".join(REASON_LABELS.get(reason, reason).lower() for reason in reasons)
    return f"👎 Your vote is counted, and the reason is kept: {labels}. Thank you."
