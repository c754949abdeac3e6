"""Text for Discord: pages keep every word, and nothing a model writes can do harm."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bot.discord.text import (
    bar,
    duration,
    excerpt,
    pages,
    plain_name,
    safe,
    shown_name,
)
from core.errors import InvalidInput

PIECES = st.lists(
    st.one_of(
        st.sampled_from(["\n", "\n\n", " ", "```py\n", "\n```\n", "```", "``", "`", ". ", "\\"]),
        st.sampled_from(["👩‍👩‍👧", "🇩🇪", "é", "word", "a" * 90, "    indented()"]),
        st.text(max_size=12),
    ),
    max_size=60,
).map("".join)
HARM = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "@everyone",
                "@here",
                "<@1234567890>",
                "<@&12>",
                "<#12>",
                "</x:12>",
                "<t:12>",
                "<id:a>",
            ]
        ),
        st.sampled_from(
            ["[", "]", "(", ")", "](https://e.x)", "[a](https://e.x)", "https://e.x/", "<", ">"]
        ),
        st.sampled_from(["`", "``", "```", "````", "\\", "\n", " ", "-# ", "- ", "*", "**", "#"]),
        st.sampled_from(
            ["discord.gg/abc", "https://discord.com/invite/x", "!", "\u202e", "a", ":/"]
        ),
        st.text(max_size=3),
    ),
    max_size=25,
).map("".join)
CODE = re.compile(r"\\[\\`\[]|```[\s\S]*?(?:```|\Z)|(?<!`)(`{1,2})(?!`)[^\n]*?[^`\n]\1(?!`)")


def units(text: str) -> int:
    """The size as Discord's clients count it."""
    return len(text.encode("utf-16-le")) // 2


def outside_code(text: str) -> str:
    """What Discord parses for markup."""
    return CODE.sub(lambda m: m.group() if m.group()[0] == "\\" else " ", text)


@given(PIECES, st.integers(64, 200))
@example("`" * 300, 64)
@example("```py\n" + "x" * 200, 64)
def test_every_page_fits_and_closes_its_fences(text: str, limit: int) -> None:
    """No page is longer than the limit, blank, or leaves a fence open."""
    for page in pages(text, limit=limit):
        assert units(page) <= limit
        assert page.strip()
        assert page.count("```") % 2 == 0


@given(PIECES, st.integers(64, 200), st.data())
def test_a_page_once_left_is_never_rewritten(text: str, limit: int, data: st.DataObject) -> None:
    """All pages but the last of any prefix are the whole text's own."""
    prefix = text[: data.draw(st.integers(0, len(text)))]
    left = pages(prefix, limit=limit)[:-1]
    assert pages(text, limit=limit)[: len(left)] == left
    assert len(pages(prefix, limit=limit)) <= len(pages(text, limit=limit))


@given(st.text(max_size=600), st.integers(64, 200))
def test_no_text_is_lost(text: str, limit: int) -> None:
    """Without fences, the pages side by side are the text, but for whitespace."""
    text = text.replace("`", "'")
    assert "".join("".join(pages(text, limit=limit)).split()) == "".join(text.split())


@given(st.lists(st.sampled_from(["w", "```", "\n", "\n\n", "```py\n", "``"]), max_size=200))
def test_no_word_is_lost_among_fences(kinds: list[str]) -> None:
    """Numbered words come out in order and once, however fences fall."""
    text = " ".join(f"w{n}" if kind == "w" else kind for n, kind in enumerate(kinds))
    found = re.findall(r"w\d+", " ".join(pages(text, limit=64)))
    assert found == re.findall(r"w\d+", text)


def test_a_block_cut_by_the_border_goes_on_in_its_language() -> None:
    """The fence is closed, opened again with the language, and its own end is not repeated."""
    lines = [f"line_{n:02} = {n}" for n in range(12)]
    text = "See:\n```py\n" + "\n".join(lines) + "\n```\nDone."
    found = pages(text, limit=100)
    assert all(page.endswith("\n```") for page in found[:-1])
    assert all(page.startswith("```py\nline_") for page in found[1:])
    assert [line for page in found for line in page.split("\n") if "line" in line] == lines
    assert found[-1].endswith("\n```\nDone.")


