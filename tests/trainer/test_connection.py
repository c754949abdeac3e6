"""The commands that go to ssh and rsync, and what their failures are called."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError

from core.errors import TrainingError
from core.sections import LauncherSettings
from trainer.launchers import faults
from trainer.launchers.connection import Address, shell_path
from trainer.launchers.parcel import base_files, code_parcel


@pytest.mark.parametrize(
    "path", ["python3", "/opt/my env/bin/python", "a;b", "$(id)", "it's", "-x"]
)
def test_a_path_reaches_the_program_as_it_is(path: str) -> None:
    """Through a POSIX shell, whatever it holds; only a leading tilde is the shell's."""
    done = subprocess.run(
        ["/bin/sh", "-c", f"printf %s {shell_path(path)}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == path
    assert shell_path("~/my env/python") == "~/'my env/python'"


def test_a_request_reaches_the_script_as_it_is() -> None:
    """Quotes, spaces and commands in a directory's name stay data."""
    address = Address("gpu-box", "d", "echo")
    root = 'it\'s; $(touch /tmp/x) `id` "quoted"'
    *options, dashes, host, command = address.command("look", root, {"name": "run_1"})
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True)
    assert (dashes, host) == ("--", "gpu-box")
    assert "touch /tmp/x" in done.stdout
    assert "BatchMode=yes" in options
    assert not any("StrictHostKeyChecking" in option for option in options)


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("gpu-box", "gpu-box:/d/"),
        ("me@10.0.0.7", "me@10.0.0.7:/d/"),
        ("me@[fe80::1%eth0]", "me@[fe80::1%eth0]:/d/"),
        ("::1", "[::1]:/d/"),
    ],
)
def test_rsync_is_given_hosts_as_it_writes_them(host: str, target: str) -> None:
    """An IPv6 address stands in brackets for rsync and without them for ssh."""
    address = Address(host, "d", "python3")
    assert address.rsync_target("/d") == target
    assert address.command("look", "d", {})[-2] == host.replace("[", "").replace("]", "")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ssh_host", "-oProxyCommand=id"),
        ("ssh_host", "box;id"),
        ("ssh_host", "a b"),
        ("ssh_directory", "$(id)"),
        ("ssh_directory", "a;b"),
        ("ssh_python", "python3 -c pass"),
    ],
)
def test_settings_that_could_be_options_or_commands_are_refused(key: str, value: str) -> None:
    """Before anything is run with them."""
    with pytest.raises(ValidationError, match=key):
        LauncherSettings.model_validate({"kind": "ssh", key: value})


@pytest.mark.parametrize(
    ("code", "said", "kind", "sentence"),
    [
        (255, "ssh: connect to host b port 22: Connection timed out", faults.Unreachable, "timed"),
        (255, "client_loop: send disconnect: Broken pipe", faults.Unreachable, "no connection"),
        (255, "", faults.Unreachable, "it said nothing"),
        (255, "Host key verification failed.", faults.Refused, "answer yes: ssh b"),
        (255, "me@b: Permission denied (publickey).", faults.Refused, "ssh-copy-id b"),
        (127, "sh: 1: python3: not found", faults.Refused, "launcher.ssh_python"),
        (1, "SyntaxError: invalid syntax", faults.Refused, "exit code 1 .SyntaxError"),
    ],
)
def test_what_ssh_says_becomes_an_error(
    code: int, said: str, kind: type[TrainingError], sentence: str
) -> None:
    """A lost connection may be tried again, the rest says what to do."""
    with pytest.raises(kind, match=sentence):
        raise faults.ssh_failed("b", code, said, "python3")


@pytest.mark.parametrize(
    ("code", "said", "kind", "sentence"),
    [
        (12, "rsync: connection unexpectedly closed (0 bytes)", faults.Unreachable, "closed"),
        (11, 'rsync: write failed on "x": No space left on device (28)', faults.Refused, "full"),
        (12, "bash: line 1: rsync: command not found", faults.Refused, "apt install rsync"),
        (2, "protocol version mismatch -- is your shell clean?", faults.Refused, "login shell"),
        (255, "Host key verification failed.", faults.Refused, "answer yes"),
        (23, "rsync: link_stat failed: No such file", faults.Refused, "exit code 23"),
    ],
)
def test_what_rsync_says_becomes_an_error(
    code: int, said: str, kind: type[TrainingError], sentence: str
) -> None:
    """In the same way."""
    with pytest.raises(kind, match=sentence):
        raise faults.rsync_failed("b", code, said, "python3")


def test_a_full_disk_is_named_by_its_side() -> None:
    """What is brought fills this machine's."""
    full = 'rsync: write failed on "x": No space left on device (28)'
    assert "the disk there is full" in str(faults.rsync_failed("b", 11, full, "p"))
    assert str(faults.rsync_failed("b", 11, full, "p", into="/x/")).startswith("/x/: the disk is")


def test_the_code_is_one_parcel_known_by_its_content() -> None:
    """Both packages with their texts, and nothing else; twice the same."""
    parcel = code_parcel()
    assert {"core/jobs.py", "trainer/job.py", "trainer/keepset.jsonl"} <= set(parcel.files)
    assert {name.split("/")[0] for name in parcel.files} == {"core", "trainer"}
    assert not any("__pycache__" in name for name in parcel.files)
    assert parcel == code_parcel()


def test_a_base_is_sent_without_second_weights(tmp_path: Path) -> None:
    """Other formats of the same weights and hidden files stay; a directory that is gone is said."""
    for name in ("config.json", "model.safetensors", "pytorch_model.bin", "x.gguf", ".cache"):
        (tmp_path / name).touch()
    assert base_files(tmp_path) == ("config.json", "model.safetensors")
    with pytest.raises(TrainingError, match="thumbtune prepare"):
        base_files(tmp_path / "gone")
