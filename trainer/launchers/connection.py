"""The system's ssh and rsync as a way to ask another machine and to move files.

Never asks for a password and takes host keys as the user's own ssh configuration says. Owns no
state there: it runs trainer.launchers.far and reads its answers. A lost connection is Unreachable,
what trying again cannot mend is Refused (trainer.launchers.faults).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.launchers import far
from trainer.launchers.faults import (
    Refused,
    Unreachable,
    disk_full,
    rsync_failed,
    ssh_failed,
)

CONNECT_S = 15
ALIVE_S = 15
SILENT_S = 60.0
"""A follower that says nothing for this long is cut off; it is to say something far more often."""

ANSWER_S = 300.0
"""An answer that takes longer than this is not waited for, unless much is to be read there."""

_OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": CONNECT_S,
    "ServerAliveInterval": ALIVE_S,
    "ServerAliveCountMax": 3,
    "LogLevel": "ERROR",
    "ControlMaster": "no",  # a shared connection has the alive options of whoever opened it
    "ControlPath": "none",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
}
_LINE_BYTES = 1 << 23
_SAID_BYTES = 1 << 16
_PERCENT = re.compile(rb"(\d{1,3})%")
_PARTIAL = ".rsync-partial"

OnPercent = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Address:
    """A host as ssh knows it, a directory and a Python there, and a configuration of ssh's."""

    host: str
    directory: str
    python: str
    config: Path | None = None

    def ssh(self) -> list[str]:
        """Return the ssh command without its host; what the user's configuration says holds."""
        own = ["-F", str(self.config)] if self.config else []
        options = [word for key, value in _OPTIONS.items() for word in ("-o", f"{key}={value}")]
        return ["ssh", *own, *options]

    def command(self, operation: str, root: str, request: dict[str, Any]) -> list[str]:
        """Return the ssh command that does one operation there; the script comes by stdin."""
        asked = json.dumps({"operation": operation, "root": root, **request})
        there = f"{shell_path(self.python)} - {shlex.quote(asked)}"
        return [*self.ssh(), "--", self._bare_host, there]

    @property
    def _bare_host(self) -> str:
        """The host without the brackets that some write around an IPv6 address."""
        return self.host.replace("[", "").replace("]", "")

    def rsync_target(self, path: str) -> str:
        """Return a directory there as rsync writes it."""
        user, at, name = self._bare_host.rpartition("@")
        host = f"[{name}]" if ":" in name else name
        return f"{user}{at}{host}:{path.rstrip('/')}/"


def shell_path(path: str) -> str:
    """Quote a path for a POSIX shell, but leave a leading `~` to it."""
    head, slash, rest = path.partition("/")
    return f"{head}{slash}{shlex.quote(rest)}" if head == "~" and rest else shlex.quote(path)


class Connection:
    """Asks one machine. `heard`, which may be set, is called whenever it has answered."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.heard: Callable[[], None] = lambda: None
        self._root = address.directory
        self._script = Path(far.__file__).read_bytes()

    async def ask(
        self, operation: str, *, silent_s: float = ANSWER_S, **request: Any
    ) -> dict[str, Any]:
        """Do one operation there and return its answer."""
        asked = self.answers(operation, silent_s=silent_s, **request)
        answers = [answer async for answer in asked]
        if not answers:
            raise Unreachable(f"{self.address.host}: the connection ended before the answer")
        return answers[-1]

    async def answers(
        self, operation: str, *, silent_s: float, **request: Any
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Do one operation there and yield its answers as they come."""
        command = self.address.command(operation, self._root, request)
        async with _running(command) as process:
            said = asyncio.create_task(_read_tail(process.stderr))
            try:
                await _feed(process, self._script)
                async for answer in self._frames(process, silent_s):
                    yield answer
                code = await process.wait()
                if code:
                    address = self.address
                    raise ssh_failed(address.host, code, await said, address.python)
            finally:
                said.cancel()

    async def _frames(
        self, process: asyncio.subprocess.Process, silent_s: float
    ) -> AsyncIterator[dict[str, Any]]:
        assert process.stdout is not None  # noqa: S101 # asked for in _running
        while True:
            try:
                line = await asyncio.wait_for(process.stdout.readline(), silent_s)
            except TimeoutError:
                raise Unreachable(f"{self.address.host}: nothing heard for {silent_s} s") from None
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip("\n")
            if not text.startswith(far.MARK) or not line.endswith(b"\n"):
                continue
            self.heard()
            yield self._checked(json.loads(text.removeprefix(far.MARK)))

    def _checked(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "error" not in answer:
            return answer
        if answer["full"]:
            raise disk_full(self.address.host)
        raise Refused(f"{self.address.host}: {answer['error']}")

    async def send(
        self, source: Path, files: Sequence[str], target: str, on_percent: OnPercent
    ) -> None:
        """Send these files of a directory, what differs of them, going on where it stopped."""
        await self._copy(f"{source}/", self.address.rsync_target(target), files, on_percent)

    async def bring(
        self, source: str, files: Sequence[str], target: Path, on_percent: OnPercent
    ) -> None:
        """Bring these files of a directory there into one here, in the same way."""
        here = f"{target}/"
        await self._copy(self.address.rsync_target(source), here, files, on_percent, into=here)

    async def _copy(
        self,
        source: str,
        target: str,
        files: Sequence[str],
        on_percent: OnPercent,
        *,
        into: str | None = None,
    ) -> None:
        command = [
            *("rsync", "--times", "--copy-links", "--checksum", "-s", "--files-from=-"),
            *(f"--partial-dir={_PARTIAL}", "--info=progress2", "--outbuf=N"),
            *("-e", shlex.join(self.address.ssh()), "--", source, target),
        ]
        async with _running(command) as process:
            said = asyncio.create_task(_read_tail(process.stderr))
            try:
                await _feed(process, "".join(f"{name}\n" for name in files).encode())
                await self._percents(process, on_percent)
                code = await process.wait()
                if code:
                    address = self.address
                    raise rsync_failed(address.host, code, await said, address.python, into=into)
            finally:
                said.cancel()
        self.heard()

    async def _percents(self, process: asyncio.subprocess.Process, on_percent: OnPercent) -> None:
        assert process.stdout is not None  # noqa: S101 # asked for in _running
        while chunk := await process.stdout.read(4096):
            found = _PERCENT.findall(chunk)
            if found:
                self.heard()
                on_percent(int(found[-1]))


@contextlib.asynccontextmanager
async def _running(command: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command in a session of its own, with pipes; it is gone when the block ends."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
            start_new_session=True,  # Ctrl-C in our terminal is ours to answer
            env={**os.environ, "LC_ALL": "C"},  # what it says is read
        )
    except FileNotFoundError:
        raise Refused(
            f"{command[0]} is not installed on this machine; on Debian: sudo apt install "
            "openssh-client rsync"
        ) from None
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            await process.wait()


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    assert process.stdin is not None  # noqa: S101 # asked for in _running
    with contextlib.suppress(ConnectionError):  # its exit code says why
        process.stdin.write(data)
        await process.stdin.drain()
    process.stdin.close()


async def _read_tail(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None  # noqa: S101 # asked for in _running
    said = b""
    while chunk := await stream.read(4096):
        said = (said + chunk)[-_SAID_BYTES:]
    return said.decode("utf-8", "replace")
