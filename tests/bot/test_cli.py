"""The commands as a person types them: results as JSON on the last line, exit codes, plain
refusals.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


class Shell:
    """Runs `thumbtune` in a world of its own."""

    def __init__(self, home: Path, model: Path) -> None:
        self.home = home
        self.config = home / "settings.toml"
        relaxed = "\n".join(
            [
                f'[model]\nsource = "{model}"\ndtype = "float32"\ndevice = "cpu"',
                "[serving]\nthreads = 1\nmax_context_tokens = 512",
                "[chat]\nmax_tokens = 16",
                "[training]\nthreads = 1\nnice = 0\nmin_examples = 4\nmax_length = 256",
                "[gate]\nmin_people = 50",
            ]
        )
        self.config.write_text(relaxed, encoding="utf-8")

    def run(self, *arguments: str | Path, code: int = 0, text: str = "", **env: str) -> Any:
        """Run a command; check its exit code; return the JSON of its last line, or its whole
        output.
        """
        place = ["--config", self.config, "--data-dir", self.home / "world"]
        done = subprocess.run(
            [sys.executable, "-m", "bot.cli.app", *arguments, *place],
            cwd=ROOT,
            env={**os.environ, **env},
            input=text,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        if "--json" in arguments and code in (0, 3):
            return json.loads(done.stdout.splitlines()[-1])
        return done.stdout + done.stderr


@pytest.fixture
def shell(tmp_path: Path, tiny_model: Path) -> Shell:
    """A shell in an empty world."""
    return Shell(tmp_path, tiny_model)


def votes_file(path: Path, count: int = 24) -> Path:
    """Write feedback lines made elsewhere."""
    lines = [
        {
            "messages": [{"role": "user", "content": f"Question {index}?"}],
            "reply": "Yes." if index % 3 == 0 else f"No, and a long story about {index}.",
            "signal": "up" if index % 3 == 0 else "down",
            "user": f"person{index % 6}",
            "at": f"2026-01-01T00:00:{index:02}Z",
        }
        for index in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_the_loop_from_the_command_line_alone(shell: Shell, tmp_path: Path) -> None:
    """Import, count, dry run, a refusal (exit code 3), force, list, generate, roll back."""
    assert (
        shell.run("feedback", "import", votes_file(tmp_path / "votes.jsonl"), "--json")["added"]
        == 24
    )
    assert shell.run("feedback", "stats", "--json")["up"] == 8
    assert shell.run("retrain", "--dry-run", "--json")["recipe"] == "bon"
    refused = shell.run("retrain", "--json", code=3)
    assert (refused["state"], refused["adapter"]) == ("refused", "console@v1")
    assert refused["verdict"]["accepted"] is False
    forced = shell.run("retrain", "--force", "--json")
    assert (forced["state"], forced["adapter"]) == ("promoted", "console@v2")
    shell.run("adapters", "promote", "console@v1", code=1)
    listed = shell.run("adapters", "list", "--json")
    assert {one["name"]: one["state"] for one in listed["adapters"]} == {
        "console@v1": "refused",
        "console@v2": "live",
    }
    (tmp_path / "ask.jsonl").write_text(
        '{"prompt": "Hello"}\n{"messages": [{"role": "user", "content": "Hi"}]}\n'
    )
    ask = ("generate", "--prompts", tmp_path / "ask.jsonl", "--out")
    assert shell.run(*ask, tmp_path / "live.jsonl", "--json")["adapter"] == "console@v2"
    shell.run(*ask, tmp_path / "base.jsonl", "--adapter", "base", "--temperature", "0")
    line = json.loads((tmp_path / "live.jsonl").read_text().splitlines()[0])
    assert set(line) == {"prompt", "reply", "adapter", "finish_reason", "tokens"}
    assert shell.run("adapters", "verify", "console@v2", "--json")["ok"] is True
    shell.run("adapters", "export", "console@v2", tmp_path / "out")
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
    assert shell.run("adapters", "rollback", "--json")["live"] is None


def test_a_bad_line_refuses_the_whole_file_with_its_number(shell: Shell, tmp_path: Path) -> None:
    """Nothing is imported, and the reason names line and fault; --skip-bad takes the rest."""
    path = votes_file(tmp_path / "votes.jsonl", count=3)
    path.write_text(path.read_text() + '{"messages": [], "reply": "x", "signal": "up"}\nnot json\n')
    said = shell.run("feedback", "import", path, code=1)
    assert "line 4" in said
    assert "line 5" in said
    assert shell.run("feedback", "import", path, "--skip-bad", "--json")["added"] == 3


def test_raw_export_imports_back_equal(shell: Shell, tmp_path: Path, tiny_model: Path) -> None:
    """What one world exports, another imports, and exports the same."""
    shell.run("feedback", "import", votes_file(tmp_path / "votes.jsonl"))
    shell.run("feedback", "export", tmp_path / "one.jsonl")
    other_home = tmp_path / "other"
    other_home.mkdir()
    other = Shell(other_home, tiny_model)
    other.run("feedback", "import", tmp_path / "one.jsonl")
    other.run("feedback", "export", tmp_path / "two.jsonl")
    assert (tmp_path / "one.jsonl").read_text() == (tmp_path / "two.jsonl").read_text()


@pytest.mark.parametrize(
    ("form", "keys"),
    [("kto", {"prompt", "completion", "label"}), ("sft", {"prompt", "completion"})],
)
def test_exports_for_trl_have_its_columns(
    shell: Shell, tmp_path: Path, form: str, keys: set[str]
) -> None:
    """The conversational formats hold the columns TRL's trainers read."""
    shell.run("feedback", "import", votes_file(tmp_path / "votes.jsonl"))
    shell.run("feedback", "export", tmp_path / "out.jsonl", "--format", form)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows
    assert keys <= set(rows[0])


