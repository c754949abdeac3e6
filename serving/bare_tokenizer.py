"""A base's tokenizer and chat template without torch: what counting a chat's tokens takes.

The tokenizer is the library's own (`tokenizers`), the template is rendered by transformers' own
function, of which no part loads torch. A base without `tokenizer.json` goes the long way, through
transformers, which does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.basemodel import BaseModel
from core.errors import ModelError
from serving.prompt import Tokenizer

_FILE = "tokenizer.json"
_CONFIG = "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"


class BareTokenizer:
    """The three things serving.prompt asks of a tokenizer."""

    def __init__(self, directory: Path) -> None:
        config = _read_config(directory)
        self._fast: Any = _read_tokenizer(directory / _FILE)
        self._template = _template_in(directory, config)
        self._special: dict[str, Any] = {
            key: value["content"] if isinstance(value, dict) else value
            for key, value in config.items()
            if key.endswith("_token") and isinstance(value, dict | str)
        }

    def __call__(self, text: str, *, add_special_tokens: bool, verbose: bool) -> Any:
        """Return a mapping with `input_ids`."""
        encoded = self._fast.encode(text, add_special_tokens=add_special_tokens)
        return {"input_ids": list(encoded.ids)}

    def decode(self, token_ids: list[int]) -> str:
        """Return the text of tokens, special ones too."""
        return str(self._fast.decode(token_ids, skip_special_tokens=False))

    def apply_chat_template(
        self, conversation: Any, *, add_generation_prompt: bool, tokenize: bool
    ) -> str:
        """Return a chat as one text; raises jinja2.TemplateError."""
        from transformers.utils.chat_template_utils import render_jinja_template

        rendered: Any = render_jinja_template(
            [conversation],
            chat_template=self._template,
            add_generation_prompt=add_generation_prompt,
            **self._special,
        )
        return str(rendered[0][0])


def open_tokenizer(base: BaseModel) -> Tokenizer:
    """Open a base's tokenizer, without torch where its files allow it. Raises ModelError."""
    bare = (base.path / _FILE).is_file() and _template_in(base.path, _read_config(base.path))
    return BareTokenizer(base.path) if bare else open_whole_tokenizer(base)


def open_whole_tokenizer(base: BaseModel) -> Tokenizer:
    """Open it as training does, through transformers; this loads torch. Raises ModelError."""
    from serving.base import load_tokenizer

    loaded: Any = load_tokenizer(base)
    tokenizer: Tokenizer = loaded
    return tokenizer


def _read_tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer as Fast

    try:
        fast = Fast.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ModelError(f"{path}: the tokenizer cannot be read: {error}") from error
    fast.no_truncation()
    return fast


def _template_in(directory: Path, config: dict[str, Any]) -> str:
    """Return the chat template; empty where there is none, or several."""
    file, kept = directory / _TEMPLATE, config.get("chat_template")
    if file.is_file():
        return file.read_text(encoding="utf-8")
    return kept if isinstance(kept, str) else ""


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / _CONFIG
    try:
        found: Any = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}
