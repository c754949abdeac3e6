"""Adapters loaded and unloaded as vLLM's clients do it; whatever is not a sound one is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from core.manifest import MANIFEST, PEFT_CONFIG, WEIGHTS, describe_directory
from tests.bot.api.conftest import HELLO, Served
from tests.bot.test_registry import publish
from tests.tiny import publish_tiny_adapter


def drop(served: Served, where: str = "api/v7", name: str = "api@v7", scale: float = 0.3) -> Path:
    """Put a published adapter under the data directory, as an operator would; no row."""
    target = served.world.settings.data_dir / "adapters" / where
    target.parent.mkdir(parents=True, exist_ok=True)
    base = served.world.base
    return publish_tiny_adapter(target, base.path, name, 7, base_sha256=base.sha256, scale=scale)


async def load(served: Served, path: str, name: str = "api@v7") -> tuple[int, str]:
    """Ask for an adapter to be loaded; return status and text."""
    async with served.http() as http:
        body = {"lora_name": name, "lora_path": path}
        answer = await http.post("/v1/load_lora_adapter", json=body)
    return answer.status_code, answer.text


async def unload(served: Served, name: str) -> tuple[int, str]:
    """Ask for an adapter to be unloaded; return status and text."""
    async with served.http() as http:
        answer = await http.post("/v1/unload_lora_adapter", json={"lora_name": name})
    return answer.status_code, answer.text


async def test_an_adapter_is_loaded_asked_and_unloaded(served: Served) -> None:
    """In vLLM's words; it is a version from then on, and stays one when unloaded."""
    drop(served)
    assert await load(served, "api/v7") == (
        200,
        "Success: LoRA adapter 'api@v7' added successfully.",
    )
    again = await load(served, "api/v7")
    assert again[0] == 400 and "'api@v7' has already been loaded" in again[1]
    done = await served.client().chat.completions.create(model="api@v7", messages=HELLO)
    assert (await served.reply(done.id)).adapter == "api@v7"
    assert await unload(served, "api@v7") == (
        200,
        "Success: LoRA adapter 'api@v7' removed successfully.",
    )
    gone = await unload(served, "api@v7")
    assert gone[0] == 404 and "'api@v7' cannot be found" in gone[1]
    done = await served.client().chat.completions.create(model="api@v7", messages=HELLO)
    assert done.model == "api@v7"


async def test_what_is_missing_from_the_body_is_told(served: Served) -> None:
    """In vLLM's words."""
    for name, path in (("", "x"), ("x", "")):
        assert "Both 'lora_name' and 'lora_path' must be" in (await load(served, path, name))[1]
    assert "'lora_name' needs to be provided" in (await unload(served, ""))[1]


@pytest.mark.parametrize(
    "path",
    [
        "..",
        ".",
        "",
        "../..",
        "/etc",
        "/",
        "api/../../..",
        "link",
        "link/x",
        "file",
        "x\x00y",
        "~",
        "y" * 5000,
        "api/v8",
        "/proc/self/root/etc",
        "%2e%2e/",
        "..\\..",
        "loop",
    ],
)
async def test_no_path_leads_out_of_the_adapters(served: Served, tmp_path: Path, path: str) -> None:
    """Nor anywhere else: what is outside and what is not there are told in the same words."""
    drop(served)
    root = served.world.settings.data_dir / "adapters"
    outside = tmp_path / "outside"
    (outside / "x").mkdir(parents=True)
    (root / "link").symlink_to(outside)
    (root / "loop").symlink_to("loop")
    (root / "file").write_text("text")
    status, text = await load(served, path)
    assert status == (400 if path == "" else 404), text
    assert path == "" or "No adapter found for" in text
    assert served.world.engine.stats().adapters == ()


