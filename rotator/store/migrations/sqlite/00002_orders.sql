-- +goose Up
-- Wishes that are carried out once, in their order: a record notes the number of the last one.
-- AUTOINCREMENT, so that a number is never given out twice, whatever was pruned.
CREATE TABLE orders (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    entry    TEXT    NOT NULL,
    adopt    INTEGER NOT NULL,
    sink     TEXT    NOT NULL,
    pause    INTEGER,
    asked_by TEXT    NOT NULL,
    asked_at INTEGER NOT NULL
) STRICT;

-- The fuse does not stop this wish.
ALTER TABLE asks ADD COLUMN override INTEGER NOT NULL DEFAULT 0;
