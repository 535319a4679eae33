"""The alias of a registered model follows every decision, whatever was killed, denied or redirected meanwhile, and nothing else
learns the password on the way."""

from __future__ import annotations

import contextlib
import http.server
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import RunConfig, parse_config
from pipeline.errors import ServiceError
from pipeline.history.latest import champion_of
from pipeline.history.snapshot import Snapshot, snapshots
from pipeline.refresh.rollback import rollback
from pipeline.store import file_sha256
from pipeline.tracking import aliases, registry_server
from pipeline.tracking.empty_database import create_database
from pipeline.tracking.moves import DIGEST_TAG, new_move
from pipeline.tracking.registry_server import ServerRegistry
from pipeline.tracking.spool import all_events, spools
from pipeline.tracking.tracker import open_tracker
from tests.cluster.tracked import client_of, ship_here
from tests.pipeline.changing_corpus import ChangingCorpus

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

REGISTERS: dict[str, dict[str, object]] = {"publish": {"register": "words"}}
PASSWORD = "correct-horse-battery"


# ── kills ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def registers(database: Path, digests: list[str]) -> None:
    """A registry with one version for each digest of vectors, as runs of this program leave it; the last one is champion."""
    create_database(database)
    with contextlib.closing(sqlite3.connect(database)) as opened, opened:
        opened.execute("INSERT INTO registered_models (name, workspace) VALUES ('words', 'default')")
        for number, digest in enumerate(digests, 1):
            opened.execute(
                "INSERT INTO model_versions (name, version, workspace, current_stage) VALUES ('words', ?, 'default', 'None')",
                (number,),
            )
            opened.execute(
                "INSERT INTO model_version_tags (name, version, workspace, key, value) VALUES ('words', ?, 'default', ?, ?)",
                (number, DIGEST_TAG, digest),
            )
        opened.execute(
            "INSERT INTO registered_model_aliases (name, alias, version, workspace) VALUES ('words', 'champion', ?, 'default')",
            (len(digests),),
        )


def champion_in(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(database)) as opened:
        return int(opened.execute("SELECT version FROM registered_model_aliases WHERE alias = 'champion'").fetchone()[0])


@pytest.mark.turns(10, 12, of="tracking")
def test_the_alias_follows_a_rollback_that_was_killed_before_it_moved(tmp_path: Path) -> None:
    corpus = ChangingCorpus(tmp_path, seed=2)
    corpus.refresh(**REGISTERS)
    corpus.add()
    corpus.refresh(**REGISTERS)
    first, second = snapshots(tmp_path / "work")
    database = tmp_path / "mlflow.db"
    registers(database, [digest_of(first), digest_of(second)])
    tracked = REGISTERS | {"tracking": {"enabled": True}}
    corpus.config(**tracked)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "rollback", str(tmp_path / "config.yaml")],
        env=os.environ | {"W2V_FAILPOINT": f"alias:champion=kill,{tmp_path / 'token'}"}, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    champion = champion_of(tmp_path / "work")
    assert champion is not None
    assert (champion.id, champion_in(database)) == (first.id, 2), "the decision holds, and the alias is behind"
    assert corpus.refresh(**tracked)["status"] == "nothing new"
    assert champion_in(database) == 1
    summary = yaml.safe_load((tmp_path / "work" / "summary.json").read_text())
    assert summary["vectors"]["sha256"] == first.body["vectors_sha256"]


@pytest.mark.turns(10, 30, of="tracking")
@pytest.mark.parametrize("order", [1, -1])
def test_a_rollback_while_mlflow_was_away_holds_in_whatever_order_it_gets_the_rest(tmp_path: Path, order: int) -> None:
    corpus, work = ChangingCorpus(tmp_path, seed=2), tmp_path / "work"
    corpus.refresh(**REGISTERS)
    corpus.add()
    corpus.refresh(**REGISTERS)
    first, second = snapshots(work)
    config = corpus.config(**REGISTERS, tracking={"enabled": True})
    for number, snapshot in enumerate((first, second)):
        tracker = open_tracker(config.tracking, work, run_name="test", config_digest=f"{number:064x}")
        tracker.ships = False
        tracker.start({"train.epochs": 5}, {})
        tracker.register("words", snapshot.vectors)
        tracker.writer.close()
    assert "moves when MLflow" in str(aliases.move_alias(config, second.vectors, why="w2v refresh"))
    assert "moves when MLflow" in str(rollback(config, first.id)["registry"])
    told = [spool for spool in spools(work) if any(event.get("digest") == digest_of(first) for event in all_events(spool))]
    rest = [spool for spool in spools(work) if spool not in told]
    assert [len(told), len(rest)] == [1, 1]
    for spool in (told + rest)[::order]:
        assert ship_here(spool) == 0
        assert spool.progress().skipped == 0
    client = client_of(work)
    assert client.get_model_version_by_alias("words", "champion").tags[DIGEST_TAG] == digest_of(first)
    assert len(client.search_model_versions("name = 'words'")) == 2


