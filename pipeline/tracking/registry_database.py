"""MLflow's model registry in its SQLite file, as far as moving an alias needs it.

A move writes the tables involved in one transaction. Their columns are first compared with those of MLflow 3.17; if they differ,
`move` and `model` raise ServiceError, and MLflow's own client can be used instead.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ServiceError
from pipeline.tracking.moves import DIGEST_TAG, MOVES_TAG, Move, RegisteredModel, Version, parse_moves, version_tags

WAIT_S = 5.0
WORKSPACE = "default"
TABLES = {
    "registered_models": {"name", "last_updated_time", "workspace"},
    "registered_model_aliases": {"name", "alias", "version", "workspace"},
    "registered_model_tags": {"name", "key", "value", "workspace"},
    "model_versions": {"name", "version", "workspace", "current_stage"},
    "model_version_tags": {"name", "version", "key", "value", "workspace"},
}


@dataclass(frozen=True)
class DatabaseRegistry:
    path: Path

    def model(self, name: str) -> RegisteredModel | None:
        with self._open() as database:
            here = (name, WORKSPACE)
            if not database.execute("SELECT 1 FROM registered_models WHERE name = ? AND workspace = ?", here).fetchone():
                return None
            aliases = database.execute(
                "SELECT alias, version FROM registered_model_aliases WHERE name = ? AND workspace = ?", here
            )
            versions = database.execute(
                "SELECT v.version, t.value FROM model_versions v LEFT JOIN model_version_tags t ON t.name = v.name "
                "AND t.version = v.version AND t.workspace = v.workspace AND t.key = ? "
                "WHERE v.name = ? AND v.workspace = ? AND v.current_stage != 'Deleted_Internal' ORDER BY v.version DESC",
                (DIGEST_TAG, *here),
            )
            moves = database.execute(
                "SELECT value FROM registered_model_tags WHERE name = ? AND workspace = ? AND key = ?", (*here, MOVES_TAG)
            ).fetchone()
            return RegisteredModel(
                aliases={alias: str(version) for alias, version in aliases},
                versions=tuple(Version(str(number), digest) for number, digest in versions),
                moves=parse_moves(moves[0] if moves else None),
            )

    def move(self, name: str, move: Move, moves: str) -> None:
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute(
                "INSERT OR REPLACE INTO registered_model_aliases (alias, version, name, workspace) VALUES (?, ?, ?, ?)",
                (move.alias, int(move.version), name, WORKSPACE),
            )
            database.execute(
                "INSERT OR REPLACE INTO registered_model_tags (key, value, name, workspace) VALUES (?, ?, ?, ?)",
                (MOVES_TAG, moves, name, WORKSPACE),
            )
            for key, value in version_tags(move).items():
                database.execute(
                    "INSERT OR REPLACE INTO model_version_tags (key, value, name, version, workspace) VALUES (?, ?, ?, ?, ?)",
                    (key, value, name, int(move.version), WORKSPACE),
                )
            database.execute(
                "UPDATE registered_models SET last_updated_time = ? WHERE name = ? AND workspace = ?",
                (time.time_ns() // 1_000_000, name, WORKSPACE),
            )
            database.execute("COMMIT")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        if not self.path.exists():
            raise ServiceError(f"{self.path}: no tracked runs yet; start one with `w2v run`")
        try:
            address = f"{self.path.absolute().as_uri()}?mode=rw"
            with closing(sqlite3.connect(address, uri=True, timeout=WAIT_S, isolation_level=None)) as database:
                self._check(database)
                yield database
        except sqlite3.Error as error:
            raise ServiceError(f"{self.path}: the database cannot be used ({error}); try again") from error

    def _check(self, database: sqlite3.Connection) -> None:
        for table, columns in TABLES.items():
            found = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
            if not columns <= found:
                missing = ", ".join(sorted(columns - found))
                raise ServiceError(
                    f"{self.path}: another version of MLflow made its table {table} (it lacks {missing}); "
                    "use MLflow's own page or MlflowClient.set_registered_model_alias"
                )
