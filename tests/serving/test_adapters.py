"""Every kind of bad adapter is refused with its reason, and the live one goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from core.basemodel import BaseModel
from core.errors import AdapterRefused
from core.manifest import MANIFEST, PEFT_CONFIG, WEIGHTS, describe_directory
from serving.adapters import read_adapter
from serving.base import load_model
from serving.engine import LocalEngine
from serving.lora import LoadedAdapter, linear_shapes
from tests.serving.reference import NAMES, Reference, greedy

NAME = NAMES[0]
KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
Spoil = Callable[[Path], object]


def seal(directory: Path, base_sha256: str, name: str = NAME) -> None:
    """Write a manifest that fits the files, so that only what follows the hashes can refuse."""
    manifest = describe_directory(
        directory, name=name, base_model="tiny", base_sha256=base_sha256, run_id="run_test",
        recipe="kto", created_at="2026-01-01T00:00:00.000000Z",
    )  # fmt: skip
    (directory / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")


def change_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    """Return a spoiler that edits the tensors."""

    def spoil(directory: Path) -> None:
        tensors = load_file(directory / WEIGHTS)
        change(tensors)
        save_file(tensors, directory / WEIGHTS)

    return spoil


def change_config(**values: Any) -> Spoil:
    """Return a spoiler that edits adapter_config.json."""

    def spoil(directory: Path) -> None:
        path = directory / PEFT_CONFIG
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return spoil


def write(content: bytes, file: str = WEIGHTS) -> Spoil:
    """Return a spoiler that replaces a file."""
    return lambda directory: (directory / file).write_bytes(content)


def flip_byte(directory: Path) -> None:
    """Change one byte in the middle of the weights."""
    raw = bytearray((directory / WEIGHTS).read_bytes())
    raw[len(raw) // 2] ^= 1
    (directory / WEIGHTS).write_bytes(raw)


def truncate(directory: Path) -> None:
    """Cut the weights off in the middle."""
    raw = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(raw[: len(raw) // 2])


def empty(directory: Path) -> None:
    """Remove every file."""
    for path in directory.iterdir():
        path.unlink()


def link_weights(directory: Path) -> None:
    """Put a symbolic link in the place of the weights."""
    target = directory.parent / "elsewhere"
    (directory / WEIGHTS).rename(target)
    (directory / WEIGHTS).symlink_to(target)


BROKEN_AFTER_PUBLISHING: dict[str, tuple[Spoil, str]] = {
    "truncated": (truncate, "SHA-256"),
    "flipped byte": (flip_byte, "SHA-256"),
    "pickle": (write(b"\x80\x04", "adapter_model.bin"), "pickled weights are never read"),
    "empty": (empty, "never completely published"),
    "linked weights": (link_weights, "not a plain file"),
    "garbage manifest": (write(b"\xff{", MANIFEST), "manifest.json"),
    "huge manifest": (write(b" " * (2 << 20), MANIFEST), "expected at most"),
    "no weights": (lambda d: (d / WEIGHTS).unlink(), "missing"),
}

PUBLISHED_WRONG: dict[str, tuple[Spoil, str]] = {
    "NaN": (change_tensors(lambda t: t[KEY].view(-1)[3:4].fill_(float("nan"))), "1 values are NaN"),
    "infinite": (change_tensors(lambda t: t[KEY].fill_(float("inf"))), "NaN or infinite"),
    "shape": (
        change_tensors(lambda t: t.update({KEY: torch.zeros(4, 63)})),
        r"q_proj.lora_A.weight: shape is \[4, 63\], expected \[4, 64\]",
    ),
    "dtype": (change_tensors(lambda t: t.update({KEY: t[KEY].int()})), "dtype is I32, expected"),
    "double": (change_tensors(lambda t: t.update({KEY: t[KEY].double()})), "dtype is F64"),
    "missing tensor": (change_tensors(lambda t: t.pop(KEY)), "q_proj.lora_A.weight is missing"),
    "extra tensor": (
        change_tensors(lambda t: t.update({"base_model.model.lm_head.weight": torch.zeros(2)})),
        "lm_head.weight is not expected",
    ),
    "truncated before sealing": (truncate, "not a readable safetensors file"),
    "no file at all": (write(b""), "header claims"),
    "huge header": (write(b"\xff" * 8 + b"{}"), "header claims"),
    "garbage header": (write((16).to_bytes(8, "little") + b"x" * 64), "not a readable safetensors"),
    "deep header": (
        write((60000).to_bytes(8, "little") + b"[" * 60000), "not a readable safetensors"
    ),
    "config not JSON": (write(b"{", PEFT_CONFIG), "not valid JSON"),
    "config deep": (write(b"[" * 500_000, PEFT_CONFIG), "not valid JSON"),
    "config a list": (write(b"[]", PEFT_CONFIG), "expected 'LORA'"),
    "other method": (change_config(peft_type="IA3"), "peft_type is 'IA3'"),
    "modules_to_save": (change_config(modules_to_save=["lm_head"]), "modules_to_save"),
    "DoRA": (change_config(use_dora=True), "use_dora"),
    "bias": (change_config(bias="all"), "bias"),
    "rank_pattern": (change_config(rank_pattern={"q_proj": 8}), "rank_pattern"),
    "alpha_pattern": (change_config(alpha_pattern={"q_proj": 8}), "alpha_pattern"),
    "some layers": (change_config(layers_to_transform=[0]), "layers_to_transform"),
    "transposed": (change_config(fan_in_fan_out=True), "fan_in_fan_out"),
    "changed base": (change_config(init_lora_weights="pissa"), "changes the base weights"),
    "of the future": (change_config(use_magic=True), "use_magic is True"),
    "unknown module": (change_config(target_modules=["w_proj"]), "'w_proj' is no linear layer"),
    "bad pattern": (change_config(target_modules="("), "no pattern"),
    "no modules": (change_config(target_modules=[]), "target_modules"),
    "rank zero": (change_config(r=0), "r is 0"),
    "rank text": (change_config(r="4"), "r is '4'"),
    "other rank": (change_config(r=8), "expected"),
    "alpha NaN": (change_config(lora_alpha=float("nan")), "lora_alpha"),
    "too large when scaled": (
        lambda d: (
            change_config(lora_alpha=999999)(d),
            change_tensors(lambda t: [v.fill_(3e38) for k, v in t.items() if "lora_B" in k])(d),
        ),
        "finite after scaling",
    ),
}  # fmt: skip


@pytest.fixture
def copy(adapters: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a good adapter, to be spoilt."""
    return Path(shutil.copytree(adapters[NAME], tmp_path / "copy"))


