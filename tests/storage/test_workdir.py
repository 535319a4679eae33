"""A workdir in a bucket: the bits of one on a disk, from whichever host it is used, whatever is killed or damaged."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cluster.workers import InProcess
from pipeline.commands.listed import commands
from pipeline.config import RunConfig, load_config, parse_config
from pipeline.errors import BusyError, ConfigError, TemporaryError
from pipeline.history.answers import intact_vectors, require_answer
from pipeline.history.arrival import arrive, look
from pipeline.history.latest import champion_of, entries
from pipeline.progress import Progress
from pipeline.refresh.refresh import refresh
from pipeline.refresh.rollback import rollback
from pipeline.run import run
from pipeline.storage import lease
from pipeline.storage.copies import Copy
from pipeline.storage.objects import put_object, read_object, remove_object
from pipeline.workdir import verify_workdir
from tests.sampling import ALL, SEED
from tests.storage.server import Front
from tests.storage.site import Site, w2v_run
from w2v_core.vectors import WordVectors

QUIET = Progress(quiet=True)


def cached(config: RunConfig) -> list[str]:
    """The stages that a run found done; asserts that its vectors are those of a disk."""
    return [name for name, row in run(config, workers=InProcess(), progress=QUIET)["stages"].items() if row["cached"]]


def test_the_bits_are_those_of_a_disk_and_nothing_is_called_like_the_scheme(finished: Site, tmp_path: Path) -> None:
    assert not list(finished.directory.rglob("s3:*"))
    assert not list(Path.cwd().glob("s3:*"))
    keys = finished.keys("finished")
    assert "summary.json" in keys
    assert not [key for key in keys if key.startswith((".lease", ".seen")) or ".tmp" in key], "a run leaves no claim behind"
    for key in keys:
        if key.startswith("vectors/") and not key.endswith("manifest.json"):
            import hashlib

            data = read_object(finished.place("finished") / key, finished.storage())
            assert hashlib.sha256(data).hexdigest() == key.rpartition("/")[2]


@pytest.mark.turns(3, 2, of="buckets")
def test_a_run_asks_the_bucket_for_nothing_that_it_knows(site: Site, front: Front) -> None:
    tree = site.tree("asked", place=site.place("asked"))
    tree["storage"]["endpoint"] = front.address
    assert run(parse_config(tree), workers=InProcess(2), progress=QUIET)["vectors"]["sha256"] == site.digest
    data = r"/asked/(tokens|vocab|shards|checkpoints|vectors)/.*[0-9a-f]{64}"
    assert not [seen for seen in front.seen if seen[0] in ("GET", "HEAD") and re.search(data, seen[1])], "it reads what it has"
    assert not [seen for seen in front.seen if seen[0] == "HEAD" and "/tokens/parts/" in seen[1]], "one listing shows all parts"
    put = [seen for seen in front.seen if seen[0] == "PUT" and re.search(r"/checkpoints/[0-9a-f]{16}/manifest", seen[1])]
    listed = [seen for seen in front.seen if re.search(r"prefix=[^&]*asked%2Fcheckpoints%2F[0-9a-f]{16}", seen[1])]
    assert len(listed) <= len(put), "only to remove them, not to see what this process has put"


def test_another_host_finds_every_stage_and_can_do_what_a_workdir_is_for(finished: Site, tmp_path: Path) -> None:
    config = finished.config("finished", host="two")
    assert cached(config) == ["tokenize", "vocab", "shards", "train", "evaluate", "publish"]
    path = str(finished.file("finished", host="three"))

    def w2v(*arguments: str) -> str:
        result = CliRunner().invoke(commands, list(arguments))
        assert result.exit_code == 0, f"{arguments}: {result.output} {result.exception}"
        return result.output

    assert "topic1word2" in w2v("query", "similar", path, "topic1word1")
    assert "last complete run: tiny-" in w2v("status", path)
    assert f"{finished.place('finished')}: no run is working there" in w2v("status", path)
    assert "0 damaged" in w2v("verify", path)
    assert champion_of(config.workdir).id in w2v("history", path)  # type: ignore[union-attr]
    w2v("export", path, str(tmp_path / "out"), "-f", "word2vec-text")
    assert (tmp_path / "out" / "vectors.txt").stat().st_size > 1000


def test_latest_json_names_the_objects_that_answer(finished: Site) -> None:
    place, storage = finished.place("finished"), finished.storage()
    latest = json.loads(read_object(place / "latest.json", storage))
    data = read_object(place / latest["vectors"]["vectors.npy"], storage)
    vectors = intact_vectors(require_answer(look(finished.config("finished")).workdir))
    assert data == vectors.path("vectors.npy").read_bytes()


@pytest.mark.turns(3, 3, of="buckets")
def test_a_changed_object_is_named_by_verify_and_made_again(finished: Site) -> None:
    name = "damaged"
    config = finished.config(name)
    run(config, workers=InProcess(), progress=QUIET)
    place, storage = finished.place(name), finished.storage()
    key = next(key for key in finished.keys(name) if key.startswith("vectors/") and "/vectors.npy/" in key)
    data = read_object(place / key, storage)
    put_object(place / key, data[:-1] + b"\x7f", storage)
    other = look(finished.config(name, host="elsewhere"))
    checked, damage = verify_workdir(other.workdir)
    assert checked > 20
    assert damage == [f"{place / key}: its content changed (SHA-256 differs)"]
    summary = run(other, workers=InProcess(), progress=QUIET)
    assert summary["vectors"]["sha256"] == finished.digest
    assert any("its content changed" in note for note in summary["notes"])
    assert read_object(place / key, storage) == data


@pytest.mark.turns(3, 3, of="buckets")
def test_objects_that_are_gone_are_named_by_verify_and_made_again(finished: Site) -> None:
    name = "gone"
    run(finished.config(name), workers=InProcess(), progress=QUIET)
    place, storage, keys = finished.place(name), finished.storage(), finished.keys(name)
    gone = [
        next(key for key in keys if key.startswith(kind) and not key.endswith(".json"))
        for kind in ("shards/", "tokens/parts/", "vocab/")
    ]
    for key in gone:
        remove_object(place / key, storage)
    config = look(finished.config(name))
    assert sorted(verify_workdir(config.workdir)[1]) == [f"{place / key}: missing" for key in gone]
    summary = run(config, workers=InProcess(), progress=QUIET)
    assert summary["vectors"]["sha256"] == finished.digest
    assert set(gone) < set(finished.keys(name))
    assert verify_workdir(config.workdir)[1] == []


@pytest.mark.turns(3, 2, of="buckets")
def test_a_manifest_that_is_gone_takes_the_artefact_from_every_copy(finished: Site) -> None:
    name = "unmade"
    config = finished.config(name)
    run(config, workers=InProcess(), progress=QUIET)
    key = next(key for key in finished.keys(name) if key.startswith("vectors/") and key.endswith("manifest.json"))
    remove_object(finished.place(name) / key, finished.storage())
    assert "train" not in cached(config)


def test_what_a_workdir_in_a_bucket_holds_is_no_input(finished: Site) -> None:
    inside = finished.place("finished")
    config = finished.config("finished", corpus={"inputs": [f"{inside}/latest.json"], "sniff": False})
    with pytest.raises(ConfigError, match=r"names objects inside run.workdir"):
        run(config, workers=InProcess(), progress=QUIET)


def test_who_comes_while_a_copy_is_brought_up_to_date_to_be_looked_at_waits_for_that(
    finished: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, pull, done = finished.config("finished", host="looker"), Copy.pull, []

    def work() -> None:
        with arrive(config):
            done.append("run")

    def look_too() -> None:
        look(config)
        done.append("look")

    others = [threading.Thread(target=other) for other in (work, look_too)]

    def pull_while_others_come(copy: Copy) -> None:
        monkeypatch.setattr(Copy, "pull", pull)
        for other in others:
            other.start()
        for other in others:
            other.join(0.3)
        assert done == [], "neither reads what is not there yet"
        pull(copy)

    monkeypatch.setattr(Copy, "pull", pull_while_others_come)
    look(config)
    for other in others:
        other.join()
    assert sorted(done) == ["look", "run"], "and nobody took the other for a run at work"


def test_a_file_that_a_worker_renames_while_a_copy_is_brought_up_to_date_is_no_error(
    finished: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = look(finished.config("finished", host="serving"))
    passing = config.workdir / "shards" / ("0" * 16) / ".part-00000.arrow.tmp"
    passing.parent.mkdir(parents=True)
    passing.touch()
    key_of = Copy.key_of

    def as_a_worker_renames(copy: Copy, path: Path) -> str:
        if path == passing:
            passing.unlink()
        return key_of(copy, path)

    monkeypatch.setattr(Copy, "key_of", as_a_worker_renames)
    look(config)
    assert not passing.exists()


# ── refresh ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.turns(4, 4, of="buckets")
def test_a_refresh_goes_on_from_a_champion_in_the_bucket_on_any_host(site: Site) -> None:
    corpus = site.bucket / "texts"
    lines = Path(site.inputs[0]).read_bytes().splitlines(keepends=True)
    put_object(corpus / "a.txt", b"".join(lines[: len(lines) // 2]), site.storage())
    open_gates = {"overlap": 0, "drift": None, "vocabulary": 0, "memory": None, "sense": None, "loss": None, "norm": None}
    loose = {"gates": open_gates, "keep": 1}

    def config(host: str, place: str | None = "refreshed") -> RunConfig:
        at = site.place(place) if place else None
        return parse_config(site.tree("refreshed", host, place=at, corpus={"inputs": [f"{corpus}/*.txt"]}, refresh=loose))

    first = refresh(config("one"), workers=InProcess(), progress=QUIET)
    assert first["status"] == "promoted"
    assert refresh(config("two"), workers=InProcess(), progress=QUIET)["status"] == "nothing new"
    put_object(corpus / "b.txt", b"".join(lines[len(lines) // 2 :]), site.storage())
    second = refresh(config("two"), workers=InProcess(), progress=QUIET)
    assert (second["status"], second["start"]) == ("promoted", "warm")
    assert "tokenize" in second["stages"]
    assert refresh(config("three"), workers=InProcess(), progress=QUIET)["status"] == "nothing new"
    seen = look(config("four")).workdir
    assert [entry["champion"] for entry in entries(seen)] == [first["snapshot"], second["snapshot"]]
    assert champion_of(seen).id == second["snapshot"]  # type: ignore[union-attr]
    assert len([key for key in site.keys("refreshed") if key.endswith("snapshot.json")]) == 1, "refresh.keep is 1"
    assert not [key for key in site.keys("refreshed") if first["snapshot"] in key]
    assert verify_workdir(seen)[1] == []


@pytest.mark.turns(4, 4, of="buckets")
def test_a_rollback_holds_on_every_host(site: Site) -> None:
    name = "rolled"
    first = run(site.config(name), workers=InProcess(), progress=QUIET)
    second = run(site.config(name, train={"alpha": 0.04}), workers=InProcess(), progress=QUIET)
    assert first["vectors"]["sha256"] != second["vectors"]["sha256"]
    entry = rollback(site.config(name, host="two"), None)
    config = look(site.config(name, host="three"))
    assert champion_of(config.workdir).id == entry["champion"]  # type: ignore[union-attr]
    found = intact_vectors(require_answer(config.workdir))
    assert found.part("vectors.npy").sha256 == first["vectors"]["sha256"]
    assert WordVectors.load(config.workdir / "latest" / "vectors").words


@pytest.mark.turns(4, 4, of="buckets")
def test_gc_on_a_fresh_copy_finds_what_only_the_bucket_has(site: Site) -> None:
    name = "collected"
    run(site.config(name), workers=InProcess(), progress=QUIET)
    run(site.config(name, train={"alpha": 0.04}), workers=InProcess(), progress=QUIET)
    stray = f"checkpoints/{'0' * 16}/w_in-00000.npy/{'0' * 64}"
    put_object(site.place(name) / stray, b"broken off", site.storage())
    path = str(site.file(name, host="fresh", train={"alpha": 0.04}))
    before = site.keys(name)
    told = CliRunner().invoke(commands, ["prune", path, "--keep", "1", "--yes"])
    assert told.exit_code == 0, told.output
    assert "interrupted" in told.output
    after = site.keys(name)
    assert stray in before
    assert stray not in after
    assert len([key for key in after if key.startswith("vectors/") and key.endswith("manifest.json")]) == 1
    assert verify_workdir(look(load_config(path)).workdir)[1] == []


# ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick signs of life, although S3 gives times in seconds, so that they cannot be seen more often. A lease lasts longer than
    a busy machine holds up a renewal."""
    monkeypatch.setattr(lease, "RENEW_S", 1.1)
    monkeypatch.setattr(lease, "LEASE_S", 60.0)
    monkeypatch.setattr(lease, "LOOK_S", 0.1)


