"""What a run on a cluster is made of, each part alone: parcels, the copy at home, the guard."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import TrainingError
from core.jobs import ADAPTER, LOG, PROGRESS, REPORT
from trainer.launchers.cluster.guarded import GuardedDirectory
from trainer.launchers.cluster.home import Home
from trainer.launchers.cluster.order import Order, private_home
from trainer.launchers.cluster.parcels import (
    PIECE_BYTES,
    Part,
    Read,
    fetch,
    files_below,
    parts_of,
    read_piece,
)
from trainer.launchers.cluster.worker import worth_keeping


def made(root: Path, **files: str | bytes) -> Path:
    """Write files below a directory; `__` in a name is a slash."""
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def reader(root: Path) -> Read:
    return lambda name, offset: read_piece(root, name, offset)


def test_files_of_any_size_arrive_whole(tmp_path: Path) -> None:
    """An empty file, one of several pieces and one in a folder are the sender's."""
    big = bytes(range(256)) * (PIECE_BYTES // 256) + b"and a bit"
    there = made(tmp_path / "there", empty="", big=big, a__b="deep")
    parts = parts_of(there, files_below(there))
    fetch(tmp_path / "here", parts, reader(there))
    assert parts_of(tmp_path / "here", files_below(tmp_path / "here")) == parts


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """One byte that is not the sender's, and the name of the file is told."""
    there = made(tmp_path / "there", a="right")
    parts = parts_of(there, files_below(there))
    made(there, a="wrong")
    with pytest.raises(TrainingError, match="a arrived damaged"):
        fetch(tmp_path / "here", parts, reader(there))


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", ""])
def test_no_name_leads_out_of_the_directory(tmp_path: Path, name: str) -> None:
    """A node cannot write elsewhere than into the job directory."""
    part = Part(name=name, size=1, sha256="0" * 64)
    with pytest.raises(TrainingError, match="inside the job directory"):
        fetch(tmp_path / "here", [part], lambda name, offset: b"x")


def test_a_copy_cut_off_in_a_line_goes_on_there(tmp_path: Path) -> None:
    """What is here is known by its size, after what an earlier launcher left, torn line and all."""
    home = Home(made(tmp_path, **{PROGRESS: '{"torn"'}))
    start = home.sizes()
    assert start == (len('{"torn"\n'), 0)
    theirs = b"one\ntwo\nthree\n"
    home.add(theirs[:6], b"log")
    at, log_at = home.offsets(*start)
    home.add(theirs[at:], b"")
    assert (tmp_path / PROGRESS).read_bytes() == b'{"torn"\n' + theirs
    assert (log_at, (tmp_path / LOG).read_bytes()) == (3, b"log")


def result(root: Path, **files: str) -> tuple[tuple[Part, ...], Read]:
    made(root / "result", **files)
    parts = parts_of(root / "result", files_below(root / "result"))
    return parts, reader(root)


def test_a_result_appears_whole_and_once(tmp_path: Path) -> None:
    """Adapter and report are the node's; a half adapter from before is replaced; again is idle."""
    parts, read = result(tmp_path / "there", adapter__w="weights", **{REPORT: "{}"})
    here = made(tmp_path / "here", adapter__w="old")
    for _ in range(2):
        Home(here).take(parts, read)
        assert (here / ADAPTER / "w").read_text() == "weights"
        assert sorted(path.name for path in here.iterdir()) == [ADAPTER, REPORT]


def test_a_result_without_a_report_is_refused(tmp_path: Path) -> None:
    """Nothing appears of one that is not whole."""
    parts, read = result(tmp_path / "there", adapter__w="weights")
    (tmp_path / "here").mkdir()
    with pytest.raises(TrainingError, match="brought adapter/w; expected"):
        Home(tmp_path / "here").take(parts, read)
    assert not list((tmp_path / "here").iterdir())


def test_what_another_node_could_go_on_from(tmp_path: Path) -> None:
    """Finished trees and the newest sealed checkpoint; nothing half-written."""
    made(
        tmp_path,
        **{
            "work__1-sft__w": "",
            "work__.2-kto.77.tmp__w": "",
            "work__2-kto.scratch__checkpoint-9__seal.json": "",
            "work__2-kto.scratch__checkpoint-10__seal.json": "",
            "work__2-kto.scratch__checkpoint-11__w": "",
        },
    )
    assert worth_keeping(tmp_path) == ("work/1-sft", "work/2-kto.scratch/checkpoint-10")


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_guard_cleans_up_behind_a_killed_process(tmp_path: Path) -> None:
    """kill -9: the directory goes, and so does what the job itself had started."""
    home = tmp_path / "home"
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from trainer.launchers.cluster.guarded import GuardedDirectory\n"
        f"home = GuardedDirectory(Path({str(home)!r}))\n"
        f"home.start(['sh', '-c', 'sleep 600 & echo $! >{tmp_path}/child; wait'], {{}}, "
        "home.path / 'log')\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    child = tmp_path / "child"
    until(lambda: child.exists() and child.read_text().endswith("\n"))
    process.kill()
    process.wait()
    until(lambda: not home.exists())
    until(lambda: not alive(int(child.read_text())))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def guards(directory: Path) -> list[str]:
    """The processes that name a directory in their command."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_text(encoding="utf-8", errors="replace"))
    return [command for command in found if str(directory) in command]


def test_a_guard_with_a_grace_spares_what_was_taken_over(tmp_path: Path) -> None:
    """A process started anew holds the lock; the first one's guard then leaves the directory."""
    from core.files import advisory_lock

    first = GuardedDirectory(tmp_path / "home", grace_s=0.2)
    with advisory_lock(tmp_path / "home" / "lock"):
        first.abandon()
        until(lambda: not guards(tmp_path))
        assert (tmp_path / "home").exists()
    second = GuardedDirectory(tmp_path / "home", grace_s=0.2)
    second.abandon()
    until(lambda: not (tmp_path / "home").exists())


def test_a_directory_of_somebody_else_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The private directory is ours alone; one that others may write to is refused."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    home = private_home()
    assert home.stat().st_mode & 0o777 == 0o700
    home.chmod(0o755)
    with pytest.raises(PermissionError, match="open to others"):
        private_home()


def test_an_order_says_what_it_asks_for() -> None:
    """In words that stand in a refusal and in the progress."""
    wanted = {"address": "head:6379", "retries": 3, "base": "", "timeout_s": 60.0}
    small = Order(gpus=0.5, memory_gb=0.0, threads=0, **wanted)
    assert small.asked() == "0.5 GPU, 1 CPU core"
    large = Order(gpus=1.0, memory_gb=24.0, threads=8, **wanted)
    assert large.asked() == "1 GPU, 8 CPU cores and 24 GB of memory"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("Version mismatch: The cluster was started with:\n  Ray: 2.9", "runs another version"),
        ("Can't find a raylet on this node", 'from outside a cluster write "ray://'),
        ("ray client connection timeout", "if it asks for a token, set RAY_AUTH_MODE=token"),
        ("something else", "cannot be used: something else"),
    ],
)
def test_what_ray_says_becomes_a_sentence(error: str, sentence: str) -> None:
    """A version, a machine that is no node, and anything else are told apart."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
    from trainer.launchers.cluster.connect import translated

    assert sentence in str(translated("head:6379", error))