async def test_a_link_inside_leads_to_what_it_names(served: Served) -> None:
    """The directory behind it is the adapter's, wherever the link lies."""
    target = drop(served)
    (target.parent / "alias").symlink_to(target)
    assert (await load(served, "api/alias"))[0] == 200
    record = await served.world.database.run(lambda db: db.adapters.get("api@v7"))
    assert record.directory == "adapters/api/v7"


def _pickle(home: Path) -> None:
    (home / "adapter_model.bin").write_bytes(b"\x80\x04cposix\nsystem\n")


def _huge_header(home: Path) -> None:
    (home / WEIGHTS).write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    _sign(home)


def _other_shapes(home: Path) -> None:
    config = json.loads((home / PEFT_CONFIG).read_text())
    (home / PEFT_CONFIG).write_text(json.dumps({**config, "r": 8}))
    _sign(home)


def _other_base(home: Path) -> None:
    _sign(home, base_sha256="0" * 64)


def _other_name(home: Path) -> None:
    _sign(home, name="api@v8")


def _altered(home: Path) -> None:
    (home / WEIGHTS).write_bytes((home / WEIGHTS).read_bytes()[:-1] + b"\x01")


def _no_manifest(home: Path) -> None:
    (home / MANIFEST).unlink()


def _linked_weights(home: Path) -> None:
    (home / WEIGHTS).rename(home.parent / "elsewhere")
    (home / WEIGHTS).symlink_to(home.parent / "elsewhere")


def _pipe(home: Path) -> None:
    (home / WEIGHTS).unlink()
    os.mkfifo(home / WEIGHTS)


def _deep_config(home: Path) -> None:
    (home / PEFT_CONFIG).write_text("[" * 100_000)
    _sign(home)


def _sign(home: Path, name: str = "api@v7", base_sha256: str = "") -> None:
    old = json.loads((home / MANIFEST).read_text())
    (home / MANIFEST).unlink()
    manifest = describe_directory(
        home,
        name=name,
        base_model="tiny",
        base_sha256=base_sha256 or old["base_sha256"],
        run_id="run_evil",
        recipe="kto",
        created_at="not a time",
    )
    (home / MANIFEST).write_text(manifest.model_dump_json())


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_pickle, "unexpected files"),
        (_huge_header, "its header claims"),
        (_other_shapes, "shape is"),
        (_other_base, "trained on base model"),
        (_other_name, "the manifest says 'api@v8'"),
        (_altered, "corrupt or altered"),
        (_no_manifest, "never completely published"),
        (_linked_weights, "not a plain file"),
        (_pipe, "not a plain file"),
        (_deep_config, "not valid JSON"),
    ],
)
async def test_a_hostile_adapter_is_refused_with_the_reason(
    served: Served, spoil: object, said: str
) -> None:
    """Nothing of it is stored or resident, no path is told, and the service goes on."""
    spoil(drop(served))  # type: ignore[operator]
    status, text = await load(served, "api/v7")
    assert status == 400 and said in text and str(served.world.settings.data_dir) not in text
    assert served.world.engine.stats().adapters == ()
    assert await served.world.database.run(lambda db: db.adapters.list()) == []
    await served.client().chat.completions.create(model="base", messages=HELLO)


async def test_a_known_name_lies_where_it_is_known_to(served: Served) -> None:
    """Other content elsewhere under its name is refused; its own place loads it."""
    await publish(served.world, 1, seed=1, scope="api")
    drop(served, "api/other", "api@v1")
    status, text = await load(served, "api/other", "api@v1")
    assert status == 400 and "lies in adapters/api/v1" in text
    assert (await load(served, "api/v1", "api@v1"))[0] == 200


@pytest.mark.parametrize("name", ["sql-lora", "api@v0", "API@v1", "api@v1/../x", "@v1"])
async def test_a_name_is_a_scope_and_a_version(served: Served, name: str) -> None:
    """vLLM takes any name; here it says whose adapter it is."""
    drop(served)
    status, text = await load(served, "api/v7", name)
    assert status == 400 and "expected <scope>@v<number>" in text
