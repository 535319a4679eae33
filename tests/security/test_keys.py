"""Where certificates and their keys are put, and what signs them: never in others' folders or through a link, and only with the
authority's key."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pipeline.cluster.certificates import add_clients, instructions, make_certificates
from pipeline.errors import InputError, PermissionDeniedError, PipelineError, UsageError
from tests.security.conftest import as_stranger, let_others_enter, w2v


def test_a_folder_that_others_can_write_into_gets_no_keys(tmp_path: Path) -> None:
    for mode in (0o777, 0o1777, 0o770):
        folder = tmp_path / f"{mode:o}"
        folder.mkdir()
        folder.chmod(mode)
        with pytest.raises(PermissionDeniedError, match=r"other users can put certificates here"):
            make_certificates(folder, "here", [])
        assert list(folder.iterdir()) == []
    made = tmp_path / "mine"
    make_certificates(made, "here", [])
    made.chmod(0o777)
    with pytest.raises(PermissionDeniedError, match=r"other users can put certificates here"):
        add_clients(made, ["ann"])


def test_a_strangers_folder_gets_no_keys_and_a_stranger_reads_none(tmp_path: Path, stranger: int) -> None:
    let_others_enter(tmp_path)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, stranger, stranger)
    with pytest.raises(PermissionDeniedError, match=rf"owner {stranger}"):
        make_certificates(theirs, "here", [])
    made = make_certificates(tmp_path / "mine", "here", [])
    for path in made:
        assert subprocess.run(as_stranger("cat", path), capture_output=True, check=False).returncode


@pytest.mark.parametrize("name", ["ca.key", "ca.pem", "client.pem", "worker.key"])
def test_what_is_there_already_is_not_written_through(tmp_path: Path, name: str) -> None:
    folder, target = tmp_path / "certs", tmp_path / "target"
    folder.mkdir(mode=0o700)
    target.write_text("mine")
    (folder / name).symlink_to(target)
    with pytest.raises(UsageError, match="exists already"):
        make_certificates(folder, "here", [])
    assert target.read_text() == "mine"
    assert [path.name for path in folder.iterdir()] == [name]


@pytest.mark.parametrize("name", ["ca.key", "ca.pem"])
def test_an_authority_that_is_a_link_a_fifo_or_not_one_signs_nothing(tmp_path: Path, name: str) -> None:
    make_certificates(tmp_path / "other", "here", [])
    folder = tmp_path / "certs"
    make_certificates(folder, "here", [])
    kept = (folder / name).read_bytes()
    cases: dict[str, bytes | None] = {
        "link": None, "fifo": None, "another's": (tmp_path / "other" / name).read_bytes(),
        "cut": kept[: len(kept) // 2], "empty": b"", "endless": b"-" * (2 << 20),
    }  # fmt: skip
    for case, content in cases.items():
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        elif case == "fifo":
            os.mkfifo(folder / name)
        else:
            (folder / name).symlink_to(tmp_path / "other" / name)
        with pytest.raises(InputError, match="no authority to sign with"):
            add_clients(folder, ["ann"])
        assert not list(folder.glob("ann*")), case


@pytest.mark.parametrize("host", ["fe80::1%;touch x", "fe80::1%$(touch x)", "fe80::1%eth0", "a\0b", "a\nb", "$(touch x)", "`x`"])
def test_no_host_is_a_command_in_what_is_printed(tmp_path: Path, host: str) -> None:
    for scheduler, workers in ((host, []), ("here", [host])):
        with pytest.raises(UsageError, match="expected the name or the address of a host"):
            make_certificates(tmp_path / "certs", scheduler, workers)


def test_a_folder_with_an_odd_name_is_one_word_of_the_printed_commands(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s $(touch x); `y` "z"'
    make_certificates(folder, "here", [])
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "dask").write_text('#!/bin/sh\nprintf "%s\\n" "$@" >> "$SAID"\n')
    (bin_ / "dask").chmod(0o755)
    commands = [line for line in instructions(folder, "here", 8786).splitlines() if line.startswith("    dask ")]
    said = {"PATH": f"{bin_}:/usr/bin:/bin", "SAID": str(tmp_path / "said")}
    for command in commands:
        subprocess.run(["sh", "-c", command], env=said, cwd=tmp_path, check=True)
    words = (tmp_path / "said").read_text().splitlines()
    assert words.count(str(folder / "ca.pem")) == 2
    assert not (tmp_path / "x").exists()


def test_what_cannot_be_a_folder_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("n" * 300)):
        with pytest.raises(PipelineError) as found:
            make_certificates(folder, "here", [])
        assert found.value.exit_code != 70
    ended = w2v("cluster", "certs", "certs\udcff", cwd=tmp_path)
    assert ended.code in (0, 64), ended.err