def test_a_block_that_ends_at_the_border_leaves_no_empty_block_behind() -> None:
    """The added end of the fence stands for the text's own."""
    body = "```py\n" + "x" * 54
    assert pages(body + "\n```\nafter all", limit=64) == [body + "\n```", "after all"]


def test_pages_break_where_a_reader_would() -> None:
    """Paragraph before line, line before sentence, sentence before word."""
    first, second = "a" * 20 + ". " + "b" * 20, "c" * 40
    assert pages(f"{first}\n\n{second}", limit=64) == [first, second]
    assert pages("One two three. " * 6, limit=64)[0].endswith("three.")
    assert pages("word " * 30, limit=64)[0].endswith("word")


def test_pages_keep_inline_code_and_characters_whole() -> None:
    """A space inside inline code is no break, and a family of emoji is one character."""
    assert pages("a" * 40 + " `x y z w` " + "b" * 30, limit=64)[0] == "a" * 40 + " `x y z w`"
    assert all("👩‍👧".startswith(page[:1]) for page in pages("👩‍👧" * 60, limit=64))


@pytest.mark.parametrize("text", ["", " \n\t\n"])
def test_nothing_makes_no_page(text: str) -> None:
    """Whitespace is no message."""
    assert pages(text) == []


def test_a_page_too_small_to_hold_a_fence_is_refused() -> None:
    """The message says what would do."""
    with pytest.raises(InvalidInput, match="at least 64"):
        pages("x", limit=10)


@given(HARM)
def test_safe_is_idempotent_and_leaves_nothing_armed(text: str) -> None:
    """A second pass changes nothing, and outside code no ping, mask or small text is left."""
    once = safe(text)
    assert safe(once) == once
    shown = outside_code(once)
    assert "@everyone" not in shown
    assert "<@1" not in shown
    assert not re.search(r"\]\(https?:", shown)
    assert not re.search(r"^-# ", shown, re.MULTILINE)
    assert "\u202e" not in once


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hi @everyone", "hi @\u200beveryone"),
        ("<@123> <@!123> <@&123>", "<@\u200b123> <@\u200b!123> <@\u200b&123>"),
        (
            "<#12> </ban:12> <t:12:R> <id:guide>",
            "<\u200b#12> <\u200b/ban:12> <\u200bt:12:R> <\u200bid:guide>",
        ),
        ("<:ok:123> <a:ok:123>", "<:ok:123> <a:ok:123>"),
        ("[docs](https://e.x/a_(b))", "docs (<https://e.x/a_(b)>)"),
        ('[docs](<https://e.x> "title")', "docs (<https://e.x>)"),
        ("![cat](https://e.x/c.png)", "cat (<https://e.x/c.png>)"),
        ("[https://a.x](https://b.x)", "<https://a.x> (<https://b.x>)"),
        ("[https://a.x](https://a.x)", "<https://a.x>"),
        ("[`https://a.x`](https://b.x)", "`https://a.x` (<https://b.x>)"),
        ("[a] b](https://b.x)", "[a] b] (https://b.x)"),
        ("\\```[a](https://b.x)```", "\\`\\`\\`a (<https://b.x>)```"),
        ("**`a** [x](https://b.x) `", "**\\`a** x (<https://b.x>) \\`"),
        ("https://a.x` [a](https://b.x) `", "https://a.x%60 a (<https://b.x>) \\`"),
        ("-# stopped", "\\-# stopped"),
        ("> -# stopped", "> \\-# stopped"),
        ("-[# x](https://b.x)", "\\-# x (<https://b.x>)"),
        ("join discord.gg/abc.", "join <https://discord.gg/abc>."),
        ("https://discord.com/invite/abc!", "<https://discord.com/invite/abc>!"),
        ("<https://discord.gg/abc>", "<https://discord.gg/abc>"),
        ("a\u202eb\x07c\r\nd\te", "abc\nd\te"),
        ("`@everyone [a](https://b.x)`", "`@everyone [a](https://b.x)`"),
        ("```\n-# @here\n```", "```\n-# @here\n```"),
        ("```py\n@here", "```py\n@here"),
        ("a `half", "a \\`half"),
        ("array[0](x), a*b, 5 < 6", "array[0](x), a*b, 5 < 6"),
        ("```\n```@here```\nx", "```\n\u200b\n```@\u200bhere```\nx"),
    ],
)
def test_what_a_model_wrote_is_made_harmless(text: str, shown: str) -> None:
    """Pings and masks are broken, links say where they lead, code stays as it is."""
    assert safe(text) == shown


