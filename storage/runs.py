"""Training runs: a state machine whose every step is stored before the next begins.

Invariant: a scope has at most one active run (a unique index holds it), and publishing a run's
adapter, ending the run and moving the pointer are one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from core.errors import Conflict, NotFound, RunInProgress
from core.files import process_alive
from core.records import ACTIVE_RUN_STATES, AdapterRecord, Run, RunState, new_id, utc_now
from storage.adapters import AdapterStore
from storage.connection import Connection
from storage.events import EventStore
from storage.rows import dump, to_run

_ACTIVE = "state IN ('queued', 'snapshot', 'training', 'judging', 'publishing')"
_FINAL: tuple[RunState, ...] = ("promoted", "canary", "refused", "failed", "cancelled")


Runs = list[Run]
Ids = list[str]


class RunStore:
    """The tables `runs`, `run_examples` and `run_people`."""

    def __init__(self, connection: Connection, events: EventStore, adapters: AdapterStore) -> None:
        self._connection = connection
        self._events = events
        self._adapters = adapters

    # -- writing

    def create(
        self,
        scope: str,
        *,
        recipe: str,
        owner_pid: int,
        directory: str | None = None,
        force: bool = False,
        actor: str = "system",
    ) -> Run:
        """Queue a run. Raises RunInProgress if the scope has one.

        `directory` is relative to the data directory and is `runs/<id>` unless named.
        """
        now = utc_now()
        run_id = new_id("run")
        with self._connection.transaction():
            self._refuse_second(scope)
            self._connection.run(
                """INSERT INTO runs(id, scope, recipe, directory, owner_pid, force, created_at,
                updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
                (
                    run_id,
                    scope,
                    recipe,
                    directory or f"runs/{run_id}",
                    owner_pid,
                    int(force),
                    now,
                    now,
                ),
            )
            self._events.add(actor, "run.queued", run_id, scope=scope, recipe=recipe, force=force)
            return self.get(run_id)

    def advance(
        self,
        run_id: str,
        state: RunState,
        *,
        detail: str = "",
        counts: dict[str, Any] | None = None,
        dataset_sha256: str | None = None,
        report: dict[str, Any] | None = None,
        adapter: str | None = None,
    ) -> Run:
        """Set the state and what is known by now; what is not given stays. Idempotent. An
        interrupted run is driven by nobody.

        Raises Conflict if the run has ended (an interrupted one may go on), RunInProgress if it
        would go on beside another.
        """
        with self._connection.transaction():
            run = self.get(run_id)
            if run.state in _FINAL and state != run.state:
                raise Conflict(f"run {run_id}: has ended ({run.state}) and cannot become {state}")
            if state in ACTIVE_RUN_STATES:
                self._refuse_second(run.scope, beside=run_id)
            self._connection.run(
                """UPDATE runs SET state = ?, detail = coalesce(nullif(?, ''), detail),
                counts = coalesce(?, counts), dataset_sha256 = coalesce(?, dataset_sha256),
                report = coalesce(?, report), adapter = coalesce(?, adapter), updated_at = ?,
                owner_pid = iif(? = 'interrupted', NULL, owner_pid) WHERE id = ?""",
                (
                    state,
                    detail,
                    dump(counts) if counts is not None else None,
                    dataset_sha256,
                    dump(report) if report is not None else None,
                    adapter,
                    utc_now(),
                    state,
                    run_id,
                ),
            )
            if state != run.state:
                self._events.add("system", f"run.{state}", run_id, scope=run.scope, why=detail)
            return self.get(run_id)

    def set_examples(self, run_id: str, feedback_ids: Iterable[str]) -> int:
        """Store which feedback a run uses and who stands behind it; return how many."""
        rows = [(run_id, feedback_id) for feedback_id in sorted(set(feedback_ids))]
        with self._connection.transaction():
            self.get(run_id)
            self._connection.run("DELETE FROM run_examples WHERE run_id = ?", (run_id,))
            self._connection.run("DELETE FROM run_people WHERE run_id = ?", (run_id,))
            for row in rows:
                self._connection.run(
                    "INSERT INTO run_examples(run_id, feedback_id) VALUES (?, ?)", row
                )
            self._connection.run(
                """INSERT INTO run_people(run_id, person_id)
                SELECT e.run_id, f.person_id FROM run_examples e JOIN feedback f ON f.id =
                e.feedback_id WHERE e.run_id = ?1
                UNION SELECT e.run_id, a.person_id FROM run_examples e
                JOIN feedback f ON f.id = e.feedback_id JOIN reply_authors a ON a.reply_id =
                f.reply_id WHERE e.run_id = ?1""",
                (run_id,),
            )
        return len(rows)

    def request_cancel(self, run_id: str, actor: str) -> Run:
        """Ask whoever drives the run to stop it. Idempotent. Raises Conflict if it has ended."""
        with self._connection.transaction():
            run = self.get(run_id)
            if run.state in _FINAL:
                raise Conflict(f"run {run_id}: has ended ({run.state}); there is nothing to cancel")
            if not run.cancel_requested:
                self._connection.run(
                    "UPDATE runs SET cancel_requested = 1, updated_at = ? WHERE id = ?",
                    (utc_now(), run_id),
                )
                self._events.add(actor, "run.cancel_requested", run_id, scope=run.scope)
            return self.get(run_id)

    def take_over(self, run_id: str, owner_pid: int) -> Run:
        """Drive a run whose process has died. Raises Conflict while another process drives it."""
        with self._connection.transaction():
            run = self.get(run_id)
            if run.owner_pid not in (None, owner_pid) and process_alive(run.owner_pid or 0):
                raise Conflict(
                    f"run {run_id}: process {run.owner_pid} is driving it; wait or cancel it"
                )
            self._connection.run(
                "UPDATE runs SET owner_pid = ?, updated_at = ? WHERE id = ?",
                (owner_pid, utc_now(), run_id),
            )
            if run.owner_pid != owner_pid:
                self._events.add("system", "run.taken_over", run_id, scope=run.scope)
            return self.get(run_id)

    def publish(
        self,
        run_id: str,
        record: AdapterRecord,
        *,
        verdict_state: Literal["promoted", "canary", "refused"],
        promote: bool,
        actor: str,
        detail: str = "",
        share: float = 0.0,
    ) -> Run:
        """Store the adapter, end the run and, if asked, move the pointer: all of it or nothing.

        With a `share` it goes on trial with so many new conversations instead of speaking at once.
        Doing it again changes nothing, even if the pointer was moved on since.
        """
        with self._connection.transaction():
            run = self.get(run_id)
            if run.state == verdict_state and run.adapter == record.name:
                return run
            self._adapters.add(record, actor=actor)
            if promote and share:
                self._adapters.begin_trial(record.name, share=share, actor=actor, detail=detail)
            elif promote:
                self._adapters.promote(record.name, actor=actor, force=run.force, detail=detail)
            return self.advance(run_id, verdict_state, adapter=record.name, detail=detail)

    def show(self, run_id: str, channel_id: str, message_id: str) -> None:
        """Store which message shows the run's progress; the last one wins. Raises NotFound."""
        with self._connection.transaction():
            self.get(run_id)
            self._connection.run(
                """INSERT INTO run_messages(run_id, channel_id, message_id) VALUES (?, ?, ?)
                ON CONFLICT DO UPDATE SET channel_id = excluded.channel_id,
                message_id = excluded.message_id""",
                (run_id, channel_id, message_id),
            )

    # -- reading

    def shown(self, run_id: str) -> tuple[str, str] | None:
        """Return (channel, message) where the run's progress is shown, or None."""
        row = self._connection.one(
            "SELECT channel_id, message_id FROM run_messages WHERE run_id = ?", (run_id,)
        )
        return (row["channel_id"], row["message_id"]) if row else None

    def get(self, run_id: str) -> Run:
        """Return a run. Raises NotFound."""
        row = self._connection.one("SELECT * FROM runs WHERE id = ?", (run_id,))
        if row is None:
            raise NotFound(f"run {run_id!r}: there is no such run; see `thumbtune runs list`")
        return to_run(row)

    def list(self, scope: str | None = None, limit: int = 20) -> Runs:
        """Return the newest runs, newest first."""
        rows = self._connection.all(
            """SELECT * FROM runs WHERE scope = ? OR ? IS NULL
            ORDER BY created_at DESC, rowid DESC LIMIT ?""",
            (scope, scope, limit),
        )
        return [to_run(row) for row in rows]

    def active(self, scope: str | None = None) -> Runs:
        """Return the runs that are not at an end, oldest first."""
        rows = self._connection.all(
            f"SELECT * FROM runs WHERE {_ACTIVE} AND (scope = ? OR ? IS NULL) ORDER BY created_at",  # noqa: S608 # a constant
            (scope, scope),
        )
        return [to_run(row) for row in rows]

    def unfinished(self) -> Runs:
        """Return the runs that go on or were interrupted; their directories hold people's words."""
        rows = self._connection.all(
            f"SELECT * FROM runs WHERE {_ACTIVE} OR state = 'interrupted' ORDER BY created_at"  # noqa: S608 # a constant
        )
        return [to_run(row) for row in rows]

    def of_person(self, person_id: str) -> Runs:
        """Return the runs that learnt from a person; their directories hold the person's words."""
        rows = self._connection.all(
            """SELECT r.* FROM runs r JOIN run_people p ON p.run_id = r.id WHERE p.person_id = ?
            ORDER BY r.created_at""",
            (person_id,),
        )
        return [to_run(row) for row in rows]

    def examples(self, run_id: str) -> Ids:
        """Return the ids of the feedback a run uses."""
        rows = self._connection.all(
            "SELECT feedback_id FROM run_examples WHERE run_id = ? ORDER BY feedback_id", (run_id,)
        )
        return [row["feedback_id"] for row in rows]

    def _refuse_second(self, scope: str, *, beside: str | None = None) -> None:
        others = [run for run in self.active(scope) if run.id != beside]
        if others:
            raise RunInProgress(
                f"scope {scope}: run {others[0].id} is {others[0].state}; wait for it, or "
                f"cancel it with `thumbtune runs cancel {others[0].id}`"
            )
