"""The SQLite schema of an index, as numbered migrations; readable with sqlite3 or Datasette.

Conventions: paths are the operating system's bytes (BLOB), with a printable copy beside them; times are ISO 8601 UTC
text, except a file's ``mtime_ns``; durations are seconds. A file owns the window ids ``first_window`` up to
``first_window + n_windows``, of which the n-th starts at ``n * hop_s``; ids are never used twice, so that a search
index can tell what is new by number alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils import Database
    from sqlite_utils.migrations import Migrations

APPLICATION_ID = 0x656D6278  # "embx": what `file` and SQLite show for an index
SCHEMA_VERSION = 3  # number of migrations below; kept in PRAGMA user_version

# Windows of one file are stored in rows of at most this many vectors: a search that re-ranks a handful of windows
# reads tens of kilobytes, and there are 30 times fewer rows than windows.
WINDOWS_PER_ROW = 32

_FIRST = """
CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT;

CREATE TABLE models (
    id             INTEGER PRIMARY KEY,
    name           TEXT NOT NULL,
    fingerprint    TEXT NOT NULL UNIQUE,
    identity       TEXT NOT NULL CHECK (json_valid(identity)),
    request        TEXT NOT NULL CHECK (json_valid(request)),
    weights_sha256 TEXT,
    dimension      INTEGER NOT NULL CHECK (dimension > 0),
    hop_s          REAL NOT NULL CHECK (hop_s > 0),
    added_at       TEXT NOT NULL
) STRICT;

CREATE TABLE spaces (
    model_id    INTEGER PRIMARY KEY REFERENCES models(id) ON DELETE CASCADE,
    kind        TEXT NOT NULL,
    data        BLOB NOT NULL,
    windows     INTEGER NOT NULL,
    learnt_at   TEXT NOT NULL
) STRICT;

CREATE TABLE roots (
    id           INTEGER PRIMARY KEY,
    path         BLOB NOT NULL UNIQUE,
    path_text    TEXT NOT NULL,
    device       INTEGER,
    first_scan   TEXT NOT NULL
) STRICT;

CREATE TABLE files (
    id            INTEGER PRIMARY KEY,
    path          BLOB NOT NULL UNIQUE,
    path_text     TEXT NOT NULL,
    root_id       INTEGER NOT NULL REFERENCES roots(id),
    status        TEXT NOT NULL CHECK (status IN ('ok', 'failed')),
    missing_since TEXT,
    size          INTEGER NOT NULL,
    mtime_ns      INTEGER NOT NULL,
    device        INTEGER NOT NULL,
    inode         INTEGER NOT NULL,
    content_hash  BLOB CHECK (content_hash IS NULL OR length(content_hash) = 16),
    container     TEXT,
    codec         TEXT,
    sample_rate   INTEGER,
    channels      INTEGER,
    duration      REAL,
    peak          REAL,
    artist        TEXT,
    album         TEXT,
    title         TEXT,
    genre         TEXT,
    year          INTEGER,
    note          TEXT,
    error_kind    TEXT,
    error_reason  TEXT,
    first_window  INTEGER UNIQUE,
    n_windows     INTEGER NOT NULL DEFAULT 0 CHECK (n_windows >= 0),
    n_silent      INTEGER NOT NULL DEFAULT 0 CHECK (n_silent BETWEEN 0 AND n_windows),
    hop_s         REAL CHECK (hop_s > 0),
    vectors_hash  BLOB,
    scanned_at    TEXT NOT NULL,
    CHECK ((status = 'ok') = (first_window IS NOT NULL)),
    CHECK ((status = 'ok') = (hop_s IS NOT NULL)),
    CHECK ((status = 'failed') = (error_kind IS NOT NULL))
) STRICT;
CREATE INDEX files_by_content ON files(content_hash);
CREATE INDEX files_by_inode ON files(inode, device);
CREATE INDEX files_missing ON files(id) WHERE missing_since IS NOT NULL;
CREATE INDEX files_failed ON files(id) WHERE status = 'failed';

CREATE TABLE vectors (
    first_window INTEGER PRIMARY KEY,
    file_id      INTEGER NOT NULL REFERENCES files(id) ON DELETE CASCADE,
    n_windows    INTEGER NOT NULL CHECK (n_windows > 0),
    data         BLOB NOT NULL CHECK (length(data) > 0 AND length(data) % (2 * n_windows) = 0)
) STRICT;
CREATE INDEX vectors_by_file ON vectors(file_id);

CREATE TABLE removed_windows (
    first_window INTEGER PRIMARY KEY,
    n_windows    INTEGER NOT NULL,
    generation   INTEGER NOT NULL
) STRICT;

CREATE TABLE label_imports (
    id      INTEGER PRIMARY KEY,
    source  TEXT NOT NULL,
    detail  TEXT NOT NULL,
    made_at TEXT NOT NULL
) STRICT;

CREATE TABLE labels (
    file_id    INTEGER NOT NULL REFERENCES files(id) ON DELETE CASCADE,
    key        TEXT NOT NULL,
    value      TEXT NOT NULL,
    source     TEXT NOT NULL,
    confidence REAL NOT NULL DEFAULT 1.0 CHECK (confidence BETWEEN 0 AND 1),
    added_at   TEXT NOT NULL,
    import_id  INTEGER REFERENCES label_imports(id),
    PRIMARY KEY (file_id, key, value, source)
) STRICT, WITHOUT ROWID;
CREATE INDEX labels_by_value ON labels(key, value);
CREATE INDEX labels_by_import ON labels(import_id) WHERE import_id IS NOT NULL;