def test_the_piped_chat_votes_corrects_and_asks_again(shell: Shell) -> None:
    """A whole session by lines: replies, every kind of signal, an unknown command."""
    said = shell.run(
        "chat",
        text="Hello\n/up\n/down too long\n/again\n/fix Much better\n/what\n/adapters\n/quit\n",
    )
    assert "base ▸" in said
    assert "👍 kept; 1 to learn from" in said
    assert "no such command" in said
    stats = shell.run("feedback", "stats", "--json")
    assert [stats[kind] for kind in ("up", "down", "correction", "regenerate")] == [0, 1, 1, 1]


def test_forget_removes_a_person(shell: Shell, tmp_path: Path) -> None:
    """Export shows what is held; after forgetting there is nothing left of them."""
    shell.run("feedback", "import", votes_file(tmp_path / "votes.jsonl"))
    shell.run("data", "export", "--user", "person1", "--out", tmp_path / "held.json")
    assert "Question 1?" in (tmp_path / "held.json").read_text()
    shell.run("data", "forget", "--user", "person1", "--yes")
    shell.run("feedback", "export", tmp_path / "left.jsonl")
    assert "Question 1?" not in (tmp_path / "left.jsonl").read_text()


def test_backup_and_restore_bring_everything_back(shell: Shell, tmp_path: Path) -> None:
    """What came after the backup is gone after restoring, and the replaced file is kept."""
    shell.run("feedback", "import", votes_file(tmp_path / "votes.jsonl", count=6))
    shell.run("backup", tmp_path / "backup.db")
    shell.run("feedback", "import", votes_file(tmp_path / "more.jsonl", count=12))
    kept = shell.run("restore", tmp_path / "backup.db", "--json")["kept"]
    assert Path(kept).exists()
    assert shell.run("feedback", "stats", "--json")["signals"] == 6


def test_a_truncated_database_is_a_plain_refusal(shell: Shell, tmp_path: Path) -> None:
    """The sentence names the file and what to do; the exit code is 1."""
    shell.run("feedback", "import", votes_file(tmp_path / "votes.jsonl"))
    path = shell.home / "world" / "thumbtune.db"
    path.write_bytes(path.read_bytes()[:5000])
    said = shell.run("feedback", "stats", code=1)
    assert "thumbtune.db" in said
    assert "Traceback" not in said


def test_wrong_settings_are_listed_and_exit_4(shell: Shell) -> None:
    """Every fault in one answer."""
    shell.config.write_text("[chat]\ntemprature = 1\ntop_p = 9.0\n", encoding="utf-8")
    said = shell.run("feedback", "stats", code=4)
    assert "chat.temprature: no such key" in said
    assert "chat.top_p" in said


def test_an_encrypted_world_needs_its_key(shell: Shell, tmp_path: Path) -> None:
    """A plain database is converted by one command; then the key opens it and nothing else does."""
    shell.run("feedback", "import", votes_file(tmp_path / "votes.jsonl", count=3))
    shell.run("data", "encrypt", THUMBTUNE_DB_KEY="right")
    assert "key" in shell.run("feedback", "stats", code=1)
    assert "key" in shell.run("feedback", "stats", code=1, THUMBTUNE_DB_KEY="wrong")
    assert shell.run("feedback", "stats", "--json", THUMBTUNE_DB_KEY="right")["signals"] == 3


def test_the_doctor_finds_everything_in_order(shell: Shell) -> None:
    """Each line is there and ok."""
    found = shell.run("doctor", "--json")
    assert set(found) == {
        "config", "packages", "model", "database", "disk", "threads", "device", "decoder",
        "engine", "launcher", "console", "discord",
    }  # fmt: skip
    assert all(line["ok"] for line in found.values())


def test_generate_refuses_rubbish_with_the_line(shell: Shell, tmp_path: Path) -> None:
    """A prompts file with a bad line is refused before the model is loaded."""
    (tmp_path / "ask.jsonl").write_text('{"prompt": "Hi"}\n{"promt": "Hi"}\n')
    said = shell.run(
        "generate", "--prompts", tmp_path / "ask.jsonl", "--out", tmp_path / "o", code=1
    )
    assert "line 2" in said


def test_the_demo_runs_in_a_world_of_its_own_and_tells_everything(shell: Shell) -> None:
    """On the tiny model nothing is learnt, so the gate refuses; the JSON holds every figure asked
    for.
    """
    found = shell.run("demo", "--votes", "40", "--unseen", "20", "--json", code=3)
    assert found["promoted"] is False
    assert found["speaking"] == "base"
    assert found["live_like_rate"] == found["base_like_rate"]
    assert found["difference_interval"] == [0.0, 0.0]
    assert found["seconds"] >= sum(found["times_s"].values()) - 1
    assert not (shell.home / "world" / "thumbtune.db").exists()
