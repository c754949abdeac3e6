"""An adapter sent from another machine: whole and verified, or not there at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bot.api.upload import FILES
from bot.world import World
from core.manifest import MANIFEST, PEFT_CONFIG, WEIGHTS, describe_directory
from tests.bot.api.conftest import HELLO, Served, served_by
from tests.tiny import publish_tiny_adapter

NAME = "api@v7"
Files = dict[str, tuple[str, bytes]]


def made(served: Served, place: Path, *, seed: int = 7, base_sha256: str = "") -> Path:
    """Publish an adapter of that name outside the data directory."""
    base = served.world.base
    sha256 = base_sha256 or base.sha256
    return publish_tiny_adapter(place / f"v7-{seed}", base.path, NAME, seed, base_sha256=sha256)


def parts(directory: Path) -> Files:
    """Return what a client sends of it."""
    return {file: (file, (directory / file).read_bytes()) for file in FILES}


async def put(
    served: Served, files: Files, name: str = NAME, key: str | None = None
) -> tuple[int, dict[str, Any]]:
    """Send files; return the status and the answer."""
    async with served.http(key) as http:
        answer = await http.put(f"/v1/adapters/{name}", files=files)
    return answer.status_code, answer.json()


def kept(served: Served) -> list[str]:
    """Return what lies under adapters/, hidden files too."""
    root = served.world.settings.data_dir / "adapters"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def anywhere(place: Path, name: str) -> list[Path]:
    """Return every file of a name below a place."""
    return list(place.rglob(name))


async def test_what_is_sent_is_a_version_that_speaks(served: Served, tmp_path: Path) -> None:
    """It is resident and stored; sent again it is there already, with other bytes a conflict."""
    directory = made(served, tmp_path)
    code, said = await put(served, parts(directory))
    assert (code, said["id"]) == (201, NAME)
    done = await served.client().chat.completions.create(model=NAME, messages=HELLO)
    assert (await served.reply(done.id)).adapter == NAME
    assert (await put(served, parts(directory)))[0] == 200
    code, said = await put(served, parts(made(served, tmp_path, seed=8)))
    assert code == 409 and "another content" in said["error"]["message"]
    assert kept(served) == [f"api/v7/{file}" for file in sorted(FILES)]


def _altered(files: Files) -> Files:
    name, data = files[WEIGHTS]
    return files | {WEIGHTS: (name, data[:-1] + bytes([data[-1] ^ 1]))}


def _pickled(files: Files) -> Files:
    sound = {key: files[key] for key in (MANIFEST, PEFT_CONFIG)}
    return sound | {"adapter_model.bin": ("adapter_model.bin", b"\x80\x04.")}


def _climbing(files: Files) -> Files:
    path = "../../../escaped.json"
    return {key: files[key] for key in (MANIFEST, WEIGHTS)} | {path: (path, b"{}")}


def _renamed(files: Files) -> Files:
    manifest = json.loads(files[MANIFEST][1]) | {"name": "shop@v1"}
    return files | {MANIFEST: (MANIFEST, json.dumps(manifest).encode())}


def _endless(files: Files) -> Files:
    return files | {MANIFEST: (MANIFEST, b" " * ((1 << 20) + 1))}


HOSTILE = [
    (_altered, "corrupt or altered"),
    (_pickled, "expected multipart/form-data"),
    (_climbing, "expected multipart/form-data"),
    (_renamed, "the manifest is of 'shop@v1'"),
    (_endless, "is larger than"),
    (lambda files: files | {MANIFEST: (MANIFEST, b"{}")}, "manifest.json: "),
    (lambda files: {MANIFEST: files[MANIFEST]}, "expected multipart/form-data"),
]


@pytest.mark.parametrize(("change", "said"), HOSTILE)
async def test_what_is_not_sound_leaves_nothing(
    served: Served, tmp_path: Path, change: Any, said: str
) -> None:
    """It is told what is wrong without a path of this machine; the service is up."""
    code, answer = await put(served, change(parts(made(served, tmp_path))))
    message = answer["error"]["message"]
    assert code == 400 and said in message
    assert str(served.world.settings.data_dir) not in message
    assert kept(served) == [] == anywhere(tmp_path, "escaped.json")
    assert (await served.client().chat.completions.create(model="base", messages=HELLO)).id


async def test_an_adapter_of_another_base_is_not_kept(served: Served, tmp_path: Path) -> None:
    """Its bytes are as its manifest says; the engine refuses it."""
    code, said = await put(served, parts(made(served, tmp_path, base_sha256="0" * 64)))
    assert code == 400 and "base" in said["error"]["message"]
    assert kept(served) == []


async def test_weights_of_another_shape_are_not_kept(served: Served, tmp_path: Path) -> None:
    """Sealed anew, so that only loading finds it."""
    directory = made(served, tmp_path)
    config = json.loads((directory / PEFT_CONFIG).read_text()) | {"r": 64}
    (directory / PEFT_CONFIG).write_text(json.dumps(config))
    (directory / MANIFEST).unlink()
    base = served.world.base
    about = {"run_id": "r", "recipe": "none", "created_at": "2026-01-01T00:00:00.000000Z"}
    of = {"name": NAME, "base_model": base.name, "base_sha256": base.sha256}
    sealed = describe_directory(directory, **of, **about)
    (directory / MANIFEST).write_text(sealed.model_dump_json())
    assert (await put(served, parts(directory)))[0] == 400
    assert kept(served) == []


@pytest.mark.parametrize("name", ["..%2F..%2Fx@v1", "x", "API@v1", "a@v0"])
async def test_a_name_that_is_none_is_refused(served: Served, tmp_path: Path, name: str) -> None:
    """Nothing is written for it."""
    assert (await put(served, parts(made(served, tmp_path)), name))[0] in (400, 404)
    assert kept(served) == []


async def test_only_administrators_may_send(served: Served, tmp_path: Path) -> None:
    """A user is told so, nobody gets in without a key."""
    user, boss = await served.key("web"), await served.key("boss", "admin")
    files = parts(made(served, tmp_path))
    codes = [(await put(served, files, key=key))[0] for key in (None, user, boss)]
    assert codes == [401, 403, 201]


async def test_an_adapter_has_a_bound_of_its_own(world: World, tmp_path: Path) -> None:
    """Larger than other requests may be, and not without end."""
    async with served_by(world, max_body_bytes=2048, max_adapter_bytes=4096) as served:
        assert (await put(served, parts(made(served, tmp_path))))[0] == 413
        assert kept(served) == []
    async with served_by(world, max_body_bytes=2048) as served:
        assert (await put(served, parts(made(served, tmp_path, seed=9))))[0] == 201
