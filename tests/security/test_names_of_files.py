"""Names in files are data: whatever names a manifest, a spool or a summary contains, nothing outside its folder is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline import store
from pipeline.errors import DamagedError, StorageError
from pipeline.history.snapshot import read_summary
from pipeline.safety.files import is_confined, open_inside, unlink_inside
from pipeline.tracking.registry import CannotBeTaken, resolve
from pipeline.tracking.spool import Spool, read_events
from tests.security.conftest import as_stranger, here, let_others_enter, w2v
from tests.tiny import IN_THREADS, tiny_config

PRECIOUS = "not to be lost\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, corpus: list[str]) -> Path:
    """The folder of a configuration `c.yaml` with a complete, untracked run."""
    folder = tmp_path_factory.mktemp("finished")
    tree = tiny_config(folder / "work", corpus, tracking={"enabled": False}, cluster=IN_THREADS)
    (folder / "c.yaml").write_text(yaml.safe_dump(tree))
    ended = w2v("run", folder / "c.yaml", cwd=folder)
    assert ended.code == 0, ended.err
    return folder


@pytest.fixture
def victim(finished: Path, tmp_path: Path) -> Path:
    """A copy of that folder, with a file beside it that must not be touched."""
    shutil.copytree(finished / "work", tmp_path / "work", symlinks=True)
    tree = yaml.safe_load((finished / "c.yaml").read_text())
    tree["run"]["workdir"] = str(tmp_path / "work")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree))
    (tmp_path / "precious.txt").write_text(PRECIOUS)
    return tmp_path


def rename_a_part(workdir: Path, kind: str, name: str) -> Path:
    """Reseals the manifest of an artefact so that its last part has another name; returns the artefact's folder."""
    (directory,) = (workdir / kind).iterdir()
    body = store.unsealed((directory / store.MANIFEST).read_bytes())
    body["parts"][-1]["name"] = name
    store.write_json(directory / store.MANIFEST, store.sealed(body))
    return directory


@pytest.mark.parametrize("name", ["{precious}", "../../../precious.txt", "a/../../../../precious.txt", "", "a//b", "x\0y"])
def test_a_part_that_is_called_by_a_name_outside_its_folder_is_damage_and_nothing_there_is_deleted(
    victim: Path, name: str
) -> None:
    precious = victim / "precious.txt"
    directory = rename_a_part(victim / "work", "vocab", name.format(precious=precious))
    with pytest.raises(DamagedError, match="it names a file outside its folder"):
        store.load_artefact(directory)
    if name.startswith(("..", "{")):
        ended = here("vocab", victim / "c.yaml", cwd=victim)
        assert ended.code == 0, ended.err
        assert "names a file outside its folder" in ended.err
    assert precious.read_text() == PRECIOUS


def test_a_part_that_has_become_a_link_or_a_fifo_is_damage_and_is_built_again(victim: Path) -> None:
    (vocab,) = (victim / "work" / "vocab").iterdir()
    part = next(path for path in vocab.iterdir() if path.name != store.MANIFEST)
    content = part.read_bytes()
    part.rename(victim / "elsewhere")
    part.symlink_to(victim / "elsewhere")
    other = next((victim / "work" / "tokens" / "parts").glob("*.tokens.*"))
    other.unlink()
    os.mkfifo(other)
    ended = here("run", victim / "c.yaml", cwd=victim)
    assert ended.code == 0, ended.err
    assert "symbolic link, which is not followed" in ended.err
    assert "not a regular file but a FIFO" in ended.err
    assert (victim / "elsewhere").read_bytes() == content
    assert not part.is_symlink()
    assert part.read_bytes() == content


def test_a_name_is_confined_exactly_if_it_can_only_mean_something_inside(tmp_path: Path) -> None:
    for name in ("a", "a/b", "..a", "a..", ".lock", "~root", "ü"):
        assert is_confined(name), name
    for name in ("", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "./a", "a\0", "\ud800", 3, None):
        assert not is_confined(name), name
    (tmp_path / "out").mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "out" / "x").touch()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    for name in ("link/x", "../out/x", str(tmp_path / "out" / "x")):
        with pytest.raises(OSError, match=r"link|directory|leads out"):
            open_inside(tmp_path / "in", name)
        with pytest.raises(OSError, match=r"link|directory|leads out"):
            unlink_inside(tmp_path / "in", name)
    unlink_inside(tmp_path / "in", "link")
    assert (tmp_path / "out" / "x").exists()