@given(HARM)
def test_safe_takes_any_prefix(text: str) -> None:
    """Text that is still being written, cut anywhere, is harmless too."""
    for end in range(len(text)):
        assert "@everyone" not in outside_code(safe(text[:end]))


@pytest.mark.parametrize(
    "text", ["[" * 4000, "\\a" * 4000, "<a" * 2000, "`a " * 3001, "[a](b:" * 900]
)
@pytest.mark.timeout(5)
def test_safe_is_quick_on_hostile_text(text: str) -> None:
    """No text makes the scanner backtrack for seconds."""
    assert safe(text)


def test_a_streamed_reply_made_safe_never_rewrites_a_page() -> None:
    """Token by token, links, code and pings of a long reply leave the finished pages alone."""
    body = "return x  # @everyone [a](https://b.x)"
    code = "\n".join(f"def f{n}(x):\n    {body}" for n in range(60))
    prose = "It is `in line`, **so** [see](https://e.x/a) discord.gg/abc, @here. " * 40
    text = f"Here:\n\n- one\n\n```python\n{code}\n```\n\n" + prose.replace(". ", ".\n")
    whole = pages(safe(text))
    assert len(whole) > 3
    for end in range(0, len(text), 7):
        left = pages(safe(text[:end]))[:-1]
        assert whole[: len(left)] == left


def test_a_name_is_one_plain_line() -> None:
    """Newlines, control and invisible characters go; an empty name is someone."""
    assert plain_name(" Ada\nLove\u202elace\x00 ") == "Ada Lovelace"
    assert plain_name("\u200b\u3164\n") == "someone"
    assert plain_name("x" * 40) == "x" * 32


def test_a_shown_name_formats_and_pings_nothing() -> None:
    """Its markdown is escaped and a mass mention broken."""
    assert shown_name("*Ada*_[x]") == r"\*Ada\*\_\[x\]"
    assert "@everyone" not in shown_name("@everyone")


@given(st.text(max_size=200), st.integers(1, 80))
def test_an_excerpt_is_one_line_within_its_limit(text: str, limit: int) -> None:
    """Whatever the text, it fits, and no line break is left."""
    found = excerpt(text, limit)
    assert units(found) <= limit
    assert len(found.splitlines()) <= 1


def test_an_excerpt_is_cut_with_an_ellipsis_and_splits_no_escape() -> None:
    """The cut counts the backslashes it adds."""
    assert excerpt("one\ntwo", 20) == "one two"
    assert excerpt("a*b*c", 5) == "a\\*b…"
    assert excerpt("a*b*c", 3) == "a…"


def test_a_bar_and_a_duration_read_well() -> None:
    """Ends are clipped, and two units are enough."""
    assert bar(0.5, 4) == "▰▰▱▱"
    assert (bar(2.0, 2), bar(-1.0, 2), bar(float("nan"), 2)) == ("▰▰", "▱▱", "▱▱")
    assert [duration(s) for s in (0.2, 45, 80, 3600, 11100, 187200)] == [
        "0 s",
        "45 s",
        "1 min 20 s",
        "1 h",
        "3 h 5 min",
        "2 d 4 h",
    ]
