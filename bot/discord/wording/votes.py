"""What votes, reasons and corrections are answered with. Everything here is seen only by the person
who voted; a vote never posts anything.
"""

from __future__ import annotations

from collections.abc import Sequence

UP = "👍 Thank you, your vote is counted."
"""The answer to a first 👍."""
UP_AGAIN = "👍 Your vote is already counted."
"""The answer to 👍 from somebody whose vote is 👍."""
UP_CHANGED = "👍 Changed: your vote was 👎, now it is 👍."
"""The answer to 👍 from somebody whose vote was 👎."""
DOWN = "👎 Thank you, your vote is counted. What was the matter? One tap is enough."
"""The answer to a first 👎, above the reasons."""
DOWN_AGAIN = "👎 Your vote is already counted. You can say what was the matter."
"""The answer to 👎 from somebody whose vote is 👎, above the reasons."""
DOWN_CHANGED = "👎 Changed: your vote was 👍, now it is 👎. What was the matter? One tap is enough."
"""The answer to 👎 from somebody whose vote was 👍, above the reasons."""
CONSENT_HINT = "Your vote is counted either way; /privacy says what opting in would change."
"""Under the answer to a vote, where opting in would change something and the person never
decided."""
TAKE_BACK = "Take it back"
"""The button under the answer to a vote."""
TAKEN_BACK = "Done, your vote is taken back."
"""Once “Take it back” was pressed."""
NOTHING_TO_TAKE_BACK = "There is no vote of yours on this reply any more."
"""Once “Take it back” was pressed and the vote had gone before."""
NO_DOWN = (
    "Your vote on this reply is no longer 👎, so there is nothing to give a reason for. "
    "Press 👎 first."
)
"""Once a reason was pressed and the vote is no longer 👎."""
GONE = (
    "I no longer have this reply: it expired, or it was deleted. Nothing was stored; "
    "newer replies work as usual."
)
"""The answer to any button under a reply that is no longer in the database."""
STILL_WRITING = "This reply is not finished, so it cannot be voted on. Try again once it is whole."
"""The answer to a vote on a reply that is being written, or broke off."""
BLOCKED = (
    "The people who look after this server have asked me not to take votes or corrections from you."
)
"""The answer to somebody who is blocked here."""

CORRECTION_TITLE = "What should I have said?"
"""The title of the form that ✏️ opens."""
CORRECTION_LABEL = "The reply as it should have been"
"""Above the field of that form."""
CORRECTED = "✏️ Thank you, your correction is kept. A later one on the same reply takes its place."
"""Once a correction is stored."""
STILL_WRITING_EDIT = (
    "This reply is not finished, so it cannot be corrected. Try again once it is whole."
)
"""The answer to ✏️ on a reply that is being written, or broke off."""
NEEDS_CONSENT = (
    "Your correction is not stored yet, because you have not opted in. If you opt in, I may store "
    "what you write to me wherever training is switched on, and learn from it; /privacy says "
    "exactly what is kept, and opting out works there at any time. I hold your correction for 15 "
    "minutes, in memory only."
)
"""Once somebody who did not opt in sent a correction of a reply that is kept."""
OPT_IN_AND_KEEP = "Opt in and keep my correction"
"""The button under that."""
OPTED_IN = "✏️ You have opted in and your correction is kept, thank you. /privacy undoes it."
"""Once that button was pressed and the correction is stored."""
DRAFT_GONE = (
    "I no longer have your correction: it was in memory only, for 15 minutes at most. Nothing was "
    "stored and you have not been opted in. Press ✏️ under the reply and write it again."
)
"""Once that button was pressed too late, or after a restart."""
NOT_KEPT_NO_PERMISSION = (
    "I cannot keep a correction here, and nothing was stored: whoever runs me has no permission to "
    "learn from what is written on Discord. 👍 and 👎 are counted all the same."
)
"""The answer to ✏️ where the operator holds no permission to train."""
NOT_KEPT_TRAINING_OFF = (
    "I cannot keep a correction here, and nothing was stored: training is switched off here. On "
    "a server, an admin can switch it on with /settings training. "
    "👍 and 👎 are counted all the same."
)
"""The answer to ✏️ where training is switched off."""
NOT_KEPT_CONSENT = (
    "I cannot keep a correction of this reply, and nothing was stored: when I wrote it, not "
    "everybody whose words it answers had opted in. Each of them can with /privacy; that holds for "
    "the replies that follow. 👍 and 👎 are counted all the same."
)
"""The answer to ✏️ on a reply that is not kept though others may be."""

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