def test_a_spool_uploads_nothing_from_outside_the_workdir_and_nothing_behind_a_link(tmp_path: Path) -> None:
    workdir = tmp_path / "work"
    spool = Spool(workdir / "tracking" / "key")
    spool.directory.mkdir(parents=True)
    (workdir / "vectors").mkdir()
    (workdir / "vectors" / "vectors.npy").touch()
    secret = tmp_path / "secret.txt"
    secret.write_text(PRECIOUS)
    with resolve(spool, "vectors") as path:
        assert path == workdir / "vectors"
    (workdir / "linked.txt").symlink_to(secret)
    (workdir / "folder").symlink_to(tmp_path)
    for name in (str(secret), "../secret.txt", "linked.txt", "folder/secret.txt", "folder"):
        with pytest.raises(CannotBeTaken, match=r"leads out|link"), resolve(spool, name):
            pass
    (workdir / "vectors" / "words.txt").symlink_to(secret)
    with pytest.raises(CannotBeTaken, match="link"), resolve(spool, "vectors"):
        pass


@pytest.mark.parametrize("open_to_others", [".", "vectors", "vectors/deep"])
def test_what_a_spool_uploads_cannot_be_exchanged_while_it_is_uploaded(tmp_path: Path, open_to_others: str) -> None:
    workdir, secret = tmp_path / "work", tmp_path / "secret.txt"
    secret.write_text(PRECIOUS)
    spool = Spool(workdir / "tracking" / "key")
    spool.directory.mkdir(parents=True)
    words = workdir / "vectors" / "deep" / "words.txt"
    words.parent.mkdir(parents=True)
    words.write_text("the")
    (workdir / open_to_others).chmod(0o777)
    for name, inside in (("vectors", "deep/words.txt"), ("vectors/deep/words.txt", "")):
        with resolve(spool, name) as path:
            words.unlink()
            words.symlink_to(secret)
            assert (path / inside).read_text() == "the"
        assert not path.exists()
        words.unlink()
        words.write_text("the")


