"""The same requests through llama.cpp, on the 4-bit file that the default model came from.

Streamed chat completions one after another: the Python binding writes one reply at a time. Its own
defaults stand where a request says nothing (top_k 40 and min_p 0.05, which make it faster), and it
keeps the beginning a prompt shares with the last one, as our engine does. Runs in a process of its
own.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from core.basemodel import BaseModel
from core.generation import BASE, GenerationRequest, Message, Sampling

THREADS = 2
CONTEXT_TOKENS = 2048
NOT_INSTALLED = "not installed: run make bench-setup"
_WARM_UP = GenerationRequest((Message("user", "Hello!"),), BASE, Sampling(max_tokens=4, seed=0))
_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def installed() -> bool:
    """Say whether the Python binding is here."""
    return importlib.util.find_spec("llama_cpp") is not None


def tokens_per_s(requests: Sequence[GenerationRequest], lora: Path | None = None) -> float:
    """Return tokens/s over the requests one after another, with the base or one adapter."""
    llm = _llm(lora)
    before, began = llm.drawn, time.perf_counter()
    for request in requests:
        for _ in llm.pieces(request):
            pass
    return (llm.drawn - before) / (time.perf_counter() - began)


def first_token_s(request: GenerationRequest) -> float:
    """Return the seconds until the base's first piece of text."""
    llm, began = _llm(None), time.perf_counter()
    pieces = llm.pieces(request)
    next(pieces, None)
    took = time.perf_counter() - began
    for _ in pieces:
        pass
    return took


def write_lora(adapter: Path, base: BaseModel, target: Path) -> Path:
    """Write a PEFT adapter on a model of the llama family as a GGUF file for llama.cpp."""
    from gguf import GGUFWriter
    from safetensors.torch import load_file

    config = json.loads((base.path / "config.json").read_text(encoding="utf-8"))
    alpha = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["lora_alpha"]
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    writer = GGUFWriter(target, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(alpha))
    for key, tensor in load_file(adapter / "adapter_model.safetensors").items():
        layer, module, side = _parts(key)
        name, values = _NAMES[module], tensor.float().numpy()
        if side == "b" and name in heads:
            values = _permuted(values, heads[name])
        writer.add_tensor(f"blk.{layer}.{name}.weight.lora_{side}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _parts(key: str) -> tuple[str, str, str]:
    """Split `base_model.model.model.layers.3.mlp.up_proj.lora_A.weight` into 3, module and a."""
    layer, rest = key.split(".layers.")[1].split(".", 1)
    module, side = rest.removesuffix(".weight").rsplit(".lora_", 1)
    return layer, module, side.lower()


def _permuted(rows: Any, heads: int) -> Any:
    """Put the rows of each head in llama.cpp's order of rotary pairs, as its conversion does."""
    halves = rows.reshape(heads, 2, -1, *rows.shape[1:])  # (heads, 2, head_dim / 2, rank)
    return halves.swapaxes(1, 2).reshape(rows.shape)


class _Llm:
    """A loaded model that counts the tokens it has drawn, those that end a reply included."""

    def __init__(self, lora: Path | None) -> None:
        from llama_cpp import Llama

        from serving.base import _bundled_file

        self.drawn = 0
        self._llama = Llama(
            str(_bundled_file()),
            n_ctx=CONTEXT_TOKENS,
            n_threads=THREADS,
            n_threads_batch=THREADS,
            lora_path=str(lora) if lora else None,
            verbose=False,
        )
        draw = self._llama.generate

        def counted(*args: Any, **more: Any) -> Iterator[int]:
            for token in draw(*args, **more):
                self.drawn += 1
                yield token

        self._llama.generate = counted
        list(self.pieces(_WARM_UP))

    def pieces(self, request: GenerationRequest) -> Iterator[str]:
        """Stream a reply's pieces of text."""
        chunks = self._llama.create_chat_completion(
            [{"role": one.role, "content": one.content} for one in request.messages],
            stream=True,
            temperature=request.sampling.temperature,
            top_p=request.sampling.top_p,
            max_tokens=request.sampling.max_tokens,
            seed=request.sampling.seed,
            repeat_penalty=1.0,
        )
        for chunk in chunks:
            if piece := chunk["choices"][0]["delta"].get("content"):
                yield piece


@cache
def _llm(lora: Path | None) -> _Llm:
    return _Llm(lora)
