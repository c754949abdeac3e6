"""Which rows of the cache hold whose tokens, so that a chat that goes on reads only what is new.

A row keeps its states after its reply has ended. A newcomer with the same adapter takes over the
longest beginning it shares with any row, ended or running. The states of a token depend on the
tokens before it and the adapter alone, so what is reused equals what would be computed. Knows no
model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from serving.lora import LoadedAdapter

_WORTH_COPYING = 16


@dataclass(slots=True, eq=False)
class Place:
    """A row of the cache: the tokens whose states it holds, under which adapter."""

    index: int
    tokens: list[int] = field(default_factory=list)
    adapter: LoadedAdapter | None = None
    taken: bool = False
    last_use: int = 0


@dataclass(frozen=True, slots=True)
class Start:
    """Where a newcomer goes: `known` of its tokens are there, after copying them from `source`."""

    place: Place
    known: int
    source: Place | None = None


class Places:
    """All rows of the cache."""

    def __init__(self, rows: int) -> None:
        self._places = [Place(index) for index in range(rows)]
        self._uses = 0

    def take(self, prompt: Sequence[int], adapter: LoadedAdapter | None) -> Start:
        """Choose a row for a prompt; at least its last token is left to read."""
        known, best = max(
            ((_shared(place, prompt, adapter), place) for place in self._places),
            key=lambda found: (found[0], not found[1].taken),
        )
        free = [place for place in self._places if not place.taken]
        if best.taken or 2 * known < len(best.tokens):
            source, place = best, min(free, key=lambda place: (place.last_use, place.index))
            known = known if known >= _WORTH_COPYING or place is source else 0
        else:
            source, place = best, best
        place.taken, place.adapter = True, adapter
        place.tokens = list(prompt[:known])
        return Start(place, known, source if known and source is not place else None)

    def leave(self, place: Place) -> None:
        """Free a row; its states stay until somebody needs the room."""
        self._uses += 1
        place.taken, place.last_use = False, self._uses

    def forget(self, adapter: LoadedAdapter) -> None:
        """Know nothing any more of an adapter's free rows."""
        for place in self._places:
            if place.adapter is adapter and not place.taken:
                place.tokens, place.adapter = [], None


def _shared(place: Place, prompt: Sequence[int], adapter: LoadedAdapter | None) -> int:
    if place.adapter is not adapter:
        return 0
    longest = min(len(place.tokens), len(prompt) - 1)
    for index in range(longest):
        if place.tokens[index] != prompt[index]:
            return index
    return longest
