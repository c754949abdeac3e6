"""Runs: one at a time for a scope, and published whole."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import Conflict, NotFound, RunInProgress
from core.records import Run
from storage.database import Database
from tests.storage.conftest import adapter


def start(db: Database, scope: str = "console") -> Run:
    db.scopes.ensure(scope)
    return db.runs.create(scope, recipe="kto", owner_pid=os.getpid(), actor="cli")


def test_a_scope_has_one_active_run(db: Database) -> None:
    """A second is refused with the first one's name; another scope's run is free."""
    run = start(db)
    assert (run.state, run.directory) == ("queued", f"runs/{run.id}")
    with pytest.raises(RunInProgress, match=f"run {run.id} is queued.*runs cancel {run.id}"):
        start(db)
    assert start(db, "guild").scope == "guild"
    assert [each.scope for each in db.runs.active()] == ["console", "guild"]
    assert [each.id for each in db.runs.active("console")] == [run.id]


def test_the_index_holds_what_the_code_promises(db: Database, path: Path) -> None:
    """Even writing past the store, a second active run is impossible."""
    start(db)
    with sqlite3.connect(path) as raw, pytest.raises(sqlite3.IntegrityError):
        raw.execute(
            "INSERT INTO runs(id, scope, recipe, directory, created_at, updated_at)"
            " VALUES ('run_2', 'console', 'kto', 'd', 't', 't')"
        )
    raw.close()


def test_what_is_known_grows(db: Database) -> None:
    """Each step adds; what is not given stays."""
    run = start(db)
    db.runs.advance(run.id, "snapshot", counts={"liked": 3}, dataset_sha256="d")
    db.runs.advance(run.id, "judging", report={"margin": 0.5})
    done = db.runs.advance(run.id, "failed", detail="no space")
    assert (done.counts, done.dataset_sha256, done.report) == ({"liked": 3}, "d", {"margin": 0.5})
    assert (done.state, done.detail) == ("failed", "no space")
    assert [event.action for event in db.events.list(subject=run.id)] == [
        "run.failed",
        "run.judging",
        "run.snapshot",
        "run.queued",
    ]


def test_an_ended_run_stays_ended(db: Database) -> None:
    """It cannot go on or be cancelled; saying its end again changes nothing."""
    run = start(db)
    ended = db.runs.advance(run.id, "cancelled")
    assert db.runs.advance(run.id, "cancelled").state == ended.state
    with pytest.raises(Conflict, match=r"has ended \(cancelled\)"):
        db.runs.advance(run.id, "training")
    with pytest.raises(Conflict, match="nothing to cancel"):
        db.runs.request_cancel(run.id, "cli")


def test_an_interrupted_run_may_go_on_alone(db: Database) -> None:
    """It goes on, but not beside another that was started since."""
    run = start(db)
    db.runs.advance(run.id, "interrupted")
    other = start(db)
    with pytest.raises(RunInProgress, match=other.id):
        db.runs.advance(run.id, "training")
    db.runs.advance(other.id, "cancelled")
    assert db.runs.advance(run.id, "training").state == "training"


def test_a_dead_processs_run_is_taken_over(db: Database) -> None:
    """A run is taken from a dead process, never from a living one."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    run = start(db)
    with pytest.raises(Conflict, match=f"process {os.getpid()} is driving it"):
        db.runs.take_over(run.id, gone.pid)
    db.runs.advance(run.id, "interrupted")
    dead = db.runs.create("console", recipe="kto", owner_pid=gone.pid)
    assert db.runs.take_over(dead.id, os.getpid()).owner_pid == os.getpid()


def test_an_interrupted_run_is_driven_by_nobody(db: Database) -> None:
    """Its process may live on: whoever takes it up first drives it, and nobody else then."""
    run = start(db)
    assert db.runs.advance(run.id, "interrupted").owner_pid is None
    assert db.runs.take_over(run.id, os.getppid()).owner_pid == os.getppid()
    with pytest.raises(Conflict, match=f"process {os.getppid()} is driving it"):
        db.runs.take_over(run.id, os.getpid())


def test_a_cancel_is_asked_for_once(db: Database) -> None:
    """Asking again changes nothing."""
    run = start(db)
    assert db.runs.request_cancel(run.id, "cli") == db.runs.request_cancel(run.id, "cli")
    assert db.runs.get(run.id).cancel_requested


def test_publishing_is_one_step_and_can_be_repeated(db: Database) -> None:
    """Adapter, end of the run and pointer come together; again, after a rollback, moves nothing."""
    run = start(db)
    record = adapter(1, run_id=run.id)
    for _ in range(2):
        done = db.runs.publish(
            run.id, record, verdict_state="promoted", promote=True, actor="cli", detail="better"
        )
        assert (done.state, done.adapter) == ("promoted", "console@v1")
    assert db.scopes.get("console").live == "console@v1"
    db.adapters.rollback("console", actor="cli")
    db.runs.publish(run.id, record, verdict_state="promoted", promote=True, actor="cli")
    assert db.scopes.get("console").live is None


def test_a_refused_candidate_is_kept_and_not_live(db: Database) -> None:
    """The row and the reason stay, the pointer does not move."""
    run = start(db)
    record = adapter(1, run_id=run.id, state="refused", detail="too few people")
    db.runs.publish(run.id, record, verdict_state="refused", promote=False, actor="cli")
    assert db.adapters.get("console@v1").detail == "too few people"
    assert db.scopes.get("console").live is None and db.runs.active() == []


def test_publishing_fails_whole(db: Database) -> None:
    """If the pointer cannot move, neither the adapter nor the run's end is stored."""
    run = start(db)
    record = adapter(1, run_id=run.id, state="refused", detail="bad")
    with pytest.raises(Conflict, match="was refused"):
        db.runs.publish(run.id, record, verdict_state="promoted", promote=True, actor="cli")
    assert db.adapters.list() == [] and db.runs.get(run.id).state == "queued"


def test_examples_are_replaced_whole(db: Database) -> None:
    """Storing the examples again, as after a crash, leaves the new ones."""
    run = start(db)
    assert db.runs.set_examples(run.id, ["f_2", "f_1", "f_2"]) == 2
    db.runs.set_examples(run.id, ["f_3"])
    assert db.runs.examples(run.id) == ["f_3"]


def test_unknown_runs_are_named(db: Database) -> None:
    """A run that is not there is told by its id; the list is newest first."""
    with pytest.raises(NotFound, match="run 'run_0'"):
        db.runs.get("run_0")
    first = start(db)
    db.runs.advance(first.id, "failed")
    second = start(db)
    assert [run.id for run in db.runs.list("console")] == [second.id, first.id]
