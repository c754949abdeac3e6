"""The schema as a list of steps, oldest first. A released step is never changed; a new one is
appended.

Each step and its record commit together (see storage.schema), so a database is always at one step
exactly.
"""

from __future__ import annotations

from storage.sqlite import Migrations, sqlite_utils

SET_NAME = "thumbtune"
migrations = Migrations(SET_NAME)


@migrations()
def m001_create_tables(db: sqlite_utils.Database) -> None:
    """Make the tables of the loop: people, chats, replies, feedback, runs, adapters, audit."""
    for statement in _BASE_TABLES:
        db.execute(statement)


@migrations()
def m002_create_trials(db: sqlite_utils.Database) -> None:
    """Make the tallies of canaries and arenas, and an index from a reply to its versions."""
    db.execute(
        """CREATE TABLE trials (
            id TEXT PRIMARY KEY,
            scope TEXT NOT NULL REFERENCES scopes(name),
            kind TEXT NOT NULL CHECK (kind IN ('canary', 'arena')),
            candidate TEXT NOT NULL,
            reference TEXT NOT NULL,
            candidate_wins INTEGER NOT NULL DEFAULT 0,
            candidate_losses INTEGER NOT NULL DEFAULT 0,
            reference_wins INTEGER NOT NULL DEFAULT 0,
            reference_losses INTEGER NOT NULL DEFAULT 0,
            state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'better', 'worse',
            'undecided')), created_at TEXT NOT NULL,
            updated_at TEXT NOT NULL
        ) STRICT"""
    )
    db.execute("CREATE INDEX replies_by_origin ON replies(origin)")


@migrations()
def m003_track_who_a_run_learnt_from(db: sqlite_utils.Database) -> None:
    """Keep who stands behind each run: forgetting somebody finds the adapters to retrain."""
    db.execute(
        """CREATE TABLE run_people (
            run_id TEXT NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
            person_id TEXT NOT NULL REFERENCES people(id),
            PRIMARY KEY (run_id, person_id)
        ) STRICT, WITHOUT ROWID"""
    )
    db.execute("CREATE INDEX run_people_by_person ON run_people(person_id)")
    db.execute(
        """INSERT INTO run_people(run_id, person_id)
        SELECT e.run_id, f.person_id FROM run_examples e JOIN feedback f ON f.id = e.feedback_id
        UNION
        SELECT e.run_id, a.person_id FROM run_examples e JOIN feedback f ON f.id = e.feedback_id
        JOIN reply_authors a ON a.reply_id = f.reply_id"""
    )
    db.execute("ALTER TABLE people ADD COLUMN forgotten_at TEXT")
    db.execute("ALTER TABLE adapters ADD COLUMN needs_retraining INTEGER NOT NULL DEFAULT 0")


@migrations()
def m004_tell_kept_replies_from_others(db: sqlite_utils.Database) -> None:
    """Let a reply be stored without text, and keep which messages it was made from and shown by."""
    db.execute("ALTER TABLE replies ADD COLUMN kept INTEGER NOT NULL DEFAULT 1")
    for statement in _MESSAGE_TABLES:
        db.execute(statement)
    db.execute(
        """INSERT OR IGNORE INTO reply_messages(message_id, channel_id, reply_id, position, at)
        SELECT CAST(shown.value AS TEXT), '', r.id, shown.key, r.at
        FROM replies r, json_each(r.platform_message_ids) shown ORDER BY r.at DESC, r.rowid DESC"""
    )
    db.execute("ALTER TABLE replies DROP COLUMN platform_message_ids")
    db.execute("CREATE INDEX replies_by_time ON replies(at)")
    db.execute("CREATE INDEX turns_by_time ON turns(at)")


@migrations()
def m005_create_places(db: sqlite_utils.Database) -> None:
    """Keep what a server or a channel sets for itself, and where a run's progress is shown."""
    db.execute(
        """CREATE TABLE places (
            key TEXT PRIMARY KEY,
            settings TEXT NOT NULL DEFAULT '{}',
            updated_at TEXT NOT NULL
        ) STRICT"""
    )
    db.execute(
        """CREATE TABLE run_messages (
            run_id TEXT PRIMARY KEY REFERENCES runs(id) ON DELETE CASCADE,
            channel_id TEXT NOT NULL,
            message_id TEXT NOT NULL
        ) STRICT"""
    )


