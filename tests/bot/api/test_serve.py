"""`thumbtune serve` and `thumbtune keys` as processes: started, stopped, killed, started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from storage.database import Database
from tests.bot.api.conftest import HELLO
from tests.bot.test_cli import ROOT, Shell


@pytest.fixture
def shell(tmp_path: Path, tiny_model: Path) -> Shell:
    """A shell in an empty world."""
    return Shell(tmp_path, tiny_model)


class Process:
    """A running server that says where it listens."""

    def __init__(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", module, *arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, env=dict(os.environ)
        )
        assert self.process.stdout is not None
        self.said: dict[str, Any] = json.loads(self.process.stdout.readline())

    def client(self, key: str = "none") -> openai.OpenAI:
        """Return OpenAI's client."""
        return openai.OpenAI(base_url=self.said["url"], api_key=key, max_retries=0)

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal; return the exit code and what was said."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


@contextmanager
def serving(shell: Shell, *arguments: str) -> Iterator[Process]:
    """Run `thumbtune serve` on a free port for the time of the block."""
    place = ["--config", str(shell.config), "--data-dir", str(shell.home / "world")]
    command = ["serve", "--json", "--port", "0", *arguments, *place]
    with running("bot.cli.app", *command) as process:
        yield process


@contextmanager
def running(module: str, *arguments: str) -> Iterator[Process]:
    """Run a server for the time of the block."""
    started = Process(module, *arguments)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
            started.process.communicate(timeout=30)


def test_it_says_where_it_listens_and_stops_in_order(shell: Shell) -> None:
    """One line for programs; SIGTERM lets a running reply end and leaves with 0."""
    with serving(shell) as served:
        assert served.said["status"] == "serving" and served.said["pid"] == served.process.pid
        stream = served.client().chat.completions.create(
            model="live", messages=HELLO, stream=True, max_tokens=30
        )
        first = next(iter(stream))
        code, errors = served.end(signal.SIGTERM)
        assert code == 0 and "stopping" in errors and "Traceback" not in errors
    with Database(shell.home / "world" / "thumbtune.db") as db:
        assert db.replies.get(first.id).state == "done"


def test_a_kill_loses_nothing_that_was_said_to_be_stored(shell: Shell) -> None:
    """After kill -9 in a stream the next start marks the reply; votes and keys are there."""
    secret = shell.run("keys", "new", "web", "--json")["secret"]
    with serving(shell) as served:
        client = served.client(secret)
        done = client.chat.completions.create(model="live", messages=HELLO, max_tokens=4)
        _vote(served, secret, done.id)
        served.end(signal.SIGKILL)
    place = (str(shell.config), str(shell.home / "world"))
    with running("tests.bot.api.frozen_child", *place) as frozen:
        stream = frozen.client(secret).chat.completions.create(
            model="live", messages=HELLO, stream=True
        )
        half = next(iter(stream))
        frozen.end(signal.SIGKILL)
    with serving(shell) as served, Database(shell.home / "world" / "thumbtune.db") as db:
        assert db.replies.get(half.id).state == "failed" and db.replies.pending() == []
        assert [row.kind for row in db.feedback.of_reply(done.id)] == ["up"]
        _vote(served, secret, done.id)
        with pytest.raises(openai.AuthenticationError):
            served.client("tt-wrong").models.list()


def _vote(served: Process, secret: str, completion: str) -> None:
    answer = httpx.post(
        f"{served.said['url']}/feedback",
        json={"id": completion, "kind": "up"},
        headers={"Authorization": f"Bearer {secret}"},
    )
    assert answer.status_code == 200


def test_where_others_can_reach_it_it_does_not_start_without_a_key(shell: Shell) -> None:
    """One plain sentence; with a key it starts, with a revoked one it does not."""
    refused = ("serve", "--host", "0.0.0.0", "--port", "0")  # noqa: S104
    said = shell.run(*refused, code=4)
    assert "there is no key yet" in said and "thumbtune keys new" in said
    secret = shell.run("keys", "new", "web", "--json")["secret"]
    with serving(shell, "--host", "0.0.0.0") as served:  # noqa: S104
        port = served.said["url"].rpartition(":")[2]
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}", api_key=secret)
        assert client.models.list().data
        shell.run("keys", "revoke", "web")
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
    assert "there is no key yet" in shell.run(*refused, code=4)


def test_a_key_is_shown_once(shell: Shell) -> None:
    """The list has its name, role and scope only; a name in use is refused."""
    said = shell.run("keys", "new", "web", "--admin", "--scope", "shop")
    secret = said.strip().splitlines()[-1]
    assert secret.startswith("tt-")
    listed = shell.run("keys", "list")
    assert secret not in listed and "key web: admin, scope shop, made" in listed
    assert "there is one already" in shell.run("keys", "new", "web", code=1)


def test_a_taken_port_and_no_address_are_plain_sentences(shell: Shell) -> None:
    """Both name what was wrong."""
    assert "that is no address" in shell.run("serve", "--host", "a b", code=4)
    with serving(shell) as served:
        port = served.said["url"].removesuffix("/v1").rpartition(":")[2]
        assert "another port" in shell.run("serve", "--port", port, code=4)
