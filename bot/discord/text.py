"""Text as Discord shows it: pages, what a model wrote made harmless, names, excerpts, bars.

Sizes are counted in UTF-16 units: Discord's own clients count so and its API counts no more, so
what fits here fits there. A fence is any three backticks, wherever they stand, as Discord reads
them. Pure functions of their text; nothing here knows a message, a reply or a person.
"""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable

from core.errors import InvalidInput

MESSAGE_LIMIT = 2000
NAME_LIMIT = 32
FENCE = "```"
CLOSER = "\n```"
SMALLEST_PAGE = 64
"""A page must hold a reopened fence with its language, a closing one, and some text."""
ZWSP = "\u200b"
ZWJ = "\u200d"
_BLANK_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"

_BLANK_LINES = re.compile(r"\A(?:[ \t]*\n)+")
_LANGUAGE = re.compile(r"[\w+\-.#]{1,20}(?=\n)")
_DANGLING_FENCE = re.compile(r"```[\w+\-.#]*\s*\Z")
_BREAKS = (
    re.compile(r"\n[ \t]*\n"),
    re.compile(r"\n"),
    re.compile(r"(?<=[.!?…])\s+"),
    re.compile(r"\s+"),
)

_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_LONG_RUN = re.compile(r"`{4,}")
_PING = re.compile(r"@(?=everyone|here)|(?<=<)@(?=[!&]?\d)", re.IGNORECASE)
_INVITE = re.compile(
    r"(?:https?://)?(?:[\w-]+\.)?discord(?:\.gg|(?:app)?\.com/invite)/[\w-]", re.IGNORECASE
)
_MARKUP = re.compile(
    r"""
    (?P<escape>\\[\\`\[])
  | (?P<fence>```[\s\S]*?(?:```|\Z))
  | (?P<code>(?<!`)(?P<ticks>`{1,2})(?!`)(?:(?!```)[^\n])*?[^`\n](?P=ticks)(?!`))
  | (?P<stray>`)
  | (?P<small>(?:^|(?<=```))[ \t>*+\-#\d.]*?-\#(?=[ \t]))
  | (?P<link>!?\[(?P<label>(?:\\.|\[[^\[\]\n]*\]|[^\[\]\n\\])*)\]
        \(\s*<?(?P<url>[a-zA-Z][\w+.\-]*:(?:\([^\s()<>`]*\)|[^\s()<>`])+)>?
        (?:\s+(?:"[^"\n]*"|'[^'\n]*'))?\s*\))
  | (?P<joint>\](?=\(\s*[^\s()]*:))
  | (?P<autolink><[^:\ >]+:/[^\ >]+>)
  | (?P<raw>https?://[^\s<]+[^\s<.,:;"'\]]
        |(?<![\w./-])(?:[\w-]+\.)?discord(?:\.gg|(?:app)?\.com/invite)/[\w-]+)
  | (?P<tag><(?=\#\d|/[^<>\n:]{1,100}:\d|t:-?\d|id:))
  | (?P<ping>@(?=everyone|here)|(?<=<)@(?=[!&]?\d))
    """,
    re.VERBOSE | re.MULTILINE | re.IGNORECASE,
)
_SPECIAL = re.compile(r"([\\*_~|`>#\[\]<:/-])")


def pages(text: str, *, limit: int = MESSAGE_LIMIT) -> list[str]:
    """Split a reply into messages of at most `limit` UTF-16 units, every fence closed in each.

    Prefix-stable: where a prefix of the text needs k pages, its first k-1 are the text's own, so
    a streaming reply never rewrites a page it has left. A page therefore ends by what stands in
    it and one character more, never by what comes later. Raises InvalidInput under 64.
    """
    if limit < SMALLEST_PAGE:
        raise InvalidInput(f"a page of {limit} is too small; use at least {SMALLEST_PAGE}")
    done: list[str] = []
    rest, opener = _BLANK_LINES.sub("", text), ""
    while not _fits(rest, opener, limit):
        window = _window(rest, limit - _size(opener) - len(CLOSER))
        cut = _cut(window, rest[len(window)], fenced=bool(opener))
        done += _page(opener, rest[:cut])
        rest, opener = _turn(rest[cut:], _reopened(opener, rest[:cut]))
    half_written_fence = bool(opener) and not rest.strip().strip("`")
    return done if half_written_fence else done + _page(opener, rest)


