"""The base model and the LoRA adapter of a job: where they run, in which precision, how they are
saved.

The base is frozen and never written. Adapter weights are float32 while they are trained, and of the
type they are served in in what a job hands out.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from torch import distributed
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from core.errors import InvalidInput, ModelError
from core.jobs import JobSpec
from core.manifest import CONTENT_FILES, PEFT_CONFIG, WEIGHTS
from core.processors import AMD, told


def choose_device(wanted: str) -> str:
    """Return `cuda`, `mps` or `cpu`; raises InvalidInput if what is asked for is not there."""
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return next(kind for kind, present in there.items() if present)
    kind = wanted.partition(":")[0]
    if not there.get(kind):
        raise InvalidInput(
            f"device {wanted!r}: not on this machine; use auto or one of {list(there)}"
        )
    return kind


def served_dtype(wanted: str, device: str) -> torch.dtype:
    """Return the type replies are served in; `auto` is bfloat16 where the processor has it, float32
    elsewhere.

    Not float16: its range is too small for training without a loss scaler.
    """
    if wanted != "auto":
        return getattr(torch, wanted)  # type: ignore[no-any-return]
    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device == "mps" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def job_dtype(wanted: str, device: str) -> torch.dtype:
    """Return the type a job computes in: the served one, but for `auto` on x86 without AMX.

    There a product of bfloat16 takes up to twice as long as one of float32, unless AMD made the
    processor, where it takes half as long (docs/decisions/014).
    """
    served = served_dtype(wanted, device)
    bare = torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()
    slow = device == "cpu" and bare and told("vendor_id") != AMD
    return torch.float32 if wanted == "auto" and slow else served


def load_base(spec: JobSpec) -> Any:
    """Load the frozen base model on its device; raises ModelError.

    Where devices are to share it out it stays in the CPU's memory: each takes its part from there.
    """
    device = choose_device(spec.device)
    dtype = job_dtype(spec.dtype, device)
    shared = spec.sharding == "fsdp" and distributed.is_initialized()
    placed: dict[str, Any] = {}
    if spec.load_in_4bit:
        placed = _in_4_bits(dtype, device)
    elif spec.sharding == "fsdp" and device == "cuda" and not shared:
        placed = {"device_map": "auto"}  # alone with all of them: some layers on each
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(spec.base_path, dtype=dtype, **placed)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"base model {spec.base_path}: cannot be loaded: {error}") from error
    model.config.use_cache = False
    return model if placed or shared else model.to(device)


def _in_4_bits(dtype: torch.dtype, device: str) -> dict[str, Any]:
    """Return how a base is loaded in 4 bits: nf4, its constants quantized too, multiplied in
    `dtype` (QLoRA, Dettmers et al. 2023).

    Embeddings, norms and head stay in `dtype`: what peft's `prepare_model_for_kbit_training` would
    raise to float32 takes 4 GiB of an 8B base, and nothing of it is trained.
    """
    if find_spec("bitsandbytes") is None:
        raise InvalidInput(
            "training.load_in_4bit needs bitsandbytes, which is not installed; "
            "pip install 'thumbtune[gpu]', or set it to false"
        )
    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    where: Any = torch.cuda.current_device() if device == "cuda" else device
    return {"quantization_config": config, "device_map": {"": where}}


def load_tokenizer(spec: JobSpec) -> Any:
    """Load the base's tokenizer; pads with the end token where it has no padding token."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(spec.base_path)
    except (OSError, ValueError) as error:
        raise ModelError(f"tokenizer of {spec.base_path}: cannot be loaded: {error}") from error
    if tokenizer.chat_template is None:
        raise ModelError(f"{spec.base_path}: its tokenizer has no chat template; use a chat model")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def lora_config(spec: JobSpec) -> LoraConfig:
    """Return the adapter's shape: every linear layer but the head."""
    return LoraConfig(
        r=spec.lora_rank,
        lora_alpha=spec.lora_alpha,
        lora_dropout=spec.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def save_adapter(
    model: PeftModel, directory: Path, base_model: str, weights: dict[str, Any] | None = None
) -> None:
    """Write exactly the adapter's content files; no path of this machine goes into them.

    `weights` are the adapter's where the model holds only its part of them.
    """
    for config in model.peft_config.values():
        config.base_model_name_or_path = Path(base_model).name
        config.inference_mode = True
    model.save_pretrained(
        str(directory), safe_serialization=True, save_embedding_layers=False, state_dict=weights
    )
    for path in directory.iterdir():
        if path.name not in CONTENT_FILES:
            path.unlink()


def whole_weights(model: PeftModel) -> dict[str, Any]:
    """Return what is trained, put together where several devices hold a part each.

    All of them must call this.
    """
    trained = ((name, one) for name, one in model.named_parameters() if one.requires_grad)
    return {
        name: (one.full_tensor() if isinstance(one, DTensor) else one).detach().cpu()
        for name, one in trained
    }


def scale_adapter(model: PeftModel, strength: float) -> None:
    """Multiply what the adapter adds to the base by `strength`, in place."""
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.mul_(strength)


def round_adapter(spec: JobSpec, source: Path, target: Path) -> None:
    """Copy an adapter's content files, its weights rounded to the type they are served in.

    Half the bytes to keep, to hash and to load, where that is bfloat16.
    """
    dtype = served_dtype(spec.dtype, choose_device(spec.device))
    weights = load_file(source / WEIGHTS)
    rounded = {name: tensor.to(dtype) for name, tensor in weights.items()}
    save_file(rounded, target / WEIGHTS, metadata={"format": "pt"})
    shutil.copyfile(source / PEFT_CONFIG, target / PEFT_CONFIG)


def load_trained(spec: JobSpec, directory: Path) -> PeftModel:
    """Load the base with a saved adapter on top, for evaluation."""
    return PeftModel.from_pretrained(load_base(spec), directory, is_trainable=False).eval()


def load_merged(spec: JobSpec, directory: Path, strength: float) -> Any:
    """Load the base with `strength` times a saved adapter in its weights: it answers a quarter
    quicker than with the adapter beside them.

    A base in 4 bits stays as it is.
    """
    model = load_trained(spec, directory)
    scale_adapter(model, strength)
    return model.get_base_model() if spec.load_in_4bit else model.merge_and_unload()
