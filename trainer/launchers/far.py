"""What the ssh launcher runs on the other machine: look, verify, start, follow, stop, tidy.

It is piped into a Python there, so both sides are of one version; standard library only, and old
Pythons can read it, to be told that they are too old. Below its root lie `code/<hash>/`,
`base/<sha256>/` and `runs/<name>/` (`job/`, `live/`, the run's own files). Invariant: whoever holds
a run's lock is the run. Supervisor and job share it and the kernel lets go when both are gone, so a
lock that is free means that nothing runs and the GPU is free. Answers are lines of MARK and one
JSON object; what a login shell prints besides is not taken for one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MARK = "@thumbtune "
RESULTS = ("adapter/adapter_config.json", "adapter/adapter_model.safetensors", "report.json")
LOG = "job.log"
STOPPED = 128 + signal.SIGTERM

_POLL_S = 0.3
_BEAT_S = 5.0
"""A silent run is told about this often, so that either side notices a dead connection."""
_TERM_S = 15.0
_KILL_S = 20.0
_CHUNK_BYTES = 1 << 18


class Refusal(Exception):
    """What was asked cannot be done; the text says why."""


class Run:
    """One run's directory on this machine."""

    def __init__(self, root: Path, name: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
            raise Refusal(f"run name {name!r}: expected letters, digits, '_', '.' and '-'")
        self.path = root / "runs" / name
        self.job = self.path / "job"
        self.live = self.path / "live"
        self.log = self.job / LOG

    def read(self, name: str) -> dict[str, Any]:
        """Return one of the run's own files, empty if there is none."""
        try:
            found: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return found

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Replace one of the run's own files, whole or not at all."""
        temporary = self.path / f".{name}.{os.getpid()}"
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(value))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path / name)

    def take(self, how: int) -> int | None:
        """Return a descriptor that holds the lock, or None if another holds it."""
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor

    def runs(self) -> bool:
        """Say whether supervisor or job is there."""
        if not self.path.is_dir():
            return False
        descriptor = self.take(fcntl.LOCK_SH)
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is None

    def state(self) -> str:
        """Return `running`, `ended`, `dead` (it was there and did not say how it ended) or
        `none`.
        """
        return "running" if self.runs() else self.left()

    def left(self) -> str:
        """Return the state of a run that is not running; SIGTERM by itself is no end."""
        end = self.read("exit.json")
        if end and (end["timed_out"] or end["code"] != STOPPED):
            return "ended"
        return "dead" if self.read("began.json") else "none"


