"""Tables of the history's database, and their migration from older versions."""

from __future__ import annotations

from collections.abc import Callable

from flyte_build.cas.database import Database, open_database

VERSION = 4
# An action's place in its run is its rowid; `changes` numbers what readers can resume from.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs(
  name TEXT PRIMARY KEY, task TEXT NOT NULL, file TEXT NOT NULL, project TEXT NOT NULL,
  domain TEXT NOT NULL,
  version TEXT NOT NULL, phase TEXT NOT NULL, why TEXT NOT NULL, attempts INTEGER NOT NULL,
  started REAL NOT NULL, ended REAL,
  user INTEGER, tree TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS runs_started ON runs(started);
CREATE INDEX IF NOT EXISTS runs_open ON runs(phase) WHERE ended IS NULL;
CREATE INDEX IF NOT EXISTS runs_phase ON runs(phase, started);
CREATE INDEX IF NOT EXISTS runs_task ON runs(task, started);
CREATE INDEX IF NOT EXISTS runs_version ON runs(version, started);
CREATE TABLE IF NOT EXISTS labels(
  run TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY(run, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS labels_value ON labels(key, value);
CREATE TABLE IF NOT EXISTS actions(
  run TEXT NOT NULL, name TEXT NOT NULL, parent TEXT NOT NULL, task TEXT NOT NULL,
  "group" TEXT NOT NULL, engine TEXT NOT NULL, phase TEXT NOT NULL, attempts INTEGER NOT NULL,
  queued REAL NOT NULL, started REAL, ended REAL, recovered TEXT NOT NULL, inputs TEXT NOT NULL,
  result TEXT);
CREATE UNIQUE INDEX IF NOT EXISTS actions_name ON actions(run, name);
CREATE INDEX IF NOT EXISTS actions_tree ON actions(run, parent, task, "group", phase);
CREATE TABLE IF NOT EXISTS attempts(
  run TEXT NOT NULL, action TEXT NOT NULL, number INTEGER NOT NULL, phase TEXT NOT NULL,
  started REAL NOT NULL, ended REAL, why TEXT NOT NULL, PRIMARY KEY(run, action, number))
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changes(
  seq INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, action TEXT NOT NULL,
  what TEXT NOT NULL);
"""
CHANGE = "INSERT INTO changes(run, action, what) VALUES(?,?,?)"
"""Statement that numbers a change of an action: its run, its name, and its new phase."""
_SINCE_1 = (
    "ALTER TABLE runs ADD COLUMN user INTEGER",
    "ALTER TABLE runs ADD COLUMN tree TEXT NOT NULL DEFAULT ''",
)


def open_tables(path: str, on_damage: Callable[[str], None]) -> Database:
    """Open the database at `path`, which is created if it is missing.

    Raises the errors of `open_database`.
    """
    return open_database(path, VERSION, _SCHEMA, on_damage, {1: _SINCE_1})
