"""Print every text a person can receive on Discord as a Markdown table: docs/discord-messages.md.

`python -m bot.discord.wording > docs/discord-messages.md`. A function is shown with example
arguments, a word for each, so that its sentence can be read.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import bot.discord.wording as package

HEAD = """# Every message a person can receive on Discord

Made by `python -m bot.discord.wording` from the modules in `bot/discord/wording/`; a test keeps it
true. Words in ‹angle marks› and the figures stand for what the moment brings.
"""


@dataclass(frozen=True, slots=True)
class Text:
    """One text: its name, who gets it and when, and how it reads."""

    name: str
    when: str
    reads: str


def texts(module: ModuleType) -> Iterator[Text]:
    """Yield the texts of one area in the order they are written."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    for number, node in enumerate(tree.body):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield Text(node.name, _first_line(ast.get_docstring(node)), _example(module, node.name))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            name = target.id if isinstance(target, ast.Name) else "_"
            value = getattr(module, name, None)
            if not name.startswith("_") and isinstance(value, str):
                yield Text(name, _note_after(tree.body, number), value)
            elif not name.startswith("_") and isinstance(value, dict):
                for key, one in value.items():
                    if isinstance(one, str):
                        yield Text(f"{name}: {key}", _note_after(tree.body, number), one)


def table() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for info in pkgutil.iter_modules(package.__path__):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        parts.append(f"## {info.name}\n\n{_first_line(module.__doc__)}\n")
        parts.append("| name | when | text |\n| --- | --- | --- |")
        parts.append("\n".join(_row(text) for text in texts(module)) + "\n")
    return "\n".join(parts)


def _row(text: Text) -> str:
    cells = (f"`{text.name}`", text.when, text.reads)
    return (
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"
    )


def _example(module: ModuleType, name: str) -> str:
    """Call a text's function with example arguments; what cannot be shown so says so."""
    function: Any = getattr(module, name)
    signature = inspect.signature(function)
    values = {
        parameter.name: _value(parameter.name, str(parameter.annotation))
        for parameter in signature.parameters.values()
        if parameter.default is inspect.Parameter.empty
    }
    positional = [
        values.pop(parameter.name)
        for parameter in signature.parameters.values()
        if parameter.name in values and parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    try:
        return str(function(*positional, **values))
    except Exception:
        return "(put together from figures; see its code)"  # a table must not fail on one text


def _value(name: str, annotation: str) -> object:
    examples: dict[str, object] = {"int": 3, "float": 0.5, "bool": True, "str": f"‹{name}›"}
    if annotation in examples:
        return examples[annotation]
    if annotation.startswith(("Sequence[str]", "list[str]", "tuple[str", "Iterable[str]")):
        return (f"‹{name}›",)
    if annotation.startswith(("dict[str, int]", "Mapping[str, int]")):
        return {f"‹{name}›": 3}
    return None if "None" in annotation else f"‹{name}›"


def _note_after(body: list[ast.stmt], number: int) -> str:
    """Return the string that stands under a constant and explains it."""
    after = body[number + 1] if number + 1 < len(body) else None
    said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    return _first_line(str(after.value.value)) if said else ""  # type: ignore[union-attr]


def _first_line(text: str | None) -> str:
    return " ".join((text or "").strip().split("\n\n")[0].split())


if __name__ == "__main__":
    sys.stdout.write(table())
