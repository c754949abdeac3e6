"""Texts that any feature may use."""

UNFORESEEN = (
    "Something went wrong on my side. It is logged, and nothing you wrote or voted was lost. "
    "Please try again in a moment."
)
"""Told to the one whose command or button failed in a way nobody foresaw."""
FORBIDDEN = (
    "Discord does not let me do this here: I lack a permission in this channel. "
    "An admin can compare my permissions with the list that `thumbtune doctor` prints."
)
"""Told to the one whose command or button needed a permission the bot lacks."""
NOT_ALLOWED = (
    "This is for the people who look after me on this server. "
    "Ask somebody with the permission “Manage Server”, or a role that `/settings roles` names."
)
"""Told to somebody who may not use an admin command or button."""
FORM_TOO_LATE = (
    "I was too slow to open the form, and Discord no longer takes it. Please try once more."
)
"""Told to the one who asked for a form when it could not be made in time."""


def failed(reason: str) -> str:
    """Say why something could not be done."""
    return f"That did not work: {reason}."[:1900].replace("..", ".")


def log_line(who: str, what: str, *, allowed: bool) -> str:
    """Tell a server's log channel that somebody used an admin command."""
    return f"🔧 {who} used `{what}`" if allowed else f"⛔ {who} was refused `{what}`"
