"""A run in folders that another user has filled with traps: modules, links and settings under the names that Python looks for."""

from __future__ import annotations

import fcntl
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from pipeline.errors import PermissionDeniedError
from pipeline.report.page import compiled_templates
from pipeline.safety.scratch import private_scratch
from pipeline.safety.start import make_private, numba_cache_folder
from tests.security.conftest import Ended, as_stranger, let_others_enter, w2v
from tests.tiny import tiny_config

PRECIOUS = "not to be lost\n"
among_traps = pytest.mark.turns(3, 8, of="strangers", together="a run among traps")


@dataclass(frozen=True)
class Trapped:
    """A run among traps, and what the traps have left behind."""

    folder: Path
    ended: Ended
    scratch_names: list[str]


@pytest.fixture(scope="module")
def trapped(tmp_path_factory: pytest.TempPathFactory, stranger: int, corpus: list[str]) -> Trapped:
    folder = tmp_path_factory.mktemp("trapped")
    let_others_enter(folder)
    temporary, current, scratch = folder / "tmp", folder / "current", folder / "tmp" / "dask-scratch-space"
    for shared in (temporary, current):
        shared.mkdir()
        shared.chmod(0o1777)
    (folder / "hits").mkdir()
    (folder / "hits").chmod(0o777)
    precious = folder / "precious.txt"
    precious.write_text(PRECIOUS)
    hit = f"import os; open(os.path.join({str(folder / 'hits')!r}, __name__), 'w').close()"
    script = f"mkdir -m 777 {scratch}"
    script += "".join(f"\nln -s {precious} {scratch}/{name}.lock" for name in ("global", "purge"))
    modules = {scratch: ("pyarrow", "zstandard", "lz4"), current: ("multiprocessing", "signal", "json", "runpy", "uvicorn")}
    for place, names in modules.items():
        script += "".join(f"\ncat > {place}/{name}.py <<'END'\n{hit}\nEND" for name in names)
    script += f"\necho 'cache_dir: {folder / 'hits'}' > {current}/.numba_config.yaml"
    subprocess.run(as_stranger("sh", "-ec", script), check=True)
    tree = tiny_config(folder / "work", corpus, tracking={"enabled": False}, cluster={"n_workers": 2, "options": {}})
    (folder / "c.yaml").write_text(yaml.safe_dump(tree))
    ended = w2v("run", folder / "c.yaml", cwd=current, TMPDIR=str(temporary))
    return Trapped(folder, ended, sorted(os.listdir(temporary)))


@among_traps
def test_a_run_among_traps_completes(trapped: Trapped) -> None:
    assert trapped.ended.code == 0, trapped.ended.err


@among_traps
def test_no_module_of_the_scratch_or_the_current_folder_is_imported_and_no_cache_is_made_where_its_file_says(
    trapped: Trapped,
) -> None:
    assert os.listdir(trapped.folder / "hits") == []


@among_traps
def test_links_under_the_names_of_dasks_locks_truncate_nothing(trapped: Trapped) -> None:
    assert (trapped.folder / "precious.txt").read_text() == PRECIOUS


@among_traps
def test_the_runs_own_scratch_folder_is_gone_at_its_end(trapped: Trapped) -> None:
    assert trapped.scratch_names == ["dask-scratch-space"]


def test_scratch_is_closed_to_others_and_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    with private_scratch(str(tmp_path)) as held:
        assert held.stat().st_mode & 0o777 == 0o700
        killed = tmp_path / "w2v-scratch-killed"
        killed.mkdir()
        (killed / ".lock").touch()
        with private_scratch(str(tmp_path)) as other:
            assert sorted(tmp_path.iterdir()) == sorted([held, other])
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_folder_that_another_run_removes_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, flock = [], fcntl.flock

    def between(lock: int, operation: int) -> None:
        if not begun:
            begun.append(True)
            with private_scratch(str(tmp_path)) as theirs:  # which finds a folder whose lock nobody holds
                assert list(tmp_path.iterdir()) == [theirs]
        flock(lock, operation)

    monkeypatch.setattr(fcntl, "flock", between)
    with private_scratch(str(tmp_path)) as held:
        assert list(tmp_path.iterdir()) == [held]


def test_a_strangers_folder_under_a_scratch_name_is_left_alone(tmp_path: Path, stranger: int) -> None:
    (tmp_path / "w2v-scratch-theirs").mkdir()
    (tmp_path / "w2v-scratch-theirs" / ".lock").touch()
    os.chown(tmp_path / "w2v-scratch-theirs", stranger, stranger)
    with private_scratch(str(tmp_path)):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["w2v-scratch-theirs"]


def test_scratch_in_a_folder_where_others_can_replace_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with (
        pytest.raises(PermissionDeniedError, match=r"others can replace .* mode 777\); set TMPDIR"),
        private_scratch(str(tmp_path / "open")),
    ):
        pass


def test_a_cache_of_machine_code_that_others_can_write_is_refused(config: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    ended = w2v("run", config, cwd=tmp_path, NUMBA_CACHE_DIR=str(cache))
    assert ended.code == 77
    assert "set NUMBA_CACHE_DIR to a folder of your own" in ended.err
    assert os.listdir(cache) == []


def test_without_a_folder_for_machine_code_only_what_compiles_is_refused(config: Path, tmp_path: Path) -> None:
    nowhere = {"NUMBA_CACHE_DIR": "/proc/nobody/cache"}
    assert w2v("--help", cwd=tmp_path, **nowhere).code == 0
    assert "nothing here yet" in w2v("status", config, cwd=tmp_path, **nowhere).out
    for command in ("run", "refresh", "plan", "sweep"):
        ended = w2v(command, config, *["train.alpha=.1,.2"] * (command == "sweep"), cwd=tmp_path, **nowhere)
        assert (ended.code, "/proc/nobody/cache: no folder for Numba's cache" in ended.err) == (77, True), ended.err


def test_a_strangers_cache_of_machine_code_is_refused(tmp_path: Path, stranger: int) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", stranger, stranger)
    with pytest.raises(PermissionDeniedError, match=f"owner {stranger}"):
        make_private(tmp_path / "theirs")


def test_compiled_templates_lie_beside_the_sources_only_if_they_are_as_safe_there(tmp_path: Path) -> None:
    assert compiled_templates(tmp_path) is None
    (cache := tmp_path / "__pycache__").mkdir(mode=0o755)
    assert compiled_templates(tmp_path) is not None
    cache.chmod(0o777)
    assert compiled_templates(tmp_path) is None


def test_machine_code_lies_beside_the_sources_only_if_it_is_as_safe_there(tmp_path: Path) -> None:
    (tmp_path / "w2v_core" / "kernels" / "__pycache__").mkdir(parents=True)
    assert numba_cache_folder(tmp_path, {}) is None
    (tmp_path / "w2v_core" / "kernels" / "__pycache__").chmod(0o777)
    assert numba_cache_folder(tmp_path, {"XDG_CACHE_HOME": "/home/me/.cache"}) == Path("/home/me/.cache/dask-word2vec/numba")
