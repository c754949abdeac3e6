"""Adapter versions and the pointers that say which one speaks.

Invariant: a name is used once and for ever; promotion and rollback move the pointers and both
adapters' states in one transaction, so at every moment exactly the adapter that `scopes.live` names
is `live`, and exactly the one that `scopes.canary` names has a canary's trial going on against it.
Whatever moves the live pointer ends that trial: what was compared is no longer what speaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from core.errors import Conflict, NotFound
from core.generation import BASE
from core.records import AdapterRecord, AdapterState, Scope, Trial, utc_now
from storage.connection import Connection
from storage.events import EventStore
from storage.rows import dump, to_adapter
from storage.scopes import ScopeStore
from storage.trials import TrialStore

_LEARNT_FROM_FORGOTTEN = """EXISTS (SELECT 1 FROM run_people l JOIN people p ON p.id = l.person_id
    WHERE l.run_id = ?11 AND p.forgotten_at IS NOT NULL)
    OR EXISTS (SELECT 1 FROM runs WHERE id = ?11 AND text_withdrawn)"""


Adapters = list[AdapterRecord]
Names = list[str]


class AdapterStore:
    """The table `adapters` and the pointers in `scopes`."""

    def __init__(
        self,
        connection: Connection,
        events: EventStore,
        scopes: ScopeStore,
        trials: TrialStore,
    ) -> None:
        self._connection = connection
        self._events = events
        self._scopes = scopes
        self._trials = trials

    # -- writing

    def next_version(self, scope: str) -> int:
        """Reserve the next version number of a scope; it is never given out again."""
        with self._connection.transaction():
            self._scopes.ensure(scope)
            self._connection.run(
                "UPDATE scopes SET last_version = last_version + 1 WHERE name = ?", (scope,)
            )
            return int(
                self._connection.value("SELECT last_version FROM scopes WHERE name = ?", (scope,))
            )

    def add(self, record: AdapterRecord, *, actor: str = "system") -> AdapterRecord:
        """Store a published adapter; the same one again changes nothing.

        Raises Conflict if the name stands for other content.
        """
        with self._connection.transaction():
            known = self._find(record.name)
            if known and known.sha256 != record.sha256:
                raise Conflict(
                    f"adapter {record.name}: already stored with SHA-256 {known.sha256}, not "
                    f"{record.sha256}; a version is immutable, publish under the next number"
                )
            if known is None:
                self._scopes.ensure(record.scope)
                self._insert(record)
                self._events.add(
                    actor, "adapter.added", record.name, state=record.state, run=record.run_id
                )
            return self.get(record.name)

    def set_state(
        self, name: str, state: AdapterState, *, actor: str, detail: str = ""
    ) -> AdapterRecord:
        """Set a state other than `live` and `canary`; a trial of the adapter ends with that.

        Raises Conflict for these two and for an adapter that is live: use promote, begin_trial,
        rollback or withdraw.
        """
        with self._connection.transaction():
            record = self.get(name)
            if ("live" in (state, record.state) or state == "canary") and state != record.state:
                raise Conflict(
                    f"adapter {name}: is {record.state} and cannot be set to {state} directly; "
                    "promote it, roll back, or promote another"
                )
            if state != "canary":
                self._stop_trial(record, actor, detail or f"set to {state}")
            self._mark(name, state, detail)
            self._events.add(actor, f"adapter.{state}", name, before=record.state)
            return self.get(name)

    def promote(self, name: str, *, actor: str, force: bool = False, detail: str = "") -> Scope:
        """Let an adapter speak in its scope from the next reply on. Idempotent.

        Raises Conflict for a refused adapter, unless forced.
        """
        with self._connection.transaction():
            record = self.get(name)
            if record.state == "refused" and not force:
                raise Conflict(
                    f"adapter {name}: was refused ({record.detail or 'no reason kept'}); "
                    "promote another, or force it"
                )
            return self._flip(record.scope, name, "adapter.promoted", actor, detail, forced=force)

    def promote_base(self, scope: str, *, actor: str, detail: str = "") -> Scope:
        """Let the base model alone speak in a scope from the next reply on. Idempotent."""
        with self._connection.transaction():
            return self._flip(scope, None, "adapter.base_promoted", actor, detail)

    def begin_trial(self, name: str, *, share: float, actor: str, detail: str = "") -> Trial:
        """Let an adapter answer a share of its scope's new conversations. Idempotent.

        A canary that is on trial makes room and is retired: the newer one learnt from more. Raises
        Conflict for an adapter that is refused or live.
        """
        with self._connection.transaction():
            record = self.get(name)
            if record.state in ("refused", "live"):
                raise Conflict(f"adapter {name}: is {record.state} and cannot go on trial")
            scope = self._scopes.get(record.scope)
            if scope.canary != name:
                self._leave_trial(scope, "undecided", "retired", actor, f"{name} takes its place")
                self._mark(name, "canary", detail)
                self._connection.run(
                    "UPDATE scopes SET canary = ? WHERE name = ?", (name, scope.name)
                )
                self._events.add(actor, "adapter.canary", name, share=share, why=detail)
            return self._trials.ensure(
                scope.name,
                "canary",
                candidate=name,
                reference=scope.live or BASE,
                share=share,
            )

    def end_trial(
        self, scope: str, shown: Literal["worse", "undecided"], *, actor: str, why: str
    ) -> Scope:
        """Let the live adapter speak everywhere again: a canary that was worse is refused, an
        undecided one is a candidate. Idempotent.
        """
        with self._connection.transaction():
            state: AdapterState = "refused" if shown == "worse" else "candidate"
            self._leave_trial(self._scopes.get(scope), shown, state, actor, why)
            return self._scopes.get(scope)

    def rollback(self, scope: str, *, actor: str, detail: str = "") -> Scope:
        """Take back what was changed last: a canary on trial is retired and who is live speaks
        everywhere; without one, flip back to what spoke before (perhaps the base); again flips
        forth.

        Raises Conflict if nothing spoke before, or if that was refused meanwhile.
        """
        with self._connection.transaction():
            now = self._scopes.get(scope)
            if now.canary:
                why = detail or "taken back by hand"
                self._leave_trial(now, "undecided", "retired", actor, why)
                return self._scopes.get(scope)
            if now.live is None and now.previous is None:
                raise Conflict(
                    f"scope {scope}: no adapter was ever promoted here, nothing to roll back"
                )
            if now.previous and self.get(now.previous).state == "refused":
                raise Conflict(
                    f"scope {scope}: {now.previous}, which spoke before, was refused meanwhile; "
                    "promote another version or the base"
                )
            return self._flip(scope, now.previous, "adapter.rolled_back", actor, detail)

    def withdraw(
        self, name: str, *, fallback: str | None, reason: str, actor: str = "system"
    ) -> Scope:
        """Refuse an adapter that could not be loaded and point its scope at `fallback` (None:
        base).

        If the scope points elsewhere meanwhile, only the state is set.
        """
        with self._connection.transaction():
            record = self.get(name)
            if self._scopes.get(record.scope).live == name:
                self._flip(record.scope, fallback, "adapter.withdrawn", actor, reason)
            self._stop_trial(record, actor, reason)
            self._mark(name, "refused", reason)
            self._connection.run(
                "UPDATE scopes SET previous = NULL WHERE name = ? AND previous = ?",
                (record.scope, name),
            )
            self._events.add(actor, "adapter.refused", name, before=record.state)
            return self._scopes.get(record.scope)

    def flag_for_retraining(self, person_id: str) -> list[str]:
        """Mark the adapters that learnt from a person as to be replaced; return their names.

        A run that is still going on is marked too: what it publishes is to be replaced.
        """
        return self._flag("SELECT run_id FROM run_people WHERE person_id = ?", person_id)

    def flag_learnt_from(self, feedback_ids: Sequence[str]) -> list[str]:
        """Mark the adapters whose runs used any of these rows; else as flag_for_retraining."""
        return self._flag(
            "SELECT run_id FROM run_examples WHERE feedback_id IN (SELECT value FROM json_each(?))",
            dump(list(feedback_ids)),
        )

    # -- reading

    def get(self, name: str) -> AdapterRecord:
        """Return an adapter. Raises NotFound."""
        record = self._find(name)
        if record is None:
            raise NotFound(
                f"adapter {name!r}: there is no such version; see `thumbtune adapters list`"
            )
        return record

    def list(self, scope: str | None = None) -> Adapters:
        """Return every version, by scope and number."""
        rows = self._connection.all(
            "SELECT * FROM adapters WHERE scope = ? OR ? IS NULL ORDER BY scope, version",
            (scope, scope),
        )
        return [to_adapter(row) for row in rows]

    def needing_retraining(self, scope: str | None = None) -> Adapters:
        """Return the versions that learnt from somebody who asked to be forgotten."""
        rows = self._connection.all(
            """SELECT * FROM adapters WHERE needs_retraining AND (scope = ? OR ? IS NULL)
            ORDER BY scope, version""",
            (scope, scope),
        )
        return [to_adapter(row) for row in rows]

    # -- private

    def _flag(self, runs: str, parameter: str) -> Names:
        """Mark the runs that a query names, and their adapters."""
        self._connection.run(
            f"UPDATE runs SET text_withdrawn = 1 WHERE id IN ({runs})",  # noqa: S608 # a constant
            (parameter,),
        )
        rows = self._connection.all(
            f"UPDATE adapters SET needs_retraining = 1 WHERE run_id IN ({runs}) RETURNING name",  # noqa: S608 # a constant
            (parameter,),
        )
        return sorted(row["name"] for row in rows)

    def _flip(
        self,
        scope: str,
        live: str | None,
        action: str,
        actor: str,
        detail: str,
        *,
        forced: bool = False,
    ) -> Scope:
        before = self._scopes.get(scope)
        if before.live == live:
            return before
        waits: AdapterState | None = None if live == before.canary else "candidate"
        self._leave_trial(before, "undecided", waits, actor, f"{live or BASE} speaks now")
        if before.live:
            self._mark(before.live, "retired")
            self._events.add(actor, "adapter.retired", before.live, after=live or BASE)
        if live:
            self._mark(live, "live", detail)
        self._connection.run(
            "UPDATE scopes SET live = ?, previous = live, live_since = ? WHERE name = ?",
            (live, utc_now(), scope),
        )
        told = {"scope": scope, "before": before.live or BASE, "why": detail, "forced": forced}
        self._events.add(actor, action, live or BASE, **told)
        return self._scopes.get(scope)

    def _stop_trial(self, record: AdapterRecord, actor: str, why: str) -> None:
        """End the trial of an adapter, if it has one; its state is set by whoever ends it."""
        scope = self._scopes.get(record.scope)
        if scope.canary == record.name:
            self._leave_trial(scope, "undecided", None, actor, why)

    def _leave_trial(
        self,
        scope: Scope,
        shown: Literal["worse", "undecided"],
        state: AdapterState | None,
        actor: str,
        why: str,
    ) -> None:
        """Clear the canary's pointer, close its trial unless that was done, and set its state
        unless that is None.
        """
        if scope.canary is None:
            return
        trial = self._trials.canary(scope.name)
        if trial is not None:
            self._trials.close(trial.id, shown, actor=actor, why=why)
        self._connection.run("UPDATE scopes SET canary = NULL WHERE name = ?", (scope.name,))
        if state is not None:
            self._mark(scope.canary, state, why)
            self._events.add(actor, f"adapter.{state}", scope.canary, before="canary", why=why)

    def _mark(self, name: str, state: AdapterState, detail: str = "") -> None:
        """Set a state; an empty detail leaves the old one."""
        self._connection.run(
            """UPDATE adapters SET state = ?, detail = coalesce(nullif(?, ''), detail)
            WHERE name = ?""",
            (state, detail, name),
        )

    def _find(self, name: str) -> AdapterRecord | None:
        row = self._connection.one("SELECT * FROM adapters WHERE name = ?", (name,))
        return to_adapter(row) if row else None

    def _insert(self, record: AdapterRecord) -> None:
        self._connection.run(
            f"""INSERT INTO adapters(name, scope, version, base_sha256, run_id, directory, sha256,
            state, detail, created_at, needs_retraining)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {_LEARNT_FROM_FORGOTTEN})""",  # noqa: S608 # a constant
            (
                record.name,
                record.scope,
                record.version,
                record.base_sha256,
                record.run_id,
                record.directory,
                record.sha256,
                record.state,
                record.detail,
                record.created_at,
                record.run_id,
            ),
        )
        self._connection.run(
            "UPDATE scopes SET last_version = max(last_version, ?) WHERE name = ?",
            (record.version, record.scope),
        )
