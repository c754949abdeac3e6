"""A real sshd on loopback for tests: own keys, own port, own configuration, one line to cut.

It is the system's `sshd`, started by the test's user; nobody's `~/.ssh` is read or written. Clients
go through a small proxy, so that the line can be cut and mended as a network does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

HOST = "gpu-box"
SEPARATION = Path("/run/sshd")
"""An sshd started by root wants this directory."""


class Line:
    """A proxy between client and sshd: `cut` drops every connection and takes no new one."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.port = _free_port()
        self.connections = 0
        self.cut_after: int | None = None
        """Cut by itself after so many bytes from the client."""
        self.mend()

    def mend(self) -> None:
        """Take connections again."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Drop every connection; new ones are refused."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self.connections += 1
                server = socket.create_connection(("127.0.0.1", self._target))
                for source, target, counted in ((client, server, True), (server, client, False)):
                    self._open.add(source)
                    copying = threading.Thread(
                        target=self._copy, args=(source, target, counted), daemon=True
                    )
                    copying.start()

    def _copy(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if counted and self.cut_after is not None:
                    self.cut_after -= len(data)
                    if self.cut_after < 0:
                        self.cut_after = None
                        self.cut()
                        break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.discard(source)
        source.close()


class Box:
    """The other machine: an sshd, the line to it, and the client's configuration."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / "config"
        self.directory = home / "far"
        for name in ("host", "user"):
            _keygen(home / name)
        shutil.copy(home / "user.pub", home / "authorized")
        self.port = _free_port()
        self.line = Line(self.port)
        self._server: subprocess.Popen[bytes] | None = None
        self.trust(home / "host.pub")
        self.config.write_text(
            f"Host {HOST}\n HostName 127.0.0.1\n Port {self.line.port}\n User {_user()}\n"
            f" IdentityFile {home}/user\n IdentitiesOnly yes\n IdentityAgent none\n"
            f" UserKnownHostsFile {home}/known\n GlobalKnownHostsFile none\n"
        )
        self.up()

    def trust(self, key: Path) -> None:
        """Take this host key for the box's own."""
        kind, value, *_ = key.read_text().split()
        (self.home / "known").write_text(f"[127.0.0.1]:{self.line.port} {kind} {value}\n")

    def up(self) -> None:
        """Start the sshd and wait until it listens."""
        settings = {
            "Port": self.port, "ListenAddress": "127.0.0.1", "HostKey": self.home / "host",
            "AuthorizedKeysFile": self.home / "authorized", "PidFile": "none", "StrictModes": "no",
            "UsePAM": "no", "PasswordAuthentication": "no", "KbdInteractiveAuthentication": "no",
            "LoginGraceTime": 60, "MaxStartups": 100,
        }  # fmt: skip
        text = "".join(f"{key} {value}\n" for key, value in settings.items())
        (self.home / "sshd_config").write_text(text)
        command = [_sshd(), "-D", "-e", "-f", str(self.home / "sshd_config")]
        with (self.home / "sshd.log").open("ab") as log:
            self._server = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.05)
        raise AssertionError((self.home / "sshd.log").read_text())

    def down(self) -> None:
        """Stop the sshd and every session of it, as a machine's end of a connection goes."""
        if self._server is None:
            return
        sessions = psutil.Process(self._server.pid).children(recursive=True)
        for process in sessions:
            if process.name().startswith("sshd"):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self._server.terminate()
        self._server.wait(30)
        self._server = None

    def runs(self) -> list[Path]:
        """Return the run directories there."""
        home = self.directory / "runs"
        return sorted(home.iterdir()) if home.exists() else []

    def processes(self) -> list[psutil.Process]:
        """Return the training jobs there."""
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if "trainer.job" in (words := process.info["cmdline"] or [])
            and any(str(self.directory) in word for word in words)
        ]

    def settings(self, **more: object) -> dict[str, object]:
        """Return a `launcher` section that goes there."""
        return {
            "kind": "ssh", "ssh_host": HOST, "ssh_directory": str(self.directory),
            "ssh_python": sys.executable, "threads": 1, **more,
        }  # fmt: skip

    def close(self) -> None:
        """Leave no process behind."""
        self.line.cut()
        self.down()
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
                process.wait(30)


@contextlib.contextmanager
def open_box(home: Path) -> Iterator[Box]:
    """Start a box; the test is skipped where a part of it is not installed."""
    for program in ("ssh", "rsync", "ssh-keygen"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if _sshd() is None:
        pytest.skip("sshd (openssh-server) is not installed")
    made = os.getuid() == 0 and not SEPARATION.exists()
    if made:
        SEPARATION.mkdir(mode=0o755)
    home.mkdir(parents=True, exist_ok=True)
    box = Box(home)
    try:
        yield box
    finally:
        box.close()
        if made:
            with contextlib.suppress(OSError):
                SEPARATION.rmdir()


def _sshd() -> str | None:
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _keygen(path: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _user() -> str:
    import getpass

    return getpass.getuser()