CREATE TABLE runs (
    id          INTEGER PRIMARY KEY,
    started_at  TEXT NOT NULL,
    finished_at TEXT,
    version     TEXT NOT NULL,
    roots       TEXT NOT NULL CHECK (json_valid(roots)),
    outcome     TEXT NOT NULL CHECK (outcome IN ('running', 'done', 'interrupted', 'failed')),
    summary     TEXT CHECK (summary IS NULL OR json_valid(summary))
) STRICT;

CREATE VIEW library AS
    SELECT id, path_text AS path,
           CASE WHEN missing_since IS NOT NULL THEN 'missing' ELSE status END AS status,
           duration, sample_rate, channels, container, codec, artist, album, title, genre, year,
           n_windows AS windows, note, scanned_at
    FROM files;

CREATE VIEW failures AS
    SELECT id, path_text AS path, error_kind AS kind, error_reason AS reason, size, scanned_at
    FROM files WHERE status = 'failed';

CREATE VIEW file_labels AS
    SELECT files.path_text AS path, labels.key, labels.value, labels.source, labels.confidence
    FROM labels JOIN files ON files.id = labels.file_id;
"""

# Tempo and key belong to a content: copies share them, and a moved, lost or returned file need not be heard again. The
# times say what has been looked for, found or not.
_ANALYSES = """
CREATE TABLE analyses (
    content_hash     BLOB PRIMARY KEY CHECK (length(content_hash) = 16),
    tempo_bpm        REAL CHECK (tempo_bpm > 0),
    tempo_confidence REAL CHECK (tempo_confidence BETWEEN 0 AND 1),
    tempo_at         TEXT,
    key              TEXT,
    key_confidence   REAL CHECK (key_confidence BETWEEN 0 AND 1),
    key_at           TEXT,
    error            TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX analyses_by_tempo ON analyses(tempo_bpm) WHERE tempo_bpm IS NOT NULL;
CREATE INDEX analyses_by_key ON analyses(key) WHERE key IS NOT NULL;

CREATE VIEW tempo_and_key AS
    SELECT files.path_text AS path, analyses.tempo_bpm, analyses.tempo_confidence, analyses.key,
           analyses.key_confidence, analyses.error
    FROM files JOIN analyses USING (content_hash);
"""

# Lists of what is in archives; instruments of multisamples, and what has to be looked at to keep them up to date. The
# empty path stands for all folders.
_ARCHIVES_AND_INSTRUMENTS = """
CREATE TABLE archives (
    path      BLOB PRIMARY KEY,
    path_text TEXT NOT NULL,
    size      INTEGER NOT NULL,
    mtime_ns  INTEGER NOT NULL,
    inode     INTEGER NOT NULL,
    members   TEXT NOT NULL CHECK (json_valid(members))
) STRICT;

CREATE TABLE instrument_maps (
    path      BLOB PRIMARY KEY,
    path_text TEXT NOT NULL,
    size      INTEGER NOT NULL,
    mtime_ns  INTEGER NOT NULL,
    detail    TEXT NOT NULL CHECK (json_valid(detail))
) STRICT;

CREATE TABLE stale_folders (
    path BLOB PRIMARY KEY
) STRICT, WITHOUT ROWID;
INSERT INTO stale_folders VALUES (X'');

ALTER TABLE files ADD COLUMN instrument TEXT;
CREATE INDEX files_by_instrument ON files(instrument) WHERE instrument IS NOT NULL;

DROP VIEW library;
CREATE VIEW library AS
    SELECT id, path_text AS path,
           CASE WHEN missing_since IS NOT NULL THEN 'missing' ELSE status END AS status,
           duration, sample_rate, channels, container, codec, artist, album, title, genre, year, instrument,
           n_windows AS windows, note, scanned_at
    FROM files;
"""


def migrations() -> Migrations:
    """Return the migrations that make the current schema out of nothing, or out of any earlier one."""
    from sqlite_utils.migrations import Migrations

    steps = Migrations("embedindex")

    @steps(name="001_first")  # type: ignore[untyped-decorator]
    def first(db: Database) -> None:
        _run(db, _FIRST)
        db.execute("INSERT INTO settings VALUES ('database_id', lower(hex(randomblob(16))))")
        db.execute("INSERT INTO settings VALUES ('generation', 0), ('removals_after', 0), ('next_window', 0)")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("PRAGMA user_version = 1")

    @steps(name="002_tempo_and_key")  # type: ignore[untyped-decorator]
    def tempo_and_key(db: Database) -> None:
        _run(db, _ANALYSES)
        db.execute("PRAGMA user_version = 2")

    @steps(name="003_archives_and_instruments")  # type: ignore[untyped-decorator]
    def archives_and_instruments(db: Database) -> None:
        _run(db, _ARCHIVES_AND_INSTRUMENTS)
        db.execute("PRAGMA user_version = 3")

    return steps


def _run(db: Database, script: str) -> None:
    for statement in filter(None, map(str.strip, script.split(";\n"))):
        db.execute(statement)
