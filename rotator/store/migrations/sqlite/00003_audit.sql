-- +goose Up
ALTER TABLE events ADD COLUMN hash TEXT NOT NULL DEFAULT '';
ALTER TABLE events ADD COLUMN version TEXT NOT NULL DEFAULT '';

-- The journal is append-only: what was written is never changed, and what is dropped is older than
-- an instant that the store notes in the same transaction, together with an event that says so.
-- +goose StatementBegin
CREATE TRIGGER events_unchanged BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'the journal is append-only: what was written is never changed');
END;
-- +goose StatementEnd

-- A REPLACE deletes without asking the trigger below.
-- +goose StatementBegin
CREATE TRIGGER events_new BEFORE INSERT ON events
WHEN EXISTS (SELECT 1 FROM events WHERE seq = NEW.seq)
BEGIN
    SELECT RAISE(ABORT, 'the journal is append-only: what was written is never replaced');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER events_kept BEFORE DELETE ON events
WHEN NOT EXISTS (SELECT 1 FROM meta WHERE name = '.pruning' AND OLD.at < CAST(value AS INTEGER))
BEGIN
    SELECT RAISE(ABORT, 'the journal is append-only: only what is too old to be kept is dropped');
END;
-- +goose StatementEnd
