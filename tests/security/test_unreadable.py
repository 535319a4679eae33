"""A file that may not be read just now is not taken for a damaged one: nothing is removed, replaced or decided because of it."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import store
from pipeline.errors import UnreadError, unread
from pipeline.history.latest import champion_of, entries
from tests.pipeline.changing_corpus import ChangingCorpus
from tests.security.conftest import W2V

ANOTHER_USER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner,-chown", "--inh-caps=-all"]
"""Root without what lets it read everything: a user who may write into the folders, as others of a group may."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> ChangingCorpus:
    corpus = ChangingCorpus(tmp_path_factory.mktemp("finished"), seed=4)
    corpus.refresh()
    return corpus


@pytest.fixture(params=["vectors.npy", "manifest.json", "snapshot.json", "corpus.json", "000001.json"])
def closed(request: pytest.FixtureRequest, finished: ChangingCorpus, stranger: int) -> Iterator[Path]:
    """A file of the champion's that only its owner may read, who is somebody else."""
    (path, *_) = sorted((finished.directory / "work").rglob(request.param))
    mode = path.stat().st_mode
    path.chmod(0o600)
    os.chown(path, stranger, -1)
    yield path
    os.chown(path, os.geteuid(), -1)
    path.chmod(mode)


@pytest.mark.parametrize("command", ["run", "refresh"])
def test_what_may_not_be_read_is_neither_removed_nor_made_again(finished: ChangingCorpus, closed: Path, command: str) -> None:
    before, decisions = closed.read_bytes(), len(entries(finished.directory / "work"))
    done = subprocess.run(
        [*ANOTHER_USER, W2V, command, finished.directory / "config.yaml", "--quiet"], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 74, done.stderr
    assert f"{closed.name}: cannot be read (Permission denied); it may be intact, so nothing was removed" in done.stderr
    assert closed.read_bytes() == before
    assert len(entries(finished.directory / "work")) == decisions
    verified = subprocess.run(
        [*ANOTHER_USER, W2V, "verify", finished.directory / "work"], capture_output=True, text=True, timeout=200
    )
    assert (verified.returncode, "cannot be read" in verified.stderr, closed.name in verified.stderr) == (74, True, True)


@pytest.mark.parametrize(
    "name", ["summary.json", "known_files.json", "metrics.prom", "history/*.json", "report/seal.json", "tokens/parts/*.json"]
)
def test_what_verify_may_not_read_is_not_called_damaged(finished: ChangingCorpus, stranger: int, name: str) -> None:
    finished.refresh()
    path = min((finished.directory / "work").glob(name))
    mode = path.stat().st_mode
    path.chmod(0o600)
    os.chown(path, stranger, -1)
    command = [*ANOTHER_USER, W2V, "verify", finished.directory / "work"]
    verified = subprocess.run(command, capture_output=True, text=True, timeout=200)
    os.chown(path, os.geteuid(), -1)
    path.chmod(mode)
    assert verified.returncode == 74
    assert f"{path}: cannot be read (Permission denied)" in verified.stderr
    assert "damaged" not in verified.stderr


def test_a_process_without_descriptors_left_removes_nothing(finished: ChangingCorpus) -> None:
    champion = champion_of(finished.directory / "work")
    assert champion is not None
    artefact = store.load_artefact(champion.vectors)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        with pytest.raises(UnreadError, match="Too many open files"):
            store.remove_damaged(artefact)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert store.find_damage(artefact) == []


@pytest.mark.parametrize(
    ("code", "may_pass"), [(errno.EIO, True), (errno.ESTALE, True), (errno.ENOENT, False), (errno.ELOOP, False)]
)
def test_an_error_of_the_disk_or_its_server_is_no_damage_and_a_missing_file_or_a_link_is(code: int, may_pass: bool) -> None:
    assert (unread(OSError(code, os.strerror(code)), "x") is not None) == may_pass