def test_events_without_the_fields_of_their_type_are_passed_over(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    good = {"type": "artifact", "path": "vectors", "folder": "vectors"}
    bad = [{**good, "folder": "../../other"}, {"type": "metrics", "values": [1]}, {"type": "params"}, {"type": []}, [], 3,
           {"type": "tags", "tags": {"a": 1}}, {"type": "metrics", "time": True, "step": 0, "values": {}}]  # fmt: skip
    spool.events.write_text("".join(json.dumps(event) + "\n" for event in [*bad, good]) + "[" * 50_000 + "\n")
    assert [event for event, _ in read_events(spool, 0)] == [None] * len(bad) + [good, None]


@pytest.mark.parametrize("command", ["run", "status"])
def test_a_link_in_the_place_of_a_lock_is_refused_and_what_it_points_to_stays(victim: Path, command: str) -> None:
    lock = victim / "work" / ".lock"
    lock.unlink()
    lock.symlink_to(victim / "precious.txt")
    ended = here(command, victim / "c.yaml", cwd=victim)
    assert "a symbolic link in the place of a lock file" in ended.err + ended.out
    assert ended.code == (77 if command == "run" else 0)
    assert (victim / "precious.txt").read_text() == PRECIOUS


def test_status_writes_nothing(victim: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in victim.rglob("*")}
    assert here("status", victim / "c.yaml", cwd=victim).code == 0
    assert {path: path.stat().st_mtime_ns for path in victim.rglob("*")} == before


def test_another_user_cannot_hold_the_lock(victim: Path, stranger: int) -> None:
    lock = victim / "work" / ".lock"
    lock.chmod(0o644)
    assert here("vocab", victim / "c.yaml", cwd=victim).code == 0
    assert lock.stat().st_mode & 0o777 == 0o600
    let_others_enter(victim / "work")
    hold = f"import fcntl; fcntl.flock(open({str(lock)!r}), fcntl.LOCK_EX)"
    tried = subprocess.run(as_stranger(sys.executable, "-c", hold), capture_output=True, text=True)
    assert tried.returncode != 0


def test_a_strangers_lock_file_is_refused(victim: Path, stranger: int) -> None:
    os.chown(victim / "work" / ".lock", stranger, stranger)
    ended = here("vocab", victim / "c.yaml", cwd=victim)
    assert ended.code == 77
    assert "not a lock file of this user" in ended.err


def test_export_replaces_what_it_wrote_and_nothing_else_unless_forced(victim: Path) -> None:
    out = victim / "out"
    out.mkdir()
    (out / "words.txt").write_text(PRECIOUS)
    refused = here("export", victim / "c.yaml", out, "-f", "npy", "-f", "word2vec-text", cwd=victim)
    assert refused.code == 64
    assert "words.txt would be replaced" in refused.err
    assert os.listdir(out) == ["words.txt"]
    assert (out / "words.txt").read_text() == PRECIOUS
    assert here("export", victim / "c.yaml", out, "-f", "npy", "--force", cwd=victim).code == 0
    assert (out / "words.txt").read_text() != PRECIOUS
    assert here("export", victim / "c.yaml", out, "-f", "npy", cwd=victim).code == 0
    (out / "words.txt").write_text(PRECIOUS)
    assert here("export", victim / "c.yaml", out, "-f", "npy", cwd=victim).code == 64
    assert (out / "words.txt").read_text() == PRECIOUS


def test_export_does_not_write_through_a_link(victim: Path) -> None:
    out = victim / "out"
    out.mkdir()
    (out / "vectors.bin").symlink_to(victim / "precious.txt")
    assert here("export", victim / "c.yaml", out, cwd=victim).code == 64
    assert here("export", victim / "c.yaml", out, "--force", cwd=victim).code == 0
    assert (victim / "precious.txt").read_text() == PRECIOUS


def test_a_summary_cannot_name_vectors_elsewhere(victim: Path) -> None:
    summary = store.unsealed((victim / "work" / "summary.json").read_bytes())
    summary["vectors"]["path"] = "/proc/self"
    store.write_json(victim / "work" / "summary.json", store.sealed(summary))
    ended = here("query", "similar", victim / "c.yaml", "topic1word1", cwd=victim)
    assert ended.code == 0, ended.err


def test_a_flipped_bit_in_the_vectors_is_found_before_they_answer_or_are_exported(victim: Path) -> None:
    (directory,) = (victim / "work" / "vectors").iterdir()
    data = bytearray((directory / "vectors.npy").read_bytes())
    data[-3] ^= 1
    (directory / "vectors.npy").write_bytes(data)
    for command in (("query", "similar", victim / "c.yaml", "topic1word1"), ("export", victim / "c.yaml", victim / "out")):
        ended = here(*command, cwd=victim)
        assert ended.code == 74
        assert "vectors.npy: its content changed" in ended.err
    ended = here("query", "similar", directory, "topic1word1", cwd=victim)
    assert (ended.code, "vectors.npy: its content changed" in ended.err) == (65, True)


NOT_WHAT_WAS_WRITTEN = (b"", b"{}", b"[]", b"\xff", b'{"status": "complete"', b"[" * 100_000, b'{"sha256": []}', b"null")


def test_a_changed_summary_is_called_damaged_by_everything_that_reads_it(victim: Path) -> None:
    path = victim / "work" / "summary.json"
    data = path.read_bytes()
    for content in (*NOT_WHAT_WAS_WRITTEN, data[:-1], data.replace(b"complete", b"complets")):
        path.write_bytes(content)
        with pytest.raises(StorageError, match=r"summary\.json: damaged"):
            read_summary(victim / "work")
    path.unlink()
    os.mkfifo(path)
    for command in ("verify", "status"):
        ended = here(command, victim / "c.yaml", cwd=victim)
        assert "summary.json: damaged" in ended.out + ended.err
        assert ended.code == (74 if command == "verify" else 0)
    # What answers is the last good result with a summary of its own, so this one is not asked.
    assert here("query", "similar", victim / "c.yaml", "topic1word1", cwd=victim).code == 0