def test_a_run_on_another_host_is_told_who_is_working(site: Site, quick: None, tmp_path: Path) -> None:
    place, storage = site.place("held"), site.storage()
    with lease.held(place, storage, tmp_path):
        (other := tmp_path / "other").mkdir()
        with (
            pytest.raises(BusyError, match=rf"another run is working here \(pid {os.getpid()} on "),
            lease.held(place, storage, other),
        ):
            pytest.fail("both hold it")
        assert "pid" in str(lease.holder(place, storage))
    assert lease.holder(place, storage) is None


def test_a_lease_that_is_not_renewed_is_ignored_once_its_time_is_up(
    site: Site, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 4.0)
    place, storage = site.place("deserted"), site.storage()
    put_object(place / ".lease/dead.json", b'{"who": "pid 1 on elsewhere", "here": "elsewhere"}', storage)
    notes: list[str] = []
    started = time.monotonic()
    with lease.held(place, storage, tmp_path, notes.append):
        assert 3.5 < time.monotonic() - started < 40
        assert "pid 1 on elsewhere was working here" in notes[0]


def test_of_many_that_start_at_the_same_time_at_most_one_works(site: Site, quick: None, tmp_path: Path) -> None:
    place, storage = site.place("contended"), site.storage()
    working, most, ready = [], [], threading.Barrier(6)

    def work(number: int) -> None:
        (root := tmp_path / str(number)).mkdir()
        ready.wait()
        try:
            with lease.held(place, storage, root):
                working.append(number)
                most.append(len(working))
                time.sleep(0.3)
                working.remove(number)
        except BusyError:
            pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most, default=0) <= 1
    assert lease.holder(place, storage) is None