def look(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Say what there is: Python, packages, rsync, room, and how the run stands."""
    name = request.get("name")
    return {
        "root": str(root),
        "python": ".".join(str(part) for part in sys.version_info[:3]),
        "python_works": sys.version_info >= tuple(request["python"]),
        "missing": [name for name in request["packages"] if importlib.util.find_spec(name) is None],
        "rsync": shutil.which("rsync") is not None,
        "free_bytes": _free_bytes(root),
        "state": Run(root, name).state() if name else "none",
    }


def machine(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Say which versions and which GPU there are; loads torch."""
    from importlib.metadata import version

    import torch

    gpu, free = "", 0
    if torch.cuda.is_available():
        gpu, free = torch.cuda.get_device_name(0), torch.cuda.mem_get_info(0)[0]
    versions = {name: version(name) for name in request["packages"]}
    return {"versions": versions, "gpu": gpu, "gpu_free_bytes": free}


def prepare(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Make the directories that files are sent to, for this user alone."""
    run = Run(root, request["name"])
    base = [root / "base" / request["base"]] if request["base"] else []
    for path in (root, root / "code" / request["code"], run.job, run.live, *base):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    run.path.chmod(0o700)
    return {}


def identify(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Return a base model's SHA-256; it is kept beside the files' times, so hashed only once."""
    sys.path.insert(0, str(root / "code" / request["code"]))
    from core.basemodel import identify_base
    from core.errors import ModelError

    path = Path(request["base"]).expanduser().resolve()
    try:
        return {"path": str(path), "sha256": identify_base("", path, root).sha256, "why": ""}
    except ModelError as error:
        return {"path": str(path), "sha256": "", "why": str(error)}


def start(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Start the run unless it is there or has ended; it outlives this process and the
    connection.
    """
    run = Run(root, request["name"])
    if not (run.job / "job.json").is_file():
        raise Refusal(f"{run.job}: no job.json; the job directory was not sent whole")
    lock = _take_patiently(run)
    if lock is None or run.left() == "ended":
        return {"started": False}
    for stale in ("exit.json", "job.pid"):
        with contextlib.suppress(FileNotFoundError):
            (run.path / stale).unlink()
    if not run.read("began.json"):
        run.write("began.json", {"at": time.time()})
    if not _detach(run, lock, root, request):
        raise Refusal(f"the job could not be started; see {run.log}")
    return {"started": True}


def _take_patiently(run: Run) -> int | None:
    """Take the lock; somebody who only looks whether it is free holds it for a moment."""
    until = time.monotonic() + 2.0
    while True:
        lock = run.take(fcntl.LOCK_EX)
        if lock is not None or time.monotonic() > until:
            return lock
        time.sleep(0.05)


def _detach(run: Run, lock: int, root: Path, request: dict[str, Any]) -> bool:
    """Leave a supervisor behind, in a session of its own; return once the job has its process."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            os.setsid()
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            os.close(reading)
            _redirect(run.log)
            _supervise(run, lock, root, request, started=writing)
        except BaseException as error:
            print(f"the supervisor failed: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        return bool(pipe.read(1))


def _redirect(log: Path) -> None:
    with log.open("ab") as out, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)


def _supervise(run: Run, lock: int, root: Path, request: dict[str, Any], *, started: int) -> None:
    """Run the job within its time limit, counted from the first start, and write how it ended."""
    code = root / "code" / request["code"]
    job = subprocess.Popen(
        [
            *(sys.executable, "-m", "trainer.job", str(run.job), "--resume"),
            *("--parent", str(os.getpid()), *request["arguments"]),
        ],
        cwd=str(code),
        env={**os.environ, **request["variables"], "PYTHONPATH": str(code)},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=[lock],
    )
    run.write("job.pid", {"pid": job.pid})
    os.write(started, b"1")
    os.close(started)
    left = run.read("began.json")["at"] + request["timeout_s"] - time.time()
    timed_out = False
    try:
        job.wait(max(0.0, left))
    except subprocess.TimeoutExpired:
        timed_out = True
        job.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.wait(_TERM_S)
    _kill_session(job.pid)
    ended = job.wait()
    code_there = ended if ended >= 0 else 128 - ended
    run.write("exit.json", {"code": code_there, "timed_out": timed_out})


def follow(root: Path, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the whole lines of the progress from a byte offset on, then how the run ended."""
    run = Run(root, request["name"])
    offset, beat = int(request["offset"]), time.monotonic()
    while True:
        running = run.runs()
        for text in _whole_lines(run.job / "progress.jsonl", offset):
            offset += len(text)
            beat = time.monotonic()
            yield {"lines": text.decode("utf-8", "replace"), "offset": offset}
        if not running:
            end = run.read("exit.json") if run.left() == "ended" else {}
            yield {"state": run.left(), **end}
            return
        if time.monotonic() - beat > _BEAT_S:
            beat = time.monotonic()
            yield {"beat": True}
        time.sleep(_POLL_S)


def _whole_lines(path: Path, offset: int) -> Iterator[bytes]:
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        while True:
            chunk = file.read(_CHUNK_BYTES)
            whole = chunk[: chunk.rfind(b"\n") + 1]
            if not whole:
                return
            file.seek(len(whole) - len(chunk), os.SEEK_CUR)
            yield whole


def digest(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Return the SHA-256 of each file that a finished run has to bring back, and of its log."""
    run = Run(root, request["name"])
    there = [name for name in (*RESULTS, LOG) if (run.job / name).is_file()]
    return {"job": str(run.job), "files": {name: _sha256(run.job / name) for name in there}}


def stop(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """End the run, kindly and then not; return once its lock is free."""
    run = Run(root, request["name"])
    began = time.monotonic()
    told = False
    while run.runs():
        waited = time.monotonic() - began
        pid = run.read("job.pid").get("pid")
        if pid and not told:
            _signal(pid, signal.SIGTERM)
            told = True
        if pid and waited > _TERM_S:
            _kill_session(pid)
        if waited > _TERM_S + _KILL_S:
            raise Refusal(f"process {pid} does not end, not even by SIGKILL; look at it there")
        time.sleep(0.1)
    return {}


def remove(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Delete a run's directory, people's words with it. Refused while it runs."""
    run = Run(root, request["name"])
    if run.runs():
        raise Refusal(f"{run.path}: the run is still there; it is stopped before it is removed")
    if run.path.exists():
        shutil.rmtree(str(run.path))
    return {}


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _kill_session(leader: int) -> None:
    """Kill the job's process group, and whatever else is in its session where that can be seen."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if int(fields[3]) == leader:
                _signal(int(path.parent.name), signal.SIGKILL)


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while True:
            chunk = file.read(1 << 20)
            if not chunk:
                return found.hexdigest()
            found.update(chunk)


def _free_bytes(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(str(path)).free


_OPERATIONS = (look, machine, prepare, identify, start, follow, digest, stop, remove)
OPERATIONS = {operation.__name__: operation for operation in _OPERATIONS}


def main(request: dict[str, Any]) -> int:
    """Do one operation and print its answers; a failure is an answer too."""
    root = Path(request["root"]).expanduser()
    if not root.is_absolute():
        root = Path.home() / root
    try:
        answers: Any = OPERATIONS[request["operation"]](root, request)
        for answer in [answers] if isinstance(answers, dict) else answers:
            _say(answer)
    except BrokenPipeError:
        os._exit(1)  # nobody listens any more
    except (Refusal, OSError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        _say({"error": str(error), "full": full})
    return 0


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(MARK + json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
