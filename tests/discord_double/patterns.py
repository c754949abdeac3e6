"""Patterns of routes: "/channels/{channel}/messages/{message}".

A name in braces stands for one segment, whatever it is; the rest is literal, so an id may be
written out. A method "*" stands for all. Knows no routes.
"""

from __future__ import annotations

import re
from functools import cache

METHODS_ALL = "*"


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """`pattern` as a regular expression with its names as groups."""
    parts = re.split(r"\{(\w+)\}", pattern)
    literal_or_name = (
        f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part) for index, part in enumerate(parts)
    )
    return re.compile("".join(literal_or_name))


def matches(method: str, pattern: str, request_method: str, path: str) -> bool:
    """Whether a request is one of those that `method` and `pattern` name."""
    if method not in (METHODS_ALL, request_method):
        return False
    return compiled(pattern).fullmatch(path) is not None


def major_parameter(path: str) -> str:
    """The part of `path` that gives it a rate limit of its own: channel, server or webhook."""
    segments = path.strip("/").split("/")
    if segments[0] in ("channels", "guilds"):
        return "/".join(segments[1:2])
    if segments[0] in ("webhooks", "interactions"):
        return "/".join(segments[1:3])
    return ""
