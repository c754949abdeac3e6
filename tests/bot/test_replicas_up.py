"""`thumbtune up` with replicas: console and API on top of them, a restart, a kill, an own Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.bot.test_cli import ROOT, Shell
from tests.serving.ray_session import ray_session

WAIT_S = 240


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The tests' own Ray."""
    with ray_session() as found:
        yield found


@pytest.fixture
def shell(tmp_path: Path, tiny_model: Path) -> Shell:
    """A shell in an empty world whose console takes a free port."""
    return Shell(tmp_path, tiny_model)


def configure(shell: Shell, address: str, **more: object) -> None:
    """Let its replies be written by one replica."""
    text = shell.config.read_text(encoding="utf-8")
    text = text.replace("[serving]\n", '[serving]\nbackend = "ray"\n')
    lines = {"address": f'"{address}"', "max": 1, "target_replies": 2.0, **more}
    text += "\n[console]\nport = 0\n\n[replicas]\n"
    text += "".join(f"{key} = {value}\n" for key, value in lines.items())
    shell.config.write_text(text, encoding="utf-8")


@contextmanager
def up(shell: Shell) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `thumbtune up` until the block ends; yields it and the API's address."""
    place = ["--config", str(shell.config), "--data-dir", str(shell.home / "world")]
    process = subprocess.Popen(
        [sys.executable, "-m", "bot.cli.app", "up", *place],
        cwd=ROOT,
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said, api = [], ""
    try:
        for line in process.stdout or ():
            said.append(line)
            if line.startswith("API for"):
                api = line.split()[-1]
            if line.startswith("serving"):
                break
        assert api, "".join(said)
        yield process, api
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=WAIT_S)


def answer(api: str, model: str = "base") -> str:
    """Return a reply of the API, which the console's replies share the engine with."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 12,
        "temperature": 0,
    }
    got = httpx.post(f"{api}/chat/completions", json=body, timeout=WAIT_S)
    assert got.status_code == 200, got.text
    return str(got.json()["choices"][0]["message"]["content"])


def member(app: str = "thumbtune") -> str:
    """Return the one replica that takes requests."""
    import ray

    from serving.cluster import find_roster

    (report,) = [one for one in ray.get(find_roster(app).reports.remote()) if one.ready]
    return str(report.member)


def test_a_bot_that_was_killed_finds_its_replicas_again(address: str, shell: Shell) -> None:
    """After a kill -9 the same replica writes on; an orderly end takes it down. The bot itself
    loads no torch.
    """
    from ray import serve

    configure(shell, address)
    with up(shell) as (process, api):
        first, before = answer(api), member()
        assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
        process.kill()
    began = time.monotonic()
    with up(shell) as (_, api):
        print(f"up again in {time.monotonic() - began:.1f} s")
        assert answer(api) == first and member() == before
    assert "thumbtune" not in serve.status().applications


def test_a_ray_of_its_own_ends_with_the_bot(shell: Shell) -> None:
    """Without an address one is begun here; its processes and files go with the bot."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'thumbtune[ray]'")
    configure(shell, "")
    with up(shell) as (process, api):
        assert answer(api)
        children = _children(process.pid)
        assert children
    deadline = time.monotonic() + WAIT_S
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline, "processes of the Ray are left"
        time.sleep(0.1)
    assert process.returncode == 0


def _children(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]
