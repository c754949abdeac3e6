"""A tokenizer without torch counts and renders as transformers' own does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from core.basemodel import BaseModel
from core.errors import ModelError
from core.generation import Message
from serving.bare_tokenizer import BareTokenizer, open_tokenizer
from serving.prompt import fit_prompt, render

CHAT = (
    Message("user", "Where is Bern? 🗺 ÄÖ  two  spaces"),
    Message("assistant", "In Switzerland.\n"),
    Message("user", "<|im_end|> and?"),
)


def test_it_reads_a_chat_as_transformers_does(tiny_model: Path) -> None:
    """The same ids, special words and all; the same text from ids."""
    whole = AutoTokenizer.from_pretrained(tiny_model)
    bare = BareTokenizer(tiny_model)
    ids = render(bare, CHAT)
    assert ids == render(whole, CHAT)
    assert bare.decode(list(ids)) == whole.decode(list(ids))
    assert fit_prompt(bare, CHAT, 80) == fit_prompt(whole, CHAT, 80)


def test_a_base_without_its_files_goes_the_long_way(tiny_base: BaseModel, tmp_path: Path) -> None:
    """One that cannot be read at all is refused in a sentence."""
    assert isinstance(open_tokenizer(tiny_base), BareTokenizer)
    nothing = BaseModel("nothing", tmp_path, "0" * 64)
    with pytest.raises(ModelError, match=r"tokenizer_config.json: cannot be read"):
        BareTokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ModelError, match="the tokenizer cannot be loaded"):
        open_tokenizer(nothing)
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="the tokenizer cannot be read"):
        open_tokenizer(nothing)


def test_it_loads_no_torch(tiny_model: Path) -> None:
    """In a process of its own."""
    script = (
        "import sys; from pathlib import Path; from core.generation import Message\n"
        "from serving.bare_tokenizer import BareTokenizer; from serving.prompt import render\n"
        f"render(BareTokenizer(Path({str(tiny_model)!r})), [Message('user', 'hi')])\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "False", done.stderr
