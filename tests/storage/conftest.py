"""A real database in a temporary directory, and a small world in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.generation import Message, Sampling
from core.records import AdapterRecord, Person, Reply
from storage.database import Database


@dataclass(frozen=True)
class Chat:
    """A database with one scope, one consenting person and one conversation."""

    db: Database
    person: Person
    conversation: str

    def someone(self, name: str, **about: object) -> Person:
        """Make another person."""
        return self.db.people.ensure("discord", name, display_name=name, **about)  # type: ignore[arg-type]

    def say(self, text: str, reply: str = "an answer", by: Person | None = None) -> Reply:
        """Store a message and the finished reply to it."""
        person = by or self.person
        self.db.conversations.add_turn(
            self.conversation, role="user", text=text, person_id=person.id
        )
        turns = self.db.conversations.history(self.conversation, limit=20)
        prompt = tuple(Message(turn.role, turn.text) for turn in turns)
        authors = [turn.person_id for turn in turns if turn.person_id]
        return self.finish(self.start(prompt, authors=authors), reply)

    def start(
        self,
        prompt: tuple[Message, ...] = (),
        *,
        authors: list[str],
        replaces: str | None = None,
        kept: bool = True,
        sources: Sequence[str] = (),
    ) -> Reply:
        """Store a pending reply."""
        return self.db.replies.start(
            conversation_id=self.conversation,
            scope="console",
            prompt=prompt,
            adapter="base",
            sampling=Sampling(seed=7, stop=("\n",)),
            authors=authors,
            replaces=replaces,
            kept=kept,
            sources=sources,
        )

    def finish(self, reply: Reply, text: str, *, in_history: bool = True) -> Reply:
        """Finish a pending reply."""
        return self.db.replies.finish(
            reply.id,
            text=text,
            seed=7,
            finish_reason="stop",
            prompt_tokens=3,
            tokens=2,
            first_token_s=0.1,
            total_s=0.2,
            in_history=in_history,
        )


def chat_in(db: Database) -> Chat:
    """Fill a new database with the small world."""
    db.scopes.ensure("console")
    person = db.people.ensure("console", "ada", display_name="Ada", consent="given")
    return Chat(db, person, db.conversations.open("console", person_id=person.id))


def adapter(version: int, **about: object) -> AdapterRecord:
    """Make the record of a published version of the console's adapter."""
    values: dict[str, object] = {
        "name": f"console@v{version}",
        "scope": "console",
        "version": version,
        "base_sha256": "b" * 64,
        "run_id": None,
        "directory": f"adapters/console/v{version}",
        "sha256": f"{version:064d}",
        "state": "candidate",
        "detail": "",
        "created_at": "2026-01-01T00:00:00.000000Z",
    }
    return AdapterRecord(**{**values, **about})  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database lies."""
    return tmp_path / "thumbtune.db"


@pytest.fixture
def db(path: Path) -> Iterator[Database]:
    """A new database."""
    with Database(path) as database:
        yield database


@pytest.fixture
def chat(db: Database) -> Chat:
    """The small world."""
    return chat_in(db)


@pytest.fixture
def reopen(path: Path) -> Callable[..., Database]:
    """Open the database once more, as another process would."""
    return lambda **how: Database(path, **how)
