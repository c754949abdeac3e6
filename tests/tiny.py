"""A tiny real model for tests: a two-layer Llama with a byte tokenizer, saved as any base model is.

Random weights, float32, made in under a second; no download. Adapters made here are real PEFT
adapters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_byte_tokenizer() -> Any:
    """Return a tokenizer with a token for each byte and three special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(special + alphabet)}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        bos_token="<|im_start|>",
        additional_special_tokens=special[:1],
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_tiny_model(directory: Path, seed: int = 0, hidden: int = 64, layers: int = 2) -> Path:
    """Write a tiny Llama and its tokenizer to `directory`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_byte_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
    )
    model: Any = LlamaForCausalLM(config)
    model = model.to(torch.float32)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def make_tiny_adapter(
    directory: Path, base: Path, seed: int, rank: int = 4, scale: float = 0.3
) -> Path:
    """Write a PEFT LoRA adapter with random (not zero) weights to `directory`; no manifest yet."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=TARGETS, task_type="CAUSAL_LM")
    peft_model = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in peft_model.named_parameters():
        if "lora_" in name:
            parameter.data = (
                scale
                * torch.randn(parameter.shape, generator=generator)
                / parameter.shape[1] ** 0.5
            )
    peft_model.save_pretrained(str(directory), safe_serialization=True)
    (directory / "README.md").unlink(missing_ok=True)
    return directory


def publish_tiny_adapter(
    directory: Path,
    base: Path,
    name: str,
    seed: int,
    base_sha256: str = "0" * 64,
    scale: float = 0.3,
) -> Path:
    """Write a complete published adapter (PEFT files and manifest) to `directory`."""
    from core.manifest import MANIFEST, describe_directory

    make_tiny_adapter(directory, base, seed, scale=scale)
    manifest = describe_directory(
        directory,
        name=name,
        base_model="tiny",
        base_sha256=base_sha256,
        run_id="run_test",
        recipe="kto",
        created_at="2026-01-01T00:00:00.000000Z",
    )
    (directory / MANIFEST).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    return directory