@migrations()
def m006_count_trials_by_their_votes(db: sqlite_utils.Database) -> None:
    """Replace the counters of trials, never used until now, by matches and each person's choice."""
    db.execute("DROP TABLE trials")
    for statement in _TRIAL_TABLES:
        db.execute(statement)


@migrations()
def m007_mark_what_was_reviewed(db: sqlite_utils.Database) -> None:
    """Keep when feedback was reviewed, and which runs learnt from text that had to go."""
    db.execute("ALTER TABLE feedback ADD COLUMN reviewed_at TEXT")
    db.execute("ALTER TABLE runs ADD COLUMN text_withdrawn INTEGER NOT NULL DEFAULT 0")


@migrations()
def m008_say_where_consent_begins(db: sqlite_utils.Database) -> None:
    """Keep from which message of the platform on a person's consent holds; 0 is from the first."""
    db.execute("ALTER TABLE people ADD COLUMN consent_from INTEGER NOT NULL DEFAULT 0")


@migrations()
def m009_try_a_canary(db: sqlite_utils.Database) -> None:
    """Keep the share of a canary's trial, and which replies take part in it on which side."""
    db.execute("ALTER TABLE trials ADD COLUMN share REAL")
    for statement in _CANARY_TABLES:
        db.execute(statement)


@migrations()
def m010_create_api_keys(db: sqlite_utils.Database) -> None:
    """Keep who may speak to the HTTP API: hashes of keys, never a key."""
    db.execute(
        """CREATE TABLE api_keys (
            name TEXT PRIMARY KEY,
            sha256 TEXT NOT NULL UNIQUE,
            role TEXT NOT NULL CHECK (role IN ('user', 'admin')),
            scope TEXT NOT NULL,
            consented INTEGER NOT NULL,
            created_at TEXT NOT NULL,
            revoked_at TEXT
        ) STRICT"""
    )


@migrations()
def m011_say_whose_servers_these_are(db: sqlite_utils.Database) -> None:
    """Keep which group of servers a database holds, so that no other group's bot uses it."""
    db.execute(
        """CREATE TABLE discord_group (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            number INTEGER NOT NULL,
            total INTEGER NOT NULL CHECK (number BETWEEN 0 AND total - 1),
            shards INTEGER NOT NULL,
            claimed_at TEXT NOT NULL
        ) STRICT"""
    )


