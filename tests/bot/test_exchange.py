"""Import and export: a file is taken whole or not at all, twice is once, raw comes back equal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.exchange import ImportResult, export_raw, export_trl, import_file
from core.errors import InvalidInput
from storage.database import Database


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """A new database."""
    with Database(tmp_path / "thumbtune.db") as database:
        yield database


def line(**about: Any) -> dict[str, Any]:
    """A valid line, with these keys changed."""
    return {
        "messages": [{"role": "user", "content": "hi"}],
        "reply": "hello",
        "signal": "up",
        **about,
    }


def write(path: Path, *lines: dict[str, Any] | str) -> Path:
    texts = [each if isinstance(each, str) else json.dumps(each) for each in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def take(db: Database, path: Path, **how: Any) -> ImportResult:
    return import_file(db, path, default_scope="console", **how)


def test_each_signal_arrives_as_what_it_is(db: Database, tmp_path: Path) -> None:
    """The four signals become rows that train, by people who gave consent."""
    file = write(
        tmp_path / "in.jsonl",
        line(user="ada", at="2026-01-01T12:00:00+02:00"),
        line(user="bob", signal="down"),
        line(user="ada", signal="correction", correction="hello!"),
        line(user="ada", signal="preferred", rejected="go away"),
    )
    assert take(db, file) == ImportResult(added=4, unchanged=0, skipped=[])
    rows = db.feedback.rows("console", consented_only=True)
    assert {row.feedback.kind for row in rows} == {"up", "down", "correction", "preference"}
    assert rows[0].feedback.at == "2026-01-01T10:00:00.000000Z"
    assert {row.other_text for row in rows} == {None, "go away"}
    assert [person.platform for person in db.people.list()] == ["import", "import"]
    assert len({row.feedback.reply_id for row in rows}) == 1


def test_twice_is_once(db: Database, tmp_path: Path) -> None:
    """The same file again adds nothing, also where a user changed their mind in it."""
    file = write(
        tmp_path / "in.jsonl", line(), line(signal="down"), line(reply="x", at="2026-01-01")
    )
    assert take(db, file).added == 2
    assert take(db, file) == ImportResult(added=0, unchanged=3, skipped=[])
    assert [row.feedback.kind for row in db.feedback.rows("console")] == ["up", "down"]


def test_a_bad_line_refuses_the_whole_file(db: Database, tmp_path: Path) -> None:
    """Every fault is told with its line; nothing is stored."""
    file = write(
        tmp_path / "in.jsonl",
        line(),
        "",
        "{not json",
        "[1]",
        line(reply=" "),
        line(mood="bad"),
        line(signal="sideways"),
        line(messages=[{"role": "assistant", "content": "hi"}]),
        line(messages=[]),
        line(signal="correction"),
        line(signal="preferred", correction="x"),
        line(signal="correction", correction="hello"),
        line(scope="Not A Scope"),
        line(at="yesterday"),
        line(user=7),
    )
    with pytest.raises(InvalidInput) as refused:
        take(db, file)
    told = str(refused.value)
    for fault in (
        "13 bad lines, nothing was imported (--skip-bad leaves them out)",
        "line 3: not JSON",
        "line 4: not JSON: expected an object",
        "line 5: reply: is blank",
        "line 6: mood: no such key; known are messages, reply",
        "line 7: signal: ",
        "line 8: messages: the last is by 'assistant'; expected 'user'",
        "line 9: messages: ",
        "line 10: correction: is missing; signal 'correction' needs it",
        "line 11: correction: has no meaning for signal 'preferred'",
        "line 12: reply: is the same as",
        "line 13: scope 'Not A Scope'",
        "line 14: at: 'yesterday' is no time; expected ISO 8601",
        "line 15: user: ",
    ):
        assert fault in told, fault
    assert db.feedback.rows(None) == [] and db.people.list() == []


def test_skip_bad_takes_the_rest(db: Database, tmp_path: Path) -> None:
    """With skip_bad the good lines are stored and the bad ones named."""
    done = take(db, write(tmp_path / "in.jsonl", "nonsense", line()), skip_bad=True)
    assert done.added == 1 and len(done.skipped) == 1 and "line 1" in done.skipped[0]


def test_no_more_than_20_faults_are_told(db: Database, tmp_path: Path) -> None:
    """A file of rubbish does not fill the screen."""
    with pytest.raises(InvalidInput, match=r"and 10 more$") as refused:
        take(db, write(tmp_path / "in.jsonl", *["rubbish"] * 30))
    assert str(refused.value).count("not JSON: Expecting value at column 1") == 20


def test_strange_texts_are_taken(db: Database, tmp_path: Path) -> None:
    """Long messages, emoji, NUL, half characters, line separators, a BOM and CRLF all arrive."""
    texts = ["x" * 3000, "👍" * 50, "a\x00b", "\ud83d", "one\u2028two\u0085three", "naïve\r\n"]
    lines = [json.dumps(line(messages=[{"role": "user", "content": text}])) for text in texts]
    lines[4] = json.dumps(json.loads(lines[4]), ensure_ascii=False)
    file = tmp_path / "in.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert take(db, file).added == len(texts)
    stored = {row.prompt[0].content for row in db.feedback.rows("console")}
    assert stored == {texts[0], texts[1], "ab", "?", texts[4], texts[5]}


def test_another_encoding_is_a_clear_refusal(db: Database, tmp_path: Path) -> None:
    """Not UTF-8: the line, the byte and what to do."""
    file = tmp_path / "in.jsonl"
    file.write_bytes(json.dumps(line()).encode() + b"\n\xff\xfe")
    with pytest.raises(InvalidInput, match=r"line 2: not UTF-8.*0xff.*save the file as UTF-8"):
        take(db, file)
    with pytest.raises(InvalidInput, match="No such file"):
        take(db, tmp_path / "missing.jsonl")


def test_a_refusal_is_respected(db: Database, tmp_path: Path) -> None:
    """Who refused is not made to consent by an import, and their words are not exported."""
    person = db.people.ensure("import", "ada")
    db.people.set_consent(person.id, "refused", actor=person.id)
    take(db, write(tmp_path / "in.jsonl", line(user="ada"), line(user="bob")))
    assert len(db.feedback.rows("console", consented_only=True)) == 0
    assert export_raw(db, tmp_path / "out.jsonl") == 0


def test_our_own_export_comes_back_to_its_own_rows(db: Database, tmp_path: Path) -> None:
    """Importing an export into the database it came from adds nothing."""
    take(db, write(tmp_path / "in.jsonl", line(user="ada"), line(user="bob", signal="down")))
    ada = db.people.ensure("discord", "7", consent="given")
    reply_id = db.feedback.rows("console")[0].feedback.reply_id
    db.feedback.vote(reply_id, ada.id, "up")
    file = tmp_path / "out.jsonl"
    assert export_raw(db, file, scope="console") == 3
    assert take(db, file) == ImportResult(added=0, unchanged=3, skipped=[])
    assert export_raw(db, tmp_path / "none.jsonl", scope="other") == 0


def test_progress_is_told(db: Database, tmp_path: Path) -> None:
    """The caller hears of the last line too."""
    told: list[tuple[int, int]] = []
    lines = [line(reply=f"reply {number}") for number in range(150)]
    take(db, write(tmp_path / "in.jsonl", *lines), on_progress=lambda *done: told.append(done))
    assert told == [(100, 150), (150, 150)]


def test_trl_formats_hold_their_kind(db: Database, tmp_path: Path) -> None:
    """kto holds votes, dpo pairs, sft what is worth imitating; all conversational."""
    take(
        db,
        write(
            tmp_path / "in.jsonl",
            line(),
            line(reply="rude", signal="down"),
            line(reply="fine", signal="preferred", rejected="bad"),
        ),
    )
    out = tmp_path / "out.jsonl"
    held = {}
    for form in ("kto", "dpo", "sft"):
        export_trl(db, out, form)
        held[form] = [json.loads(each) for each in out.read_text().splitlines()]
    with pytest.raises(InvalidInput, match="expected one of kto, dpo, sft"):
        export_trl(db, out, "grpo")
    prompt = [{"role": "user", "content": "hi"}]
    assert {row["completion"][0]["content"]: row["label"] for row in held["kto"]} == {
        "hello": True,
        "rude": False,
    }
    assert held["dpo"] == [
        {
            "prompt": prompt,
            "chosen": [{"role": "assistant", "content": "fine"}],
            "rejected": [{"role": "assistant", "content": "bad"}],
        }
    ]
    assert [row["completion"][0]["content"] for row in held["sft"]] == ["hello"]


words = st.text(min_size=1, max_size=20)
spoken = words.filter(lambda text: text.replace("\x00", "").strip() != "")
turns = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": words}
    ),
    max_size=3,
)
moments = st.datetimes(
    min_value=datetime(1990, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)
)
kinds = st.one_of(
    st.fixed_dictionaries({"signal": st.sampled_from(["up", "down"])}),
    st.fixed_dictionaries({"signal": st.just("correction"), "correction": spoken}),
    st.fixed_dictionaries({"signal": st.just("preferred"), "rejected": spoken}),
)
lines_of_a_file = st.lists(
    st.builds(
        lambda before, last, reply, kind, user, scope, at: {
            "messages": [*before, {"role": "user", "content": last}],
            "reply": reply,
            **kind,
            "user": user,
            "scope": scope,
            "at": at.isoformat(),
        },
        turns,
        words,
        st.sampled_from(["yes", "no", "👍"]),
        kinds,
        spoken,
        st.sampled_from(["console", "guild-1"]),
        moments,
    ),
    max_size=6,
)


@given(lines_of_a_file)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_raw_export_imports_back_equal(lines: list[dict[str, Any]]) -> None:
    """Whatever was taken in, its export taken in elsewhere exports the same, byte for byte."""
    with TemporaryDirectory() as name:
        home = Path(name)
        write(home / "in.jsonl", *lines)
        exports = []
        for number, source in enumerate(["in.jsonl", "out0.jsonl"]):
            with Database(home / f"{number}.db") as db:
                take(db, home / source, skip_bad=True)
                export_raw(db, home / f"out{number}.jsonl")
            exports.append((home / f"out{number}.jsonl").read_bytes())
        assert exports[0] == exports[1]