def digest_of(snapshot: Snapshot) -> str:
    """The digest under which the snapshot's vectors are registered."""
    return file_sha256(snapshot.vectors / "meta.json")


# ── servers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def serving(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """The address of a server that answers every request like this."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_POST = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def answers(status: int, body: bytes, **headers: str) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_server_that_redirects_is_an_error_and_the_password_goes_nowhere_else(status: int) -> None:
    seen: list[dict[str, str]] = []

    def elsewhere(handler: Any) -> None:
        seen.append(dict(handler.headers))
        answers(200, b'{"registered_model": {"name": "words"}, "model_versions": [{"version": "1"}]}')(handler)

    with serving(elsewhere) as other, serving(answers(status, b"", Location=f"{other}/login?next=x")) as address:
        registry = ServerRegistry(address.replace("//", f"//ann:{PASSWORD}@"))
        with pytest.raises(
            ServiceError, match=rf"redirects to {other}/login, which is not followed; set tracking\.uri"
        ) as caught:
            registry.model("words")
        with pytest.raises(ServiceError, match="redirects to"):
            registry.move("words", new_move("champion", "1", None, "it is better"), "[]")
    assert seen == []
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [b"[]", b"{}", b"<html>log in</html>", b'{"registered_model": 3}', b'{"registered_model": {"aliases": 7}}', b"[" * 100_000],
)
def test_an_answer_that_is_not_mlflows_is_an_error_of_the_service(body: bytes) -> None:
    with serving(answers(200, body)) as address, pytest.raises(ServiceError, match=r"MLflow at http://127.* does not answer"):
        ServerRegistry(address).model("words")


def test_a_server_that_sends_a_byte_now_and_then_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def drip(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while not over.wait(0.05):
                handler.wfile.write(b" ")

    monkeypatch.setattr(registry_server, "WHOLE_S", 0.5)
    with serving(drip) as address:
        with pytest.raises(ServiceError, match="does not answer"):
            ServerRegistry(address).model("words")
        over.set()


def test_a_server_of_another_kind_is_an_error_of_the_service() -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            with plain.accept()[0] as client:
                client.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ServiceError, match="does not answer"):
            ServerRegistry(f"http://127.0.0.1:{plain.getsockname()[1]}").model("words")
        thread.join()


def config_of(workdir: Path, uri: str) -> RunConfig:
    tree = {
        "run": {"workdir": str(workdir)},
        "corpus": {"inputs": ["x"]},
        "publish": {"register": "words"},
        "tracking": {"uri": uri},
    }
    return parse_config(tree)


def test_a_decision_holds_and_says_why_the_alias_did_not_move_when_mlflow_denies_access_or_has_no_such_version(
    tmp_path: Path,
) -> None:
    (tmp_path / "vectors").mkdir()
    (tmp_path / "vectors" / "meta.json").write_text("{}")

    def said(answer: Callable[[Any], None]) -> str | None:
        with serving(answer) as address:
            return aliases.move_alias(config_of(tmp_path / "work", address), tmp_path / "vectors", why="rollback")

    denied = said(answers(401, b"{}"))
    assert denied is not None
    assert "words: champion was not moved: MLflow at http://127" in denied
    assert "refuses these credentials" in denied
    unknown = said(answers(200, b'{"registered_model": {"name": "words"}}'))
    assert unknown is not None
    assert "champion was not moved: no version has these vectors" in unknown
