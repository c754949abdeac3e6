"""The texts people receive: all in one table, none too long, none dead."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import bot.discord.wording as package
from bot.discord.wording.__main__ import Text, table, texts

ROOT = Path(__file__).resolve().parents[3]


def all_texts() -> list[tuple[str, Text]]:
    """Return every text with the name of its area."""
    areas = [info.name for info in pkgutil.iter_modules(package.__path__)]
    return [
        (area, text)
        for area in areas
        if not area.startswith("_")
        for text in texts(importlib.import_module(f"{package.__name__}.{area}"))
    ]


def test_the_page_of_all_messages_is_true_to_the_code() -> None:
    """docs/discord-messages.md is what `python -m bot.discord.wording` prints."""
    page = (ROOT / "docs" / "discord-messages.md").read_text(encoding="utf-8")
    assert page == table()


def test_every_text_fits_into_a_message_and_pings_nobody() -> None:
    """No text of ours is longer than a message may be or mentions everyone."""
    for area, text in all_texts():
        assert len(text.reads) <= 2000, (area, text.name)
        assert "@everyone" not in text.reads, (area, text.name)


def test_every_text_says_who_gets_it_and_when() -> None:
    """Each text carries a note, so that the table can be judged without the code."""
    assert [(area, text.name) for area, text in all_texts() if not text.when] == []


def test_no_text_is_dead() -> None:
    """Each text is used by some feature or another text."""
    code = "\n".join(
        path.read_text(encoding="utf-8") for path in sorted((ROOT / "bot").rglob("*.py"))
    )
    names = {text.name.split(":")[0] for _, text in all_texts()}
    used = {name for name in names if len(re.findall(rf"\b{name}\b", code)) > 1}
    assert sorted(names - used) == []


def test_the_face_imports_no_model() -> None:
    """A process that only speaks to Discord never loads torch, transformers or the trainer's."""
    program = (
        "import sys, bot.discord.serve, bot.world\n"
        "sys.exit(bool({'torch', 'transformers', 'peft', 'trl'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert done.returncode == 0