def test_a_holder_that_could_not_renew_its_lease_for_too_long_commits_nothing(site: Site, tmp_path: Path) -> None:
    with lease.held(site.place("lost"), site.storage(), tmp_path):
        lease.require(tmp_path)
        (tmp_path / lease.UNTIL).write_text(f"{os.getpid()} 0.5")
        with pytest.raises(TemporaryError, match=r"this run could not renew its lease in the bucket for 45 s"):
            lease.require(tmp_path)


def test_a_lease_that_is_renewed_can_be_read_at_any_moment(tmp_path: Path) -> None:
    over = threading.Event()

    def renew() -> None:
        while not over.is_set():
            lease.note_until(tmp_path)

    lease.note_until(tmp_path)
    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        for _ in range(3000):
            lease.require(tmp_path)
    finally:
        over.set()
        renewing.join()


# ── kills ────────────────────────────────────────────────────────────────────────────────────────────────────────────

POINTS = [
    "stage:tokenize", "put:known_files.json", "commit:tokens", "put:manifest.json", "was put:manifest.json", "committed:tokens",
    "put:vocab.parquet", "was put:vocab.parquet", "committed:vocab", "commit:shards", "committed:shards", "round:1.0",
    "commit:checkpoints", "committed:checkpoints", "commit:vectors", "committed:vectors", "put:scores.json", "committed:report",
    "committed:exports", "snapshot:written", "put:snapshot.json", "was put:snapshot.json", "decide:run", "decided:run",
    "put:latest.json", "was put:latest.json", "latest:made", "put:summary.json", "was put:summary.json",
]  # fmt: skip
"""Where the driver is killed."""
WORKER_POINTS = [
    "task:tokenize.2", "put:part-00001.arrow", "was put:part-00000.arrow", "put:w_in-00000.npy",
    "was put:w_in-00000.npy", "put:vectors.npy", "was put:context.npy", "step:1.5.3", "merge:3.1",
]  # fmt: skip
"""Where a worker is."""
CHOSEN = POINTS if ALL else random.Random(SEED).sample(POINTS, 2)
CHOSEN_WORKERS = WORKER_POINTS if ALL else random.Random(SEED).sample(WORKER_POINTS, 1)


