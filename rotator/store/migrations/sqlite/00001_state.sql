-- +goose Up
-- "rota": tells this file from any other SQLite database.
PRAGMA application_id = 1919906913;

-- What is known of each entry. Rows are never deleted, so that an id means one record for ever.
CREATE TABLE records (
    id      INTEGER PRIMARY KEY,
    name    TEXT    NOT NULL UNIQUE,
    version INTEGER NOT NULL CHECK (version > 0),
    body    TEXT    NOT NULL
) STRICT;

-- The journal: rows are appended, and pruned when they are old, never changed. Instants are
-- microseconds since 1970 in UTC. entry is the name at that time; record finds its events again
-- after a rename.
CREATE TABLE events (
    seq        INTEGER PRIMARY KEY,
    at         INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    record     INTEGER REFERENCES records (id),
    entry      TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    label      TEXT    NOT NULL,
    token_id   TEXT    NOT NULL,
    expires_at INTEGER,
    place      TEXT    NOT NULL,
    sink       TEXT    NOT NULL,
    detail     TEXT    NOT NULL,
    error      TEXT    NOT NULL,
    next_at    INTEGER,
    done_by    TEXT    NOT NULL
) STRICT;
CREATE INDEX events_at ON events (at);
CREATE INDEX events_entry ON events (entry);
CREATE INDEX events_record ON events (record);
CREATE INDEX events_intended ON events (label) WHERE kind = 'intended';

-- The mailbox of people's wishes. revoke is 0 in a wish for a newer generation.
CREATE TABLE asks (
    entry       TEXT    NOT NULL,
    revoke      INTEGER NOT NULL,
    than        INTEGER NOT NULL,
    compromised INTEGER NOT NULL,
    at_once     INTEGER NOT NULL,
    asked_by    TEXT    NOT NULL,
    asked_at    INTEGER NOT NULL,
    PRIMARY KEY (entry, revoke, than)
) STRICT;

-- Few and small: the instance, its key, the account it is pinned to, what people were told last.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
