"""Templates, and how figures, times and people's words become HTML.

Invariant: everything is escaped unless it went through `render_text`, which turns Markdown into a
few harmless elements: no HTML of the writer's own, no images, no links but to web and mail.
"""

from __future__ import annotations

from pathlib import Path

import nh3
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from bot.console.assets import Asset
from bot.console.words import STATE_WORDS, age, number, percent, plural, seconds, sentence
from bot.plain import stage

_TAGS = {
    *("p", "br", "hr", "strong", "em", "del", "blockquote", "code", "pre", "ul", "ol", "li", "a"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
}
_ATTRIBUTES = {"a": {"href"}, "ol": {"start"}}
_LINKS = {"http", "https", "mailto"}


def make_templates(assets: dict[str, Asset]) -> Environment:
    """Return the console's templates; a name that is not given is an error, never a blank."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = lambda name: f"/static/{name}?v={assets[name].version}"
    environment.globals["plural"] = plural
    environment.globals["state_words"] = STATE_WORDS
    environment.filters |= {
        "age": age,
        "number": number,
        "percent": percent,
        "plural": plural,
        "seconds": seconds,
        "sentence": sentence,
        "stage": stage,
        "text": render_text,
    }
    return environment


def render_text(text: str) -> Markup:
    """Turn what a person or the bot wrote into HTML that can do no harm."""
    html = _MARKDOWN.render(text)
    clean = nh3.clean(
        html,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes=_LINKS,
        link_rel="noopener noreferrer nofollow",
    )
    return Markup(clean)  # noqa: S704 # nh3 has cleaned it


_MARKDOWN = (
    MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": 20})
    .enable(["table", "strikethrough"])
    .disable("image")
)