def safe(text: str) -> str:
    """Make what a model wrote harmless to show: no pings, no masked target, no fake notice.

    Code is left as it is, but for control characters and runs of more than three backticks. A
    backtick that forms no code is escaped, so Discord finds the same code that was found here; an
    open fence counts as code, since `pages` closes it. Idempotent. Inline code ends on its line:
    while streaming, only the line being written can still change. Not caught: an emphasis that
    opens before a fence and closes inside it.
    """
    shown = _LONG_RUN.sub(FENCE, _HIDDEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
    while (again := _MARKUP.sub(_harmless, shown)) != shown:
        shown = again  # a link that lost its brackets may have built something new
    return shown


def plain_name(name: str) -> str:
    """A display name for the prompt: one line, nothing invisible, at most 32 characters."""
    visible = "".join(character for character in name if _visible(character))
    line = " ".join(visible.split())[:NAME_LIMIT].strip(f" {ZWJ}")
    return line or "someone"


def shown_name(name: str) -> str:
    """A display name for a message: `plain_name` with markdown and mentions made inert."""
    return _escaped(plain_name(name))


def excerpt(text: str, limit: int) -> str:
    """The text on one line of at most `limit` units, cut with …, its markdown inert."""
    line = " ".join(_HIDDEN.sub(" ", text).split())
    whole = _escaped(line)
    if _size(whole) <= limit:
        return whole
    sizes = range(len(line))
    end = bisect_right(sizes, limit - 1, key=lambda end: _size(_escaped(line[:end]))) - 1
    if end < 0:
        return ""
    while end and _joined(line[end - 1], line[end]):
        end -= 1
    return _escaped(line[:end].rstrip()) + "…"


def bar(fraction: float, width: int = 20) -> str:
    """A progress bar; a fraction outside [0, 1] is clipped, one that is not a number is 0."""
    clipped = min(1.0, max(0.0, fraction)) if math.isfinite(fraction) else 0.0
    full = int(clipped * width)
    return "▰" * full + "▱" * (width - full)


def duration(seconds: float) -> str:
    """Seconds in words, two units at most: "45 s", "1 min 20 s", "3 h 5 min", "2 d 4 h"."""
    whole = max(0, round(seconds))
    for unit, size, lower, lower_size in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= size:
            rest = whole % size // lower_size
            return f"{whole // size} {unit}" + (f" {rest} {lower}" if rest else "")
    return f"{whole} s"


def _size(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _fits(rest: str, opener: str, limit: int) -> bool:
    """Whether the rest is one page; once false, it is false for every longer rest too."""
    body = rest.rstrip()
    fenced = bool(opener) or FENCE in body
    return _size(opener) + _size(body) + len(CLOSER) * fenced <= limit


def _window(text: str, budget: int) -> str:
    """The longest prefix of at most `budget` units."""
    window = text[:budget]
    excess = _size(window) - budget
    while excess > 0:
        excess -= _size(window[-1])
        window = window[:-1]
    return window


def _cut(window: str, following: str, *, fenced: bool) -> int:
    """Where to end a page: as late as the best kind of break allows, outside inline code."""
    head = window[: _soft_cut(window) or _hard_cut(window, following)]
    dangling = _DANGLING_FENCE.search(head)
    opens = (head.count(FENCE) + fenced) % 2 == 1
    return dangling.start() if dangling and opens and dangling.start() else len(head)


def _soft_cut(window: str) -> int | None:
    for kind in _BREAKS:
        ends = [match.end() for match in kind.finditer(window, len(window) // 2)]
        for end in reversed(ends):
            if not _in_inline_code(window[:end]):
                return end
    return None


def _hard_cut(window: str, following: str) -> int:
    if following == "`" and window.endswith("`"):
        return len(window.rstrip("`")) or len(window) // len(FENCE) * len(FENCE)
    for end in range(len(window), len(window) // 2, -1):
        right = window[end] if end < len(window) else following
        if not _joined(window[end - 1], right):
            return end
    return len(window)


def _joined(left: str, right: str) -> bool:
    """Whether a cut between two characters would break what is read as one."""
    flags = "\U0001f1e6" <= left <= "\U0001f1ff" and "\U0001f1e6" <= right <= "\U0001f1ff"
    skin = "\U0001f3fb" <= right <= "\U0001f3ff"
    marked = unicodedata.category(right).startswith("M")
    return flags or skin or marked or left in "\\" + ZWJ or right == ZWJ or left == right == "`"


def _in_inline_code(head: str) -> bool:
    line = head.rpartition("\n")[2].replace(FENCE, "")
    return line.count("`") % 2 == 1


def _reopened(opener: str, head: str) -> str:
    """How the next page begins so that a fence open at the end of `head` goes on."""
    if (head.count(FENCE) + bool(opener)) % 2 == 0:
        return ""
    if FENCE not in head:
        return opener
    language = _LANGUAGE.match(head.rpartition(FENCE)[2])
    return f"{FENCE}{language.group() if language else ''}\n"


def _turn(rest: str, opener: str) -> tuple[str, str]:
    """Begin a page; a fence that ends right here was already closed on the page before."""
    rest = _BLANK_LINES.sub("", rest)
    if opener and rest.startswith(FENCE):
        return _BLANK_LINES.sub("", rest[len(FENCE) :]), ""
    return rest, opener


def _page(opener: str, head: str) -> list[str]:
    body = head.rstrip()
    if not body:
        return []
    return [opener + body + (CLOSER if _reopened(opener, body) else "")]


def _harmless(found: re.Match[str]) -> str:
    text, kind = found.group(), found.lastgroup or ""
    if kind == "link":
        return _unmasked(found["label"], found["url"])
    change = _CHANGES.get(kind)
    return change(text) if change else text


def _block(text: str) -> str:
    """A fenced block as it is; Discord would read on past the end of an empty one."""
    closed = len(text) > 5 and text.endswith(FENCE)
    return f"{FENCE}\n{ZWSP}\n{FENCE}" if closed and not text[3:-3].strip("\n") else text


def _inline_code(text: str) -> str:
    """Inline code as it is, unless emphasis could end inside it and set free what it holds."""
    body = text.strip("`")
    if any(mark in body for mark in "*_~|") and _MARKUP.sub(_harmless, body) != body:
        return text.replace("`", "\\`")
    return text


def _unmasked(label: str, url: str) -> str:
    """The label and the true target, neither with a preview."""
    target = f"<{_unpinged(url)}>"
    if label.strip() in {url, ""}:
        return target
    if re.fullmatch(r"https?://[^\s<>`]+", label.strip()):
        return f"<{_unpinged(label.strip())}> ({target})"
    return f"{_MARKUP.sub(_harmless, label)} ({target})"


def _raw_link(text: str) -> str:
    link = _autolink(text)
    if not _INVITE.match(link):
        return link
    bare = link.rstrip(")*_~|!?\\")
    scheme = "" if bare.lower().startswith("http") else "https://"
    return f"<{scheme}{bare}>{link[len(bare) :]}"


def _autolink(text: str) -> str:
    """A link's characters that could ping, open code or end a label, made inert."""
    return _unpinged(text).replace("`", "%60").replace("](", "] (")


def _unpinged(text: str) -> str:
    return _PING.sub("@" + ZWSP, text)


def _visible(character: str) -> bool:
    if character.isspace() or character == ZWJ:
        return True
    return unicodedata.category(character)[0] != "C" and character not in _BLANK_LETTERS


def _escaped(line: str) -> str:
    return _unpinged(_SPECIAL.sub(r"\\\1", line))


_CHANGES: dict[str, Callable[[str], str]] = {
    "stray": lambda _: "\\`",
    "small": lambda text: text[:-2] + "\\-#",
    "joint": lambda _: "] ",
    "tag": lambda _: "<" + ZWSP,
    "ping": lambda _: "@" + ZWSP,
    "fence": _block,
    "code": _inline_code,
    "autolink": _autolink,
    "raw": _raw_link,
}
"""What becomes of each kind of markup; what is not here (an escape) stays."""
