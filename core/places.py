"""What a server or a channel may set for itself, as it is stored (`places` in the database).

None and empty mean: take the next wider setting; the widest is `config.toml`. Knows no Discord
beyond its ids and no SQL.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Listening = Literal["mentions", "all", "join", "off"]
Area = Literal["training", "adapters", "feedback", "settings"]

MAX_PERSONA_CHARS = 1500

_Temperature = Annotated[float, Field(ge=0, le=2)] | None
_Tokens = Annotated[int, Field(ge=1, le=4096)] | None
_Persona = Annotated[str, Field(max_length=MAX_PERSONA_CHARS)] | None


class _Place(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class ChannelPlace(_Place):
    """A channel, its threads included.

    `listen`: "mentions" answers when spoken to, "all" everything, "join" that and now and then one
    message in `join_one_in`, "off" nothing. `reset_after` is the id of the message after which the
    context begins, as `/reset` left it.
    """

    persona: _Persona = None
    temperature: _Temperature = None
    max_tokens: _Tokens = None
    listen: Listening = "mentions"
    join_one_in: Annotated[int, Field(ge=2, le=1000)] = 20
    reset_after: Annotated[int, Field(ge=0)] = 0


class ServerPlace(_Place):
    """A server, or the space of all direct messages.

    `training`: text of people who opted in is kept and trained on. `arena_one_in`: one reply in so
    many is shown as two to choose from; 0 is never. `roles`: role ids that may use the commands of
    an area, beside those with the permission to manage the server. `log_channel`: where each use of
    an admin command is told; 0 is nowhere. `name` is for the operator's eyes.
    """

    name: str = ""
    persona: _Persona = None
    temperature: _Temperature = None
    max_tokens: _Tokens = None
    training: bool = False
    arena_one_in: Annotated[int, Field(ge=0, le=1000)] = 0
    log_channel: Annotated[int, Field(ge=0)] = 0
    roles: dict[Area, tuple[int, ...]] = Field(default_factory=dict)
    blocked: tuple[int, ...] = ()
