"""Vectors put into a bucket for others: complete exports under separate names, and one object that says which is current."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from pipeline.cluster.workers import InProcess
from pipeline.commands.listed import commands
from pipeline.config import Storage, load_config, parse_config
from pipeline.errors import ConfigError, DamagedError, InputError
from pipeline.history.latest import champion_of
from pipeline.library.model import load
from pipeline.progress import Progress
from pipeline.refresh.refresh import refresh
from pipeline.refresh.rollback import rollback
from pipeline.run import run
from pipeline.storage.addresses import Address
from pipeline.storage.objects import listing, put_object, read_object, remove_object
from tests.cluster.disturbed import end_of, environment_with
from tests.storage.server import make_bucket
from tests.storage.site import Site
from tests.tiny import IN_THREADS, tiny_config, write_corpus
from w2v_core.vectors import WordVectors

QUIET = Progress(quiet=True)


@pytest.fixture
def config(tmp_path: Path, storage: Storage) -> Path:
    """A configuration in a folder, and a bucket for its exports."""
    bucket = make_bucket(f"published-{uuid.uuid4().hex[:8]}", storage)
    inputs = write_corpus(tmp_path / "corpus", sentences=600)
    sections: dict[str, Any] = {
        "tracking": {"enabled": False}, "cluster": IN_THREADS, "train": {"epochs": 1, "lanes": 1},
        "storage": {"endpoint": storage.endpoint, "patience_s": 10},
        "publish": {"to": f"{bucket}/vectors/en", "formats": ["word2vec-bin", "word2vec-text"]},
    }  # fmt: skip
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tiny_config(tmp_path / "work", inputs, **sections)))
    return path


def place_of(config: Path) -> Address:
    from pipeline.storage.addresses import parse_address

    return parse_address(str(load_config(config).publish.to), "test")


def latest(place: Address, storage: Storage) -> dict[str, bytes]:
    """What a reader gets: the files that latest.json lists, compared with its description."""
    body = json.loads(read_object(place / "latest.json", storage))
    files = {name: read_object(place / body["folder"] / name, storage) for name in body["files"]}
    assert {name: hashlib.sha256(data).hexdigest() for name, data in files.items()} == {
        name: facts["sha256"] for name, facts in body["files"].items()
    }
    return files


def test_a_run_sends_its_exports_and_a_rollback_the_ones_before(config: Path, storage: Storage) -> None:
    place = place_of(config)
    first = run(load_config(config), workers=InProcess(), progress=QUIET)
    exported = {Path(path).name: Path(path).read_bytes() for paths in first["exports"].values() for path in paths}
    assert latest(place, storage) == exported
    run(load_config(config, ["train.alpha=0.04"]), workers=InProcess(), progress=QUIET)
    assert latest(place, storage) != exported
    rollback(load_config(config), None)
    assert latest(place, storage) == exported
    assert len({found.key.split("/")[2] for found in listing(place, storage)}) == 3, "two exports and latest.json"


def test_the_champion_that_takes_the_place_of_a_damaged_one_is_sent_too(config: Path, storage: Storage, tmp_path: Path) -> None:
    kept = load_config(config, ["refresh.gates.drift=0"])  # keeps what follows out
    first = run(kept, workers=InProcess(), progress=QUIET)
    exported = {Path(path).name: Path(path).read_bytes() for paths in first["exports"].values() for path in paths}
    run(load_config(config, ["train.alpha=0.04"]), workers=InProcess(), progress=QUIET)
    champion = champion_of(kept.workdir)
    assert champion is not None
    (champion.directory / "summary.json").write_text("{}")
    told = refresh(kept, workers=InProcess(), progress=QUIET)
    assert told["status"] == "kept"
    assert latest(place_of(config), storage) == exported


def test_where_vectors_are_sent_decides_no_result(config: Path) -> None:
    tree = yaml.safe_load(config.read_text())
    del tree["publish"]["to"]
    assert parse_config(tree).digest == parse_config(yaml.safe_load(config.read_text())).digest


@pytest.mark.turns(5, 5, of="buckets")
def test_a_kill_while_exports_are_sent_leaves_the_ones_before_whole(config: Path, storage: Storage, tmp_path: Path) -> None:
    place = place_of(config)
    run(load_config(config), workers=InProcess(), progress=QUIET)
    before = latest(place, storage)
    for point in ("send:vectors.txt", "send:latest.json"):
        command = [sys.executable, "-m", "pipeline.cli", "run", str(config), "train.alpha=0.04", "--quiet"]
        environment = environment_with(f"{point}=kill,{tmp_path / point}")
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            assert end_of(process).code == -signal.SIGKILL
        assert latest(place, storage) == before
    run(load_config(config, ["train.alpha=0.04"]), workers=InProcess(), progress=QUIET)
    assert latest(place, storage) != before


def test_export_to_a_bucket_prints_where_the_files_are(config: Path, storage: Storage, bucket: Address, tmp_path: Path) -> None:
    run(load_config(config, ["publish.to=null"]), workers=InProcess(), progress=QUIET)
    command = ["export", str(config), f"{bucket}/deep/place", "-f", "word2vec-text", "-f", "parquet"]
    told = CliRunner().invoke(commands, command)
    assert told.exit_code == 0, told.output
    addresses = told.stdout.split()
    assert [address.rpartition("/")[2] for address in addresses] == ["vectors.txt", "vectors.parquet"]
    assert all(address.startswith(f"{bucket}/deep/place/") for address in addresses)
    assert set(latest(bucket / "deep/place", storage)) == {"vectors.txt", "vectors.parquet"}
    assert CliRunner().invoke(commands, command).stdout == told.stdout, "the same export has the same name"
    assert not list(Path.cwd().glob("s3:*"))


def test_what_was_sent_is_read_by_its_address(
    config: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # fmt: skip
    place = place_of(config)
    summary = run(load_config(config), workers=InProcess(), progress=QUIET)
    own = WordVectors.load(summary["vectors"]["path"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", str(storage.endpoint))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = json.loads(read_object(place / "latest.json", storage))["folder"]
    for address in (place, place / "vectors.txt", place / folder / "vectors.bin"):
        found = load(str(address))
        assert found.wv.index_to_key == own.index_to_key
        assert np.allclose(found.wv.vectors, own.vectors, atol=1e-5)
    told = CliRunner().invoke(commands, ["query", "similar", str(place), own.index_to_key[5]])
    assert told.exit_code == 0, told.output
    put_object(
        place / folder / "vectors.txt", read_object(place / folder / "vectors.txt", storage).replace(b"0", b"1", 1), storage
    )
    with pytest.raises(DamagedError, match=r"vectors.txt: its content changed"):
        load(f"{place}/vectors.txt")
    with pytest.raises(InputError, match=r"no vectors here; give a file, or a place that w2v export"):
        load(f"{place}/nothing")


def test_a_workdir_in_a_bucket_is_read_by_its_address(
    finished: Site, storage: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # fmt: skip
    monkeypatch.setenv("AWS_ENDPOINT_URL", str(storage.endpoint))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = load(str(finished.place("finished")))
    assert len(found.predict_output_word(["topic1word1", "topic1word2"])) > 0, "with what training left beside the vectors"


def test_a_bucket_that_is_missing_is_an_error_of_the_export(config: Path) -> None:
    with pytest.raises(InputError, match=r"there is no bucket no-such-bucket"):
        run(load_config(config, ["publish.to=s3://no-such-bucket/x"]), workers=InProcess(), progress=QUIET)
    with pytest.raises(ConfigError, match=r"publish.to: expected a place in a bucket: s3://"):
        load_config(config, ["publish.to=somewhere"])


def test_an_export_that_lost_a_file_is_sent_again(config: Path, storage: Storage) -> None:
    place = place_of(config)
    run(load_config(config), workers=InProcess(), progress=QUIET)
    files = latest(place, storage)
    key = next(found.key for found in listing(place, storage) if found.key.endswith("vectors.txt"))
    remove_object(place.at(key), storage)
    run(load_config(config), workers=InProcess(), progress=QUIET)
    assert latest(place, storage) == files