@pytest.fixture(scope="session")
def linears(tiny_base: BaseModel) -> dict[str, tuple[int, int]]:
    """The tiny model's linear layers."""
    return linear_shapes(load_model(tiny_base, "float32", "cpu"))


Read = Callable[..., LoadedAdapter]


@pytest.fixture
def read(tiny_base: BaseModel, linears: dict[str, tuple[int, int]]) -> Read:
    """read_adapter for the tiny base in float32."""

    def read(directory: Path, **changes: Any) -> LoadedAdapter:
        usual: dict[str, Any] = {
            "name": NAME, "base_sha256": tiny_base.sha256, "linears": linears,
            "dtype": torch.float32, "device": torch.device("cpu"),
        }  # fmt: skip
        return read_adapter(directory, **{**usual, **changes})

    return read


@pytest.mark.parametrize("case", BROKEN_AFTER_PUBLISHING)
def test_what_broke_after_publishing_is_refused(copy: Path, read: Read, case: str) -> None:
    """A directory whose bytes are not those published is refused with the reason."""
    spoil, reason = BROKEN_AFTER_PUBLISHING[case]
    spoil(copy)
    with pytest.raises(AdapterRefused, match=reason):
        read(copy)


@pytest.mark.parametrize("case", PUBLISHED_WRONG)
def test_what_was_published_wrong_is_refused(
    copy: Path, read: Read, tiny_base: BaseModel, case: str
) -> None:
    """A directory with fitting hashes but unfit content is refused with the reason."""
    spoil, reason = PUBLISHED_WRONG[case]
    spoil(copy)
    seal(copy, tiny_base.sha256)
    with pytest.raises(AdapterRefused, match=reason):
        read(copy)


def test_wrong_base_name_and_place_are_refused(copy: Path, read: Read, tmp_path: Path) -> None:
    """Another base's adapter, another name's, a link to one and nothing at all are refused."""
    with pytest.raises(AdapterRefused, match="train again on this base"):
        read(copy, base_sha256="f" * 64)
    with pytest.raises(AdapterRefused, match="the manifest says 'cats@v1', expected 'cats@v7'"):
        read(copy, name="cats@v7")
    (tmp_path / "link").symlink_to(copy)
    with pytest.raises(AdapterRefused, match="symbolic link"):
        read(tmp_path / "link")
    with pytest.raises(AdapterRefused, match="no such directory"):
        read(tmp_path / "nothing")


def test_scale_is_folded_in_as_peft_computes_it(
    copy: Path, read: Read, tiny_base: BaseModel
) -> None:
    """B is multiplied by alpha / r, or alpha / sqrt(r) for rsLoRA: 8 / 4 and 8 / 2."""
    raw = load_file(copy / WEIGHTS)[KEY.replace("lora_A", "lora_B")]
    module = "model.layers.0.self_attn.q_proj"
    assert torch.equal(read(copy).pairs[module].b, raw * 2)
    change_config(use_rslora=True)(copy)
    seal(copy, tiny_base.sha256)
    assert torch.equal(read(copy).pairs[module].b, raw * 4)


def test_every_key_of_a_plain_config_is_known(copy: Path, read: Read) -> None:
    """What this version of PEFT writes for plain LoRA is accepted."""
    written = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"]).to_dict()
    assert set(json.loads((copy / PEFT_CONFIG).read_text())) <= set(written) | {"peft_version"}
    assert len(read(copy).pairs) == 14


async def test_the_live_one_goes_on(
    engine: LocalEngine,
    adapters: dict[str, Path],
    reference: Reference,
    tiny_base: BaseModel,
    tmp_path: Path,
) -> None:
    """While a reply runs, refused adapters change neither its tokens nor those of the next."""
    live = NAMES[1]
    await engine.load(live, adapters[live])
    running = engine.generate(greedy("go on", live, 120))
    for number, (spoil, _) in enumerate(list(PUBLISHED_WRONG.values())[:8]):
        bad = Path(shutil.copytree(adapters[NAME], tmp_path / str(number)))
        spoil(bad)
        seal(bad, tiny_base.sha256)
        with pytest.raises(AdapterRefused):
            await engine.load(NAME, bad)
    assert engine.stats().adapters == (live,)
    assert (await running.result()).token_ids == reference.tokens("go on", live, 120)
    after = await engine.generate(greedy("hi", live)).result()
    assert after.token_ids == reference.tokens("hi", live)