@pytest.mark.parametrize("point", CHOSEN)
@pytest.mark.turns(5, 5, of="buckets")
def test_a_driver_that_is_killed_goes_on_to_the_same_bits(point: str, site: Site, tmp_path: Path) -> None:
    print(f"sampled with W2V_SEED={SEED}")
    name = f"killed-{POINTS.index(point)}"
    config = site.file(name)
    code, _, err = w2v_run(config, f"{point}=kill,{tmp_path / 'token'}")
    assert code == -signal.SIGKILL, err
    code, summary, err = w2v_run(config)
    assert code == 0, err
    assert summary["vectors"]["sha256"] == site.digest
    assert verify_workdir(look(site.config(name, host="clean")).workdir)[1] == []


@pytest.mark.parametrize("point", CHOSEN_WORKERS)
@pytest.mark.turns(10, 12, of="buckets")
def test_a_worker_that_is_killed_changes_nothing(point: str, site: Site, tmp_path: Path) -> None:
    print(f"sampled with W2V_SEED={SEED}")
    cluster = {"n_workers": 2, "options": {"scheduler_kwargs": {"dashboard": False}}}
    config = site.file(f"worker-{WORKER_POINTS.index(point)}", cluster=cluster)
    code, summary, err = w2v_run(config, f"{point}=kill,{tmp_path / 'token'}")
    assert (tmp_path / "token").exists(), "the failpoint was never reached"
    assert code == 0, err
    assert summary["vectors"]["sha256"] == site.digest


@pytest.mark.slow
@pytest.mark.skipif(not ALL, reason="waits for a lease to end; `make buckets` runs it")
def test_another_host_goes_on_from_the_checkpoint_of_a_killed_one(site: Site, tmp_path: Path) -> None:
    code, _, err = w2v_run(site.file("moved"), f"committed:checkpoints=kill,{tmp_path / 'token'}")
    assert code == -signal.SIGKILL, err
    code, summary, err = w2v_run(site.file("moved", host="second"))
    assert code == 0, err
    assert summary["vectors"]["sha256"] == site.digest
    assert summary["stages"]["shards"]["cached"]
