"""Nothing is ever read that is incomplete or altered: flipped bits, cut, stray and half-written files are all detected."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import store
from pipeline.errors import BusyError, ConfigError, DamagedError, StorageError
from pipeline.safety import locks
from pipeline.stream.mapped_files import HashedFiles, map_arrow, write_arrow

FINGERPRINT = "ab" * 32


def make_artefact(workdir: Path) -> store.Artefact:
    directory = store.artefact_directory(workdir, "things", FINGERPRINT)
    table = pa.table({"token": np.arange(5000, dtype=np.int32)})
    parts = (
        store.write_table(directory / "part-00000.parquet", table, tokens=5000),
        store.write_array(directory / "noise.npy", np.arange(100, dtype=np.float32)),
        store.write_json(directory / "facts.json", {"a": 1}),
    )
    return store.commit(workdir, store.Manifest(stage="things", fingerprint=FINGERPRINT, parts=parts, totals={"n": 5000}))


def test_what_was_committed_is_what_is_opened(tmp_path: Path) -> None:
    made = make_artefact(tmp_path)
    assert store.open_artefact(tmp_path, "things", FINGERPRINT) == made
    assert store.find_damage(made) == []
    assert store.read_table(made.path("part-00000.parquet"))["token"].to_pylist() == list(range(5000))


def test_without_a_manifest_there_is_no_artefact(tmp_path: Path) -> None:
    store.write_json(store.artefact_directory(tmp_path, "things", FINGERPRINT) / "facts.json", {})
    assert store.open_artefact(tmp_path, "things", FINGERPRINT) is None


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    assert make_artefact(tmp_path / "a").manifest == make_artefact(tmp_path / "b").manifest
    again = make_artefact(tmp_path / "a")
    assert store.find_damage(again) == []


def test_every_single_bit_flip_is_found(tmp_path: Path) -> None:
    artefact = make_artefact(tmp_path)
    files = [path for path in artefact.directory.iterdir() if path.is_file()]
    rng = random.Random(7)
    for _ in range(200):
        path = rng.choice(files)
        data = bytearray(path.read_bytes())
        position, bit = rng.randrange(len(data)), rng.randrange(8)
        data[position] ^= 1 << bit
        path.write_bytes(data)
        try:
            found = store.find_damage(store.load_artefact(artefact.directory))
        except DamagedError as error:
            found = [str(error)]
        assert found, f"bit {bit} of byte {position} of {path.name} was not noticed"
        assert path.name in found[0]
        data[position] ^= 1 << bit
        path.write_bytes(data)
    assert store.find_damage(artefact) == []


def test_a_flip_in_a_parquet_page_is_found_while_reading(tmp_path: Path) -> None:
    part = store.write_table(
        tmp_path / "t.parquet", pa.table({"x": np.arange(100_000)}), compression="none", use_dictionary=False
    )
    path = tmp_path / part.name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=r"t\.parquet: damaged"):
        store.read_table(path)


@pytest.mark.parametrize(("written", "flipped"), [(b"1e-05", b"1E-05"), (b"0.30000000000000004", b"0.30000000000000005")])
def test_a_flip_in_a_manifest_that_leaves_its_meaning_is_found_too(tmp_path: Path, written: bytes, flipped: bytes) -> None:
    totals = {"alpha": 1e-5, "loss": 0.1 + 0.2}
    made = store.commit(tmp_path, store.Manifest(stage="things", fingerprint=FINGERPRINT, parts=(), totals=totals))
    path = made.directory / store.MANIFEST
    assert path.read_bytes().count(written) == 1
    path.write_bytes(path.read_bytes().replace(written, flipped))
    with pytest.raises(DamagedError, match="its bytes are not those that were written"):
        store.load_artefact(made.directory)


def test_a_mapped_file_is_hashed_unless_this_process_wrote_it_and_nobody_touched_it_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    check = store.check_part
    monkeypatch.setattr(store, "check_part", lambda directory, part: hashed.append(part.name) or check(directory, part))
    table = pa.table({"token": pa.array(range(1000), pa.int32())})
    hashed_files = HashedFiles()
    part = write_arrow(tmp_path / "part", table, hashed_files)
    assert map_arrow(tmp_path, part, hashed_files).equals(table)
    assert hashed == []
    os.utime(tmp_path / "part")
    for _ in range(2):
        assert map_arrow(tmp_path, part, hashed_files).equals(table)
    assert hashed == ["part"]

    found = (tmp_path / "part").stat()
    flipped = bytearray((tmp_path / "part").read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (tmp_path / "other").write_bytes(flipped)
    os.utime(tmp_path / "other", ns=(found.st_atime_ns, found.st_mtime_ns))
    (tmp_path / "other").rename(tmp_path / "part")  # another file of the same size and age
    with pytest.raises(DamagedError, match=r"part: its content changed \(SHA-256 differs\); run again to rebuild it"):
        map_arrow(tmp_path, part, hashed_files)


def test_damaged_files_are_removed_and_intact_ones_kept(tmp_path: Path) -> None:
    artefact = make_artefact(tmp_path)
    os.truncate(artefact.path("facts.json"), 3)
    assert len(store.remove_damaged(artefact)) == 1
    assert sorted(path.name for path in artefact.directory.iterdir()) == ["manifest.json", "noise.npy", "part-00000.parquet"]


def test_missing_and_cut_files_are_named_with_what_was_expected(tmp_path: Path) -> None:
    artefact = make_artefact(tmp_path)
    artefact.path("noise.npy").unlink()
    os.truncate(artefact.path("facts.json"), 3)
    missing, cut = sorted(store.find_damage(artefact), reverse=True)
    assert missing.endswith("noise.npy: missing")
    assert "facts.json: expected" in cut
    assert "found 3" in cut


def test_an_artefact_copied_from_elsewhere_is_refused(tmp_path: Path) -> None:
    made = make_artefact(tmp_path)
    other = "cd" * 32
    made.directory.rename(store.artefact_directory(tmp_path, "things", other))
    with pytest.raises(DamagedError, match="it was copied from elsewhere"):
        store.open_artefact(tmp_path, "things", other)


def test_stray_files_do_not_exist(tmp_path: Path) -> None:
    made = make_artefact(tmp_path)
    (made.directory / "part-99999.parquet").write_bytes(b"stale")
    opened = store.open_artefact(tmp_path, "things", FINGERPRINT)
    assert opened is not None
    assert [part.name for part in opened.manifest.parts] == ["part-00000.parquet", "noise.npy", "facts.json"]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    def write(file: object) -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        store.write_file(tmp_path / "x", write)
    assert list(tmp_path.iterdir()) == []


def test_fingerprints_see_fields_inputs_and_versions_and_no_order_of_keys() -> None:
    base = store.fingerprint("s", 1, {"a": 1, "b": 2}, ["x", "y"])
    assert store.fingerprint("s", 1, {"b": 2, "a": 1}, ["x", "y"]) == base
    for other in (
        store.fingerprint("t", 1, {"a": 1, "b": 2}, ["x", "y"]),
        store.fingerprint("s", 2, {"a": 1, "b": 2}, ["x", "y"]),
        store.fingerprint("s", 1, {"a": 1, "b": 3}, ["x", "y"]),
        store.fingerprint("s", 1, {"a": 1, "b": 2}, ["y", "x"]),
    ):
        assert other != base


def test_a_second_holder_of_the_lock_is_told_who_the_first_is(tmp_path: Path) -> None:
    with (
        store.lock(tmp_path),
        pytest.raises(BusyError, match=f"another run is working here .pid {os.getpid()}"),
        store.lock(tmp_path),
    ):
        pass
    with store.lock(tmp_path):
        pass


def test_a_workdir_that_cannot_be_a_folder_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "file/below", "link"):
        found = rf"run\.workdir: .*{name} (cannot be a folder|is a file, and a run needs a folder)"
        with pytest.raises(ConfigError, match=found), store.lock(tmp_path / name):
            pass


def test_who_only_asks_for_the_holder_is_taken_for_none(tmp_path: Path) -> None:
    path = tmp_path / locks.WORKDIR_LOCK
    with store.lock(tmp_path):
        assert locks.holder(path) == f"pid {os.getpid()} on {socket.gethostname()}"
    with open(path, "r+b") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)  # as `w2v status` does while it asks
        assert locks.holder(path) is None, "two may ask at the same time"
        answered = threading.Timer(0.2, fcntl.flock, (asking, fcntl.LOCK_UN))
        answered.start()
        with store.lock(tmp_path):
            pass
        answered.join()


def test_unfinished_files_are_removed_unless_a_shipper_of_an_earlier_run_is_writing_them(tmp_path: Path) -> None:
    left, written = (tmp_path / "tracking" / name / ".progress.json.0123456789ab.tmp" for name in ("left", "shipped"))
    for path in (left, written):
        path.parent.mkdir(parents=True)
        path.touch()
        path.with_name(locks.SHIPPER_LOCK).touch()
    with locks.held(written.with_name(locks.SHIPPER_LOCK)):
        store.remove_unfinished(tmp_path)
        assert (left.exists(), written.exists()) == (False, True)
    store.remove_unfinished(tmp_path)
    assert not written.exists()


def test_hidden_temporary_files_and_folders_of_others_below_a_workdir_stay(tmp_path: Path) -> None:
    others = [tmp_path / "notes" / name for name in (".draft.tmp", ".export.ab12cd34.tmp", ".x.0123456789AB.tmp")]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_text("not ours")
    (tmp_path / ".cache.0123456789ab.tmp").mkdir()
    store.remove_unfinished(tmp_path)
    assert [path.read_text() for path in others] == ["not ours"] * 3
    assert (tmp_path / ".cache.0123456789ab.tmp").is_dir()


def test_a_temporary_link_to_a_folder_is_removed(tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    link = tmp_path / ".latest.0123456789ab.tmp"
    link.symlink_to("snapshots", target_is_directory=True)
    store.remove_unfinished(tmp_path)
    assert not link.is_symlink()
    assert (tmp_path / "snapshots").is_dir()


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom pipeline import store\n"
        f"with store.lock(Path({str(tmp_path)!r})): print('held', flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BusyError), store.lock(tmp_path):
            pass
        holder.kill()
    with store.lock(tmp_path):
        pass


def test_a_full_disk_says_so_with_the_path_and_the_free_bytes(small_disk: Path) -> None:
    with pytest.raises(StorageError, match=r"big: the disk is full \(0 bytes free there, at least 2,\d+,\d+ needed\)"):
        store.write_bytes(small_disk / "big", bytes(4 << 20))
    assert list(small_disk.iterdir()) == []
    store.write_bytes(small_disk / "small", b"x")


def test_a_quota_that_is_used_up_is_not_called_a_full_disk(tmp_path: Path) -> None:
    told = store.explain_os_error(OSError(errno.EDQUOT, "Disk quota exceeded"), tmp_path / "big", needed=7)
    assert (
        str(told)
        == f"{tmp_path / 'big'}: the quota of this user is used up there; make space and run the same command again, it continues"
    )


def test_a_folder_without_write_permission_is_reported_as_such() -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom pipeline import store, errors\n"
        "os.geteuid() == 0 and os.seteuid(65534)\n"
        "try: store.write_bytes(Path(sys.argv[1]) / 'x', b'1')\n"
        "except errors.PermissionDeniedError as error: print(error)"
    )
    # Not pytest's own folder: nobody but its owner can enter that.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o555)
        done = subprocess.run([sys.executable, "-c", code, directory], capture_output=True, text=True)
    assert "cannot write here" in done.stdout, done.stderr
