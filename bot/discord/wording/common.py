"""Texts that any feature may use."""

UNFORESEEN = (
    "Something went wrong on my side. It is logged, and nothing you wrote or voted was lost. "
    "Please try again in a moment."
)
FORBIDDEN = (
    "Discord does not let me do this here: I lack a permission in this channel. "
    "An admin can compare my permissions with the list that `thumbtune doctor` prints."
)
NOT_ALLOWED = (
    "This is for the people who look after me on this server. "
    "Ask somebody with the permission “Manage Server”, or a role that `/settings roles` names."
)


def failed(reason: str) -> str:
    """Say why something could not be done."""
    return f"That did not work: {reason}."[:1900].replace("..", ".")


def log_line(who: str, what: str, *, allowed: bool) -> str:
    """Tell a server's log channel that somebody used an admin command."""
    return f"🔧 {who} used `{what}`" if allowed else f"⛔ {who} was refused `{what}`"
