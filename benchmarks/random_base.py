"""Make a base model with random weights, to measure speed at a size.

A Llama with the default model's tokenizer and 1.2 billion parameters unless told otherwise, saved
as any base is, and beside it a config.toml that names it. For speed the weights do not matter. On a
machine with a GPU, with the peers installed:

    python -m benchmarks.random_base var/random-1b
    THUMBTUNE_CONFIG=var/random-1b/config.toml python -m benchmarks.serving --json --record
    THUMBTUNE_CONFIG=var/random-1b/config.toml python -m benchmarks.training --json --record
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.common import default_world


def make_random_base(directory: Path, *, hidden: int, layers: int, inner: int) -> int:
    """Write the model, tokenizer and config.toml; return the number of parameters."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(default_world()[1].path)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=max(1, hidden // 256),
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    source = json.dumps(str(directory.resolve()))
    (directory / "config.toml").write_text(f"[model]\nsource = {source}\n", encoding="utf-8")
    return int(model.num_parameters())


def main() -> None:
    """Make one and say what to do with it."""
    parser = argparse.ArgumentParser(description="Make a base model with random weights.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--inner", type=int, default=7168)
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    count = make_random_base(
        options.directory, hidden=options.hidden, layers=options.layers, inner=options.inner
    )
    print(f"{count / 1e9:.2f} billion parameters in {options.directory}; now, for example:")
    config = options.directory / "config.toml"
    for name in ("serving", "training"):
        print(f"  THUMBTUNE_CONFIG={config} python -m benchmarks.{name} --json --record")


if __name__ == "__main__":
    main()
