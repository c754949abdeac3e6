"""A vLLM server is looked at before it answers for us, and after it may have changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from bot.web.server import serving as http_serving
from core.basemodel import BaseModel
from core.errors import (
    ModelError,
)
from tests.serving.vllm_side import (
    engine_for,
)
from tests.tiny import make_tiny_model
from tests.vllm_double import VllmDouble

pytestmark = pytest.mark.usefixtures("hasty")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"root": "other/model"}, "its base is 'other/model', expected .*serving.vllm_base"),
        ({"max_model_len": 128}, "takes 128 tokens.* --max-model-len 512"),
        ({"runtime_loras": False}, "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"),
        ({"enable_lora": False}, "--enable-lora"),
        ({"max_lora_rank": 8}, "rank 8 at most, training.lora_rank is 16.*--max-lora-rank 16"),
        ({"api_key": "secret"}, "set THUMBTUNE_REMOTE_KEY"),
        (
            {"chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}"},
            "reads a chat otherwise.*--chat-template",
        ),
    ],
)
async def test_a_server_that_does_not_fit_is_refused_at_the_start(
    tiny_base: BaseModel, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    """Each with what to change."""
    async with VllmDouble(tiny_base, **options) as vllm:
        with pytest.raises(ModelError, match=said):
            async with engine_for(vllm, tmp_path):
                pass


async def test_a_base_under_another_name_is_taken_where_it_is_said(
    tiny_base: BaseModel, tmp_path: Path
) -> None:
    """`serving.vllm_base` is vLLM's `root`; a key that is right is let in."""
    async with VllmDouble(tiny_base, root="/models/of/ours", api_key="k") as vllm:
        async with engine_for(vllm, tmp_path, vllm_base="/models/of/ours", key="k") as engine:
            assert await engine.look() == (
                "/models/of/ours as 'tiny-base', 512 tokens, adapters up to rank 16"
            )
        with pytest.raises(ModelError, match="expected /models/x"):
            async with engine_for(vllm, tmp_path, vllm_base="/models/x", key="k"):
                pass


async def test_nobody_and_somebody_else_are_refused(tiny_base: BaseModel, tmp_path: Path) -> None:
    """No server, and one that is no vLLM."""
    nobody = VllmDouble(tiny_base)
    nobody._port = 1
    with pytest.raises(ModelError, match=r"is lost.*`vllm serve`"):
        async with engine_for(nobody, tmp_path):
            pass
    app = FastAPI()

    @app.get("/v1/models")
    async def models() -> Any:
        return {"data": [{"id": "x"}]}

    async with http_serving(app, host="127.0.0.1", port=0) as url:
        nobody._port = int(url.rpartition(":")[2])
        with pytest.raises(ModelError, match="is not what vLLM answers"):
            async with engine_for(nobody, tmp_path):
                pass


async def test_another_base_of_the_same_name_is_told_by_its_tokens(
    tiny_base: BaseModel, tmp_path: Path
) -> None:
    """A chat becomes other tokens there."""
    other = make_tiny_model(tmp_path / "other")
    (other / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    odd = replace(tiny_base, path=other)
    async with VllmDouble(odd, root=f"/mnt/{tiny_base.path.name}") as vllm:
        with pytest.raises(ModelError, match="reads a chat otherwise"):
            async with engine_for(vllm, tmp_path, base=tiny_base):
                pass
