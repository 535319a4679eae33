"""The registry: versions are registered once, `champion` moves at once, also back, and answers over HTTP.

`test_live_tracking` moves `champion` on a real server.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from urllib.parse import urlsplit

import numpy as np
import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import IntegrityError

from pipeline.config import RunConfig, parse_config
from pipeline.errors import InputError, ServiceError
from pipeline.tracking import aliases, shipper
from pipeline.tracking.moves import parse_moves
from pipeline.tracking.registry import challenge
from pipeline.tracking.spool import Spool, all_events, spools, what_is_spooled
from pipeline.tracking.tracker import Tracker, open_tracker
from tests.cluster.test_tracking_servers import kill_server
from tests.cluster.tracked import DIGEST, client_of, fastest_s, ship_here, wait_for
from tests.ports import free_port
from w2v_core.vectors import WordVectors

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

WORDS = ["king", "queen", "man", "woman", "que\nen", "왕", "<img src=x onerror=alert(1)>"]


def config_of(workdir: Path, **tracking: Any) -> RunConfig:
    tree = {"run": {"workdir": str(workdir)}, "corpus": {"inputs": ["x"]}, "publish": {"register": "words"}, "tracking": tracking}
    return parse_config(tree)


def save_version(directory: Path, seed: int) -> Path:
    matrix = np.random.default_rng(seed).normal(size=(len(WORDS), 8)).astype(np.float32)
    matrix[3] = matrix[2] + matrix[1] - matrix[0]
    WordVectors(WORDS, matrix, np.arange(7, 0, -1)).save(directory)
    return directory


def tracker_without_shipper(config: RunConfig) -> Tracker:
    tracker = open_tracker(config.tracking, config.workdir, run_name="test", config_digest=DIGEST)
    tracker.ships = False
    return tracker


@pytest.fixture
def registered(workdir: Path) -> RunConfig:
    """A model with two versions, of vectors a and b; the second is the challenger, none the champion."""
    config = config_of(workdir)
    tracker = tracker_without_shipper(config)
    tracker.start({"train.epochs": 5}, {})
    for seed, name in enumerate("ab"):
        tracker.register("words", save_version(workdir / name, seed), "**A card.**")
    tracker.writer.close()
    assert ship_here(tracker.spool) == 0
    assert tracker.spool.progress().skipped == 0, tracker.spool.progress()
    return config


def test_champion_moves_at_once_and_back_with_who_when_and_why(registered: RunConfig) -> None:
    client = client_of(registered.workdir)
    first = aliases.promote(registered, None, "better analogies")
    assert (first.version, first.before, first.why) == ("2", None, "better analogies")
    assert str(client.get_model_version_by_alias("words", "champion").version) == "2"
    with pytest.raises(InputError, match="version 2 had no champion before it"):
        aliases.roll_back(registered, "")
    aliases.promote(registered, "1", "second thoughts")
    back = aliases.roll_back(registered, "third thoughts")
    assert (back.version, back.before) == ("2", "1")
    version = client.get_model_version_by_alias("words", "champion")
    assert str(version.version) == "2"
    assert version.tags["w2v.champion.why"] == "third thoughts"
    assert "@" in version.tags["w2v.champion.by"]
    assert version.description == "**A card.**"
    moves = json.loads(client.get_registered_model("words").tags["w2v.moves"])
    assert [(move["version"], move["why"]) for move in moves] == [
        ("2", "better analogies"), ("1", "second thoughts"), ("2", "third thoughts"),
    ]  # fmt: skip
    assert fastest_s([lambda: aliases.promote(registered, "1", ""), lambda: aliases.roll_back(registered, "")] * 2) < 1
    with pytest.raises(InputError, match="words has no version 7; there are 2, 1"):
        aliases.promote(registered, "7", "")
    unknown = registered.model_copy(update={"publish": registered.publish.model_copy(update={"register_as": "other"})})
    with pytest.raises(InputError, match=r"no registered model other; a run with publish\.register: other creates it"):
        aliases.promote(unknown, None, "")


@contextlib.contextmanager
def another_client_first(table: str, statement: str) -> Iterator[list[str]]:
    """Executes `statement` in another connection just before this process inserts into `table`, once; yields it then."""
    executed: list[str] = []

    def insert_first(connection: Any, _cursor: Any, inserting: str, *_: Any) -> None:
        if inserting.startswith(f"INSERT INTO {table} ") and not executed:
            executed.append(statement)
            with contextlib.closing(sqlite3.connect(connection.engine.url.database)) as other, other:
                other.execute(statement)

    event.listen(Engine, "before_cursor_execute", insert_first)
    try:
        yield executed
    finally:
        event.remove(Engine, "before_cursor_execute", insert_first)


def test_two_clients_that_give_the_same_new_alias_at_once_both_get_through(workdir: Path) -> None:
    tracker = tracker_without_shipper(config_of(workdir))
    tracker.register("words", save_version(workdir / "a", 0), "")
    tracker.writer.close()
    neighbour = (
        "INSERT INTO registered_model_aliases (workspace, name, alias, version) VALUES ('default', 'words', 'challenger', 7)"
    )
    with another_client_first("registered_model_aliases", neighbour) as executed:
        assert ship_here(tracker.spool) == 0
    assert executed == [neighbour]
    assert tracker.spool.progress().skipped == 0
    assert str(client_of(workdir).get_model_version_by_alias("words", "challenger").version) == "1"


def test_of_two_versions_registered_at_once_the_newer_is_challenger_whoever_comes_last(registered: RunConfig) -> None:
    client = client_of(registered.workdir)
    challenge(client, "words", "1")  # by a run whose version became the older one while it was on its way
    assert str(client.get_model_version_by_alias("words", "challenger").version) == "2"


def test_what_a_database_refuses_every_time_is_counted_after_one_round_of_repeats(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = tracker_without_shipper(config_of(workdir))
    for seed in range(3):
        tracker.register("words", save_version(workdir / f"v{seed}", seed), "")
    tracker.writer.close()
    asked: list[str] = []

    def refuse(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO registered_model_aliases "):
            asked.append(statement)
            raise IntegrityError(statement, None, ValueError("a constraint"))

    monkeypatch.setattr(shipper, "COLLISION_PAUSES_S", (0.0, 0.0, 0.0))
    event.listen(Engine, "before_cursor_execute", refuse)
    try:
        assert ship_here(tracker.spool) == 0
    finally:
        event.remove(Engine, "before_cursor_execute", refuse)
    assert tracker.spool.progress().skipped == 3
    assert len(asked) == 4 + 1 + 1


def test_registered_vectors_are_on_the_disk_once(registered: RunConfig) -> None:
    client = client_of(registered.workdir)
    for number, name in ((1, "a"), (2, "b")):
        place = Path(urlsplit(client.get_model_version("words", str(number)).source).path) / "artifacts" / "vectors"
        assert sorted(path.name for path in place.iterdir()) == ["counts.npy", "meta.json", "vectors.npy", "words.txt"]
        assert all(path.samefile(registered.workdir / name / path.name) for path in place.iterdir())
        assert list(WordVectors.load(place, verify=True).words) == WORDS


def test_a_move_that_cannot_be_made_now_is_made_when_mlflow_answers(registered: RunConfig) -> None:
    workdir, client = registered.workdir, client_of(registered.workdir)
    said = aliases.move_alias(registered, workdir / "a", why="refresh")
    assert said == "words: champion is version 1"
    assert aliases.move_alias(registered, workdir / "a", why="again") == "words: champion is version 1 already"
    database = workdir.parent / "mlflow.db"
    hidden = database.rename(database.with_suffix(".gone"))
    said = aliases.move_alias(registered, workdir / "b", why="while it was gone")
    assert said is not None
    assert "moves when MLflow" in said
    hidden.rename(database)
    (spool,) = spools(workdir)
    assert ship_here(spool) == 0
    version = client.get_model_version_by_alias("words", "champion")
    assert (str(version.version), version.tags["w2v.champion.why"]) == ("2", "while it was gone")
    moves = parse_moves(client.get_registered_model("words").tags["w2v.moves"])
    assert [(move.version, move.before) for move in moves] == [("1", None), ("2", "1")]
    assert ship_again(spool) == 0, "sent twice it changes nothing"
    assert len(parse_moves(client.get_registered_model("words").tags["w2v.moves"])) == 2
    assert len(client.search_model_versions("name = 'words'")) == 2
    assert aliases.move_alias(config_of(workdir, enabled=False), workdir / "a", why="") is None


def test_a_move_that_is_sent_after_the_end_of_a_run_leaves_it_ended(workdir: Path) -> None:
    config = config_of(workdir)
    tracker = tracker_without_shipper(config)
    tracker.start({"train.epochs": 5}, {})
    tracker.register("words", save_version(workdir / "a", 1), "")
    tracker.finish("FINISHED")
    said = aliases.move_alias(config, workdir / "a", why="refresh")
    assert said is not None
    assert "champion moves when MLflow" in said, "it has not even the vectors yet"
    spool, target = tracker.spool, tracker.spool.target()
    assert target is not None
    whose_driver_is_gone = shipper.Owner(0, released=True)
    assert shipper.Shipper(spool, target, whose_driver_is_gone, 0.0, spool.progress()).work() == 0
    client = client_of(workdir)
    assert str(client.get_model_version_by_alias("words", "champion").version) == "1"
    assert client.get_run(str(spool.run_id())).info.status == "FINISHED"
    assert what_is_spooled(spool).status == "FINISHED", "the same run again tells nothing new"


class Colliding(http.server.BaseHTTPRequestHandler):
    """A registry with one version, to which another client adds the tag of the moves just before the first request that does."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.answer(200, {"registered_model": {"name": "words"}, "model_versions": [{"version": "1"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(self.path.removeprefix("/api/2.0/mlflow/"))
        collides = self.asked == ["registered-models/alias", "registered-models/set-tag"]
        self.answer(400, {"error_code": "BAD_REQUEST"}) if collides else self.answer(200, {})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def test_a_move_that_meets_another_clients_is_finished(workdir: Path) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Colliding) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            aliases.promote(config_of(workdir, uri=f"http://127.0.0.1:{server.server_port}"), "1", "at last")
        finally:
            server.shutdown()
            thread.join()
    tags = ["registered-models/set-tag"] * 2 + ["model-versions/set-tag"] * 3
    assert Colliding.asked == ["registered-models/alias", *tags]