_CANARY_TABLES = (
    """CREATE TABLE trial_replies (
        reply_id TEXT PRIMARY KEY REFERENCES replies(id) ON DELETE CASCADE,
        trial_id TEXT NOT NULL REFERENCES trials(id) ON DELETE CASCADE,
        talk TEXT NOT NULL,
        canary INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX trial_replies_by_trial ON trial_replies(trial_id)",
)

_MESSAGE_TABLES = (
    """CREATE TABLE reply_messages (
        message_id TEXT PRIMARY KEY,
        channel_id TEXT NOT NULL,
        reply_id TEXT NOT NULL REFERENCES replies(id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        at TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX reply_messages_by_reply ON reply_messages(reply_id)",
    "CREATE INDEX reply_messages_by_channel ON reply_messages(channel_id, at)",
    "CREATE INDEX reply_messages_by_time ON reply_messages(at)",
    """CREATE TABLE reply_sources (
        reply_id TEXT NOT NULL REFERENCES replies(id) ON DELETE CASCADE,
        message_id TEXT NOT NULL,
        PRIMARY KEY (reply_id, message_id)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX reply_sources_by_message ON reply_sources(message_id)",
    """CREATE TABLE reactions (
        message_id TEXT NOT NULL REFERENCES reply_messages(message_id) ON DELETE CASCADE,
        person_id TEXT NOT NULL REFERENCES people(id),
        kind TEXT NOT NULL CHECK (kind IN ('up', 'down')),
        PRIMARY KEY (message_id, person_id, kind)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX reactions_by_person ON reactions(person_id)",
)

_TRIAL_TABLES = (
    """CREATE TABLE trials (
        id TEXT PRIMARY KEY,
        scope TEXT NOT NULL REFERENCES scopes(name),
        kind TEXT NOT NULL CHECK (kind IN ('canary', 'arena')),
        candidate TEXT NOT NULL,
        reference TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT 'open'
            CHECK (state IN ('open', 'better', 'worse', 'undecided')),
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL
    ) STRICT""",
    """CREATE UNIQUE INDEX trials_one_open ON trials(scope, kind, candidate, reference)
        WHERE state = 'open'""",
    """CREATE TABLE matches (
        id TEXT PRIMARY KEY,
        trial_id TEXT NOT NULL REFERENCES trials(id) ON DELETE CASCADE,
        candidate_reply TEXT NOT NULL REFERENCES replies(id) ON DELETE CASCADE,
        reference_reply TEXT NOT NULL REFERENCES replies(id) ON DELETE CASCADE,
        candidate_first INTEGER NOT NULL,
        at TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX matches_by_trial ON matches(trial_id)",
    "CREATE INDEX matches_by_candidate ON matches(candidate_reply)",
    "CREATE INDEX matches_by_reference ON matches(reference_reply)",
    """CREATE TABLE match_votes (
        match_id TEXT NOT NULL REFERENCES matches(id) ON DELETE CASCADE,
        person_id TEXT NOT NULL REFERENCES people(id),
        choice TEXT NOT NULL CHECK (choice IN ('candidate', 'reference', 'tie')),
        at TEXT NOT NULL,
        PRIMARY KEY (match_id, person_id)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX match_votes_by_person ON match_votes(person_id)",
)

_BASE_TABLES = (
    """CREATE TABLE scopes (
        name TEXT PRIMARY KEY,
        persona TEXT NOT NULL DEFAULT '',
        training_enabled INTEGER NOT NULL DEFAULT 1,
        live TEXT,
        previous TEXT,
        canary TEXT,
        live_since TEXT,
        last_version INTEGER NOT NULL DEFAULT 0,
        created_at TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE people (
        id TEXT PRIMARY KEY,
        platform TEXT NOT NULL,
        platform_id TEXT NOT NULL,
        display_name TEXT NOT NULL DEFAULT '',
        consent TEXT NOT NULL DEFAULT 'unknown' CHECK (consent IN ('unknown', 'given', 'refused')),
        consent_at TEXT,
        last_seen TEXT,
        created_at TEXT NOT NULL,
        UNIQUE (platform, platform_id)
    ) STRICT""",
    """CREATE TABLE conversations (
        id TEXT PRIMARY KEY,
        scope TEXT NOT NULL REFERENCES scopes(name),
        person_id TEXT REFERENCES people(id),
        platform_key TEXT,
        first_position INTEGER NOT NULL DEFAULT 0,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL,
        UNIQUE (scope, platform_key)
    ) STRICT""",
    "CREATE INDEX conversations_by_person ON conversations(person_id)",
    """CREATE TABLE replies (
        id TEXT PRIMARY KEY,
        conversation_id TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
        scope TEXT NOT NULL REFERENCES scopes(name),
        prompt TEXT NOT NULL,
        text TEXT NOT NULL DEFAULT '',
        adapter TEXT NOT NULL,
        sampling TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'failed')),
        detail TEXT NOT NULL DEFAULT '',
        seed INTEGER,
        finish_reason TEXT,
        prompt_tokens INTEGER NOT NULL DEFAULT 0,
        tokens INTEGER NOT NULL DEFAULT 0,
        first_token_s REAL,
        total_s REAL,
        replaces TEXT REFERENCES replies(id) ON DELETE SET NULL,
        origin TEXT NOT NULL,
        content_sha256 TEXT,
        platform_message_ids TEXT NOT NULL DEFAULT '[]',
        at TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX replies_by_conversation ON replies(conversation_id, at)",
    "CREATE INDEX replies_by_scope ON replies(scope, at)",
    "CREATE INDEX replies_by_replaced ON replies(replaces)",
    "CREATE INDEX replies_by_content ON replies(content_sha256)",
    "CREATE INDEX replies_pending ON replies(state) WHERE state = 'pending'",
    """CREATE TABLE reply_authors (
        reply_id TEXT NOT NULL REFERENCES replies(id) ON DELETE CASCADE,
        person_id TEXT NOT NULL REFERENCES people(id),
        PRIMARY KEY (reply_id, person_id)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX reply_authors_by_person ON reply_authors(person_id)",
    """CREATE TABLE turns (
        id TEXT PRIMARY KEY,
        conversation_id TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
        text TEXT NOT NULL,
        person_id TEXT REFERENCES people(id),
        reply_id TEXT REFERENCES replies(id) ON DELETE CASCADE,
        at TEXT NOT NULL,
        UNIQUE (conversation_id, position)
    ) STRICT""",
    "CREATE INDEX turns_by_person ON turns(person_id)",
    "CREATE INDEX turns_by_reply ON turns(reply_id)",
    """CREATE TABLE feedback (
        id TEXT PRIMARY KEY,
        reply_id TEXT NOT NULL REFERENCES replies(id) ON DELETE CASCADE,
        person_id TEXT NOT NULL REFERENCES people(id),
        kind TEXT NOT NULL
            CHECK (kind IN ('up', 'down', 'correction', 'preference', 'regenerate')),
        slot TEXT GENERATED ALWAYS AS (CASE WHEN kind IN ('up', 'down') THEN 'vote' ELSE kind END)
        STORED, text TEXT,
        other_reply_id TEXT REFERENCES replies(id) ON DELETE CASCADE,
        reasons TEXT NOT NULL DEFAULT '[]',
        dropped INTEGER NOT NULL DEFAULT 0,
        at TEXT NOT NULL,
        recorded_at TEXT NOT NULL
    ) STRICT""",
    "CREATE UNIQUE INDEX feedback_one_for_each_slot ON feedback(reply_id, person_id, slot)",
    "CREATE INDEX feedback_by_person ON feedback(person_id)",
    "CREATE INDEX feedback_by_other ON feedback(other_reply_id)",
    "CREATE INDEX feedback_by_time ON feedback(recorded_at)",
    """CREATE TABLE runs (
        id TEXT PRIMARY KEY,
        scope TEXT NOT NULL REFERENCES scopes(name),
        state TEXT NOT NULL DEFAULT 'queued',
        recipe TEXT NOT NULL,
        adapter TEXT,
        directory TEXT NOT NULL,
        counts TEXT NOT NULL DEFAULT '{}',
        dataset_sha256 TEXT,
        report TEXT,
        detail TEXT NOT NULL DEFAULT '',
        owner_pid INTEGER,
        cancel_requested INTEGER NOT NULL DEFAULT 0,
        force INTEGER NOT NULL DEFAULT 0,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL
    ) STRICT""",
    """CREATE UNIQUE INDEX runs_one_active_for_each_scope ON runs(scope)
        WHERE state IN ('queued', 'snapshot', 'training', 'judging', 'publishing')""",
    """CREATE TABLE run_examples (
        run_id TEXT NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
        feedback_id TEXT NOT NULL,
        PRIMARY KEY (run_id, feedback_id)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX run_examples_by_feedback ON run_examples(feedback_id)",
    """CREATE TABLE adapters (
        name TEXT PRIMARY KEY,
        scope TEXT NOT NULL REFERENCES scopes(name),
        version INTEGER NOT NULL,
        base_sha256 TEXT NOT NULL,
        run_id TEXT REFERENCES runs(id),
        directory TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        state TEXT NOT NULL
            CHECK (state IN ('candidate', 'canary', 'live', 'retired', 'refused')),
        detail TEXT NOT NULL DEFAULT '',
        created_at TEXT NOT NULL,
        UNIQUE (scope, version)
    ) STRICT""",
    """CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at TEXT NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        subject TEXT NOT NULL,
        detail TEXT NOT NULL DEFAULT '{}'
    ) STRICT""",
    "CREATE INDEX events_by_subject ON events(subject)",
    """CREATE TRIGGER events_never_change BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END""",
    """CREATE TRIGGER events_never_go BEFORE DELETE ON events
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END""",
)
