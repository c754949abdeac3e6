"""Tokens to streamed text: whole characters only, and nothing that may become a stop string.

The pieces given out, joined, are the reply's text. Knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_UNFINISHED = "\ufffd"  # what a decoder writes for bytes that are not (yet) a character
_LONGEST_CHARACTER_TOKENS = 4  # UTF-8 has at most four bytes, and a token at least one


class Detokenizer:
    """Decodes a reply token by token; `decode` turns token ids into text."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []  # a few settled tokens for context, then those since
        self._fresh = 0  # tokens of the window that are not settled
        self._shown = 0  # characters of the window's text already given out

    def push(self, token: int) -> str:
        """Take a token; return the text that is now certain, often all of it, sometimes none."""
        self._window.append(token)
        self._fresh += 1
        text = self._decode(self._window)
        open_tail = len(text) - len(text.rstrip(_UNFINISHED))
        if self._fresh > _LONGEST_CHARACTER_TOKENS:  # too long for one character: it is garbage
            open_tail = min(open_tail, _LONGEST_CHARACTER_TOKENS - 1)
        piece = text[self._shown : len(text) - open_tail]
        self._shown += len(piece)
        if piece and not open_tail:
            self._settle()
        return piece

    def flush(self) -> str:
        """Return what is left at the reply's end, unfinished characters as U+FFFD."""
        piece = self._decode(self._window)[self._shown :] if self._fresh else ""
        self._window, self._fresh, self._shown = [], 0, 0
        return piece

    def _settle(self) -> None:
        """Keep only the fresh tokens as context: decoders treat a text's start specially."""
        self._window = self._window[-self._fresh :]
        self._fresh = 0
        self._shown = len(self._decode(self._window))


class StopFilter:
    """Passes text through, but withholds what may be the start of a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def push(self, piece: str) -> str:
        """Take a piece; return what is safe to show. A stop string sets `stopped` for good."""
        if self.stopped:
            return ""
        text = self._held + piece
        hits = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if hits:
            self.stopped, self._held = True, ""
            return text[: min(hits)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Return what was withheld: the reply ended before it became a stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that begins `stop`."""
    return next(
        (
            size
            for size in range(min(len(text), len(stop) - 1), 0, -1)
            if text.endswith(stop[:size])
        ),
        0,
    )
