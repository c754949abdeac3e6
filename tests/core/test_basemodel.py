"""What makes a base model: the files that loading it needs."""

from __future__ import annotations

from pathlib import Path

from core.basemodel import base_files


def test_only_what_loading_needs_is_a_base(tmp_path: Path) -> None:
    """Weights in safetensors and small files; other formats of the weights and folders are not."""
    wanted = ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer.model"]
    for name in [*wanted, "pytorch_model.bin", "model.gguf", "README.md"]:
        (tmp_path / name).write_text("x", encoding="utf-8")
    (tmp_path / "onnx.json").mkdir()
    assert [path.name for path in base_files(tmp_path)] == wanted