def test_a_server_that_the_vectors_have_not_reached_is_not_asked_for_their_version(workdir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        config = config_of(workdir, uri=f"http://127.0.0.1:{hanging.getsockname()[1]}")
        tracker = tracker_without_shipper(config)
        tracker.start({"train.epochs": 5}, {})
        tracker.register("words", save_version(workdir / "a", 1), "")
        tracker.writer.close()
        said = aliases.move_alias(config, workdir / "a", why="refresh")
        hanging.settimeout(0.2)
        with pytest.raises(TimeoutError):
            hanging.accept()
    assert said is not None
    assert "champion moves when MLflow at http://127.0.0.1" in said
    assert [event["type"] for event in all_events(tracker.spool)][-2:] == ["register", "alias"]


def ship_again(spool: Spool) -> int:
    spool.write_progress(replace(spool.progress(), offset=0))
    return ship_here(spool)


def test_a_database_that_another_version_made_is_left_alone(tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("CREATE TABLE registered_models (name)")
    database.close()
    with pytest.raises(ServiceError, match=r"another version of MLflow made its table registered_models \(it lacks last_updated"):
        aliases.promote(config_of(tmp_path / "run"), None, "")


RIGHT = {
    "rows": {"columns"}, "row": {"column"}, "minimum": {"maximum"}, "first": {"second", "last"},
    "array": {"ndarray", "arrays", "arr"}, "two": {"three", "one"},
}  # fmt: skip
"""Neighbours that a person would call right, for words in NumPy's docstrings, with which 2.4 and 2.5 agree: text like the demo's
that every machine has."""


def docstring_vectors(directory: Path) -> Path:
    """Vectors trained on NumPy's docstrings, a small version of the demo's corpus, and three odd words."""
    from pipeline import train
    from pipeline.text import pydocs

    texts = (pydocs.text(Path(path).read_bytes()) for path in pydocs.source_files() if "/numpy/" in path)
    lines = [line for text in texts if text for line in text.split("\n")]
    learnt = train(lines, vector_size=50, epochs=20, seed=1, workdir=directory.with_name("run"))
    odd = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
    WordVectors([*learnt.wv.words, *WORDS[4:]], np.concatenate([learnt.wv.matrix, odd])).save(directory)
    return directory


@pytest.mark.turns(10, 8, of="tracking")
def test_the_champion_answers_over_http_what_a_person_calls_right(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(workdir)
    tracker = tracker_without_shipper(config)
    tracker.start({"train.epochs": 20}, {})
    tracker.register("words", docstring_vectors(workdir / "learnt"), "**A card.**")
    tracker.writer.close()
    assert ship_here(tracker.spool) == 0
    aliases.promote(config, None, "served")
    database = workdir.parent / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{database}")
    monkeypatch.delenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", raising=False)
    loaded = WordVectors.load("models:/words@champion")
    assert os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] == "false", "standard error is no terminal here"
    assert (loaded.matrix == WordVectors.load(workdir / "learnt").matrix).all()
    with pytest.raises(FileNotFoundError, match="models:/words@nobody: MLflow at"):
        WordVectors.load("models:/words@nobody")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/words@champion", "--env-manager", "local"]
    server = subprocess.Popen(
        [*command, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(lambda: _pings(port), 90)
        _, body = ask(port, {"inputs": list(RIGHT), "params": {"topn": 3}})
        found = {answer["word"]: [near["word"] for near in answer["similar"]] for answer in body["predictions"]}
        assert {word for word, near in found.items() if RIGHT[word] & set(near)} == set(RIGHT), found
        _, body = ask(port, {"inputs": ["array", "arrray", WORDS[6]], "params": {"topn": 2}})
        nearest = [
            {"word": word, "score": pytest.approx(score, abs=1e-6)} for word, score in loaded.most_similar("array", topn=2)
        ]
        assert body["predictions"][0] == {"word": "array", "known": True, "similar": nearest}
        assert body["predictions"][1]["known"] is False
        assert "nearest spellings: array" in body["predictions"][1]["message"]
        assert body["predictions"][2]["word"] == WORDS[6]
        _, body = ask(port, {"inputs": ["왕", "없음"], "params": {"ask": "vector"}})
        assert [len(answer["vector"]) for answer in body["predictions"]] == [50, 0]
        _, body = ask(port, {"inputs": ["min max minimum"], "params": {"ask": "analogy", "topn": 3}})
        assert "maximum" in [near["word"] for near in body["predictions"][0]["answers"]]
        for wrong, said in (
            ({"inputs": [1]}, "Expected type str"),
            ({"inputs": ["king"], "params": {"ask": "colour"}}, "expected one of similar, vector, analogy, found 'colour'"),
            ({"inputs": ["king queen"], "params": {"ask": "analogy"}}, "an analogy is three words"),
            ({"inputs": ["king"], "params": {"topn": 0}}, "expected topn from 1 to 1000"),
            ({"words": ["king"]}, "'inputs' key"),
        ):
            status, body = ask(port, wrong)
            assert status == 400
            assert said in body["message"]
    finally:
        kill_server(server)


def _pings(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=30) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def ask(port: int, body: object) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_a_served_model_with_a_flipped_bit_does_not_answer(tmp_path: Path) -> None:
    from pipeline.serving.served_model import ServedVectors

    served, context = ServedVectors(), SimpleNamespace(artifacts={"vectors": str(save_version(tmp_path / "a", 1))})
    served.load_context(context)
    assert served.predict(None, ["king"])[0]["known"]
    matrix = tmp_path / "a" / "vectors.npy"
    data = bytearray(matrix.read_bytes())
    data[-3] ^= 1
    matrix.unlink()
    matrix.write_bytes(data)
    with pytest.raises(ValueError, match=r"vectors\.npy: its content changed"):
        served.load_context(context)
