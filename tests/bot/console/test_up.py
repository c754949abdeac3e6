"""`thumbtune up` serves the console; `thumbtune console-password` guards it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from bot.console.serve import has_desktop
from tests.bot.test_cli import ROOT, Shell


@pytest.fixture
def shell(tmp_path: Path, tiny_model: Path) -> Shell:
    """A shell in an empty world whose console takes a free port."""
    shell = Shell(tmp_path, tiny_model)
    with shell.config.open("a", encoding="utf-8") as file:
        file.write("\n[console]\nport = 0\n")
    return shell


@contextmanager
def running(shell: Shell, **env: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run `thumbtune up` until the block ends; yields it and what it said until it serves."""
    place = ["--config", str(shell.config), "--data-dir", str(shell.home / "world")]
    command = [sys.executable, "-m", "bot.cli.app", "up", *place]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said: list[str] = []
    try:
        for line in process.stdout or ():
            said.append(line.strip())
            if line.startswith("serving"):
                break
        yield process, said
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def test_it_says_where_it_is_and_leaves_at_once(shell: Shell) -> None:
    """The address answers, no browser is opened without a terminal, and a stream does not hold it
    back.
    """
    with running(shell) as (_, said):
        address = next(line for line in said if line.startswith("Console: "))[9:]
        assert httpx.get(f"{address}/chat/new").status_code == 200
        assert httpx.get(f"{address}/docs").status_code == 404


def test_the_api_answers_under_the_same_address(shell: Shell) -> None:
    """On this machine without a key; told beside the console."""
    with running(shell) as (_, said):
        api = next(line for line in said if line.startswith("API for")).rpartition(" ")[2]
        names = [model["id"] for model in httpx.get(f"{api}/models").json()["data"]]
        assert "live" in names
        assert httpx.get(api.removesuffix("v1") + "healthz").status_code == 200


def test_a_taken_port_is_one_sentence_and_the_rest_goes_on(shell: Shell) -> None:
    """It names the port and what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = shell.config.read_text(encoding="utf-8").replace("port = 0", f"port = {port}")
        shell.config.write_text(text, encoding="utf-8")
        with running(shell) as (_, said):
            (off,) = [line for line in said if line.startswith("the web console is off")]
    assert f"127.0.0.1:{port}" in off and "choose another port" in off


def test_a_password_is_piped_in_and_asked_for(shell: Shell) -> None:
    """Only its hash is on the disk; the chat leads to the log-in."""
    assert "expected 10 to" in shell.run("console-password", text="short\n", code=1)
    kept = shell.run("console-password", "--json", text="four words make one\n")["file"]
    assert "four words" not in Path(kept).read_text(encoding="utf-8")
    with running(shell) as (_, said):
        address = next(line for line in said if line.startswith("Console: "))[9:]
        assert httpx.get(f"{address}/chat").headers["location"] == "/login"


def test_a_browser_is_opened_only_where_somebody_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Linux machine without a display has no desktop."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not has_desktop()
    monkeypatch.setenv("DISPLAY", ":0")
    assert has_desktop()
