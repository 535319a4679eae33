"""Only regular files are read, up to a bound; what cannot be known in advance comes to an end."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pipeline import store
from pipeline.cluster.workers import InProcess
from pipeline.config import load_config
from pipeline.errors import ConfigError, InputError
from pipeline.progress import Progress
from pipeline.run import run
from tests.sampling import sample
from tests.security.conftest import w2v
from w2v_core.vectors import WordVectors
from w2v_core.vectors.questions import read_analogies, read_similarity


def test_an_evaluation_set_that_is_a_fifo_or_a_device_is_refused_at_once(config: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pairs.tsv")
    loaded = load_config(config, [f"evaluate.similarity=[{tmp_path / 'pairs.tsv'}]", "train.epochs=1"])
    with pytest.raises(InputError, match=r"cannot read .*not a regular file but a FIFO"):
        run(loaded, workers=InProcess(), progress=Progress(quiet=True))
    with pytest.raises(OSError, match="not a regular file but a device"):
        store.file_sha256(Path("/dev/zero"))


def test_a_hundred_thousand_epochs_start_and_more_are_refused(config: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.epochs: expected at most 100000"):
        load_config(config, ["train.epochs=10000000"])
    begun = time.monotonic()

    class Enough(Exception):
        pass

    class Watching(Progress):
        def line(self, text: str) -> None:
            if "round 1" in text:
                raise Enough

    with pytest.raises(Enough):
        run(load_config(config, ["train.epochs=100000"]), workers=InProcess(), progress=Watching(quiet=False))
    assert time.monotonic() - begun < 60


def test_checkpoints_so_close_that_training_does_nothing_else_are_refused(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.checkpoint_every: expected at least 1000"):
        load_config(config, ["train.checkpoint_every=1"])


@pytest.mark.parametrize(
    "text",
    sample(["raise RuntimeError('boo')", "import sys; sys.exit(3)", "1 +", "def f(): raise RuntimeError('boo')", "f = 3"], 2),
)
@pytest.mark.turns(2, 1, of="bytes of others")
def test_a_tokenizer_that_cannot_be_had_is_an_error_of_its_key(config: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "bad_plugin.py").write_text(text)
    ended = w2v("run", config, "tokenize.tokenizer=bad_plugin:f", cwd=tmp_path, PYTHONPATH=str(tmp_path / "plugins"))
    assert ended.code == 78, ended.err
    assert "tokenize.tokenizer: bad_plugin:f" in ended.err


@pytest.mark.parametrize(
    "url", sample(["http://[", "http://", "http://a\x01b/", "http://h:99999/", "https://h:x/", "x", "file:///etc/passwd"], 3)
)
def test_a_malformed_address_is_an_error_of_the_command_line(url: str, tmp_path: Path) -> None:
    ended = w2v("fetch", "ptb", tmp_path / "data", "--url", url, cwd=tmp_path)
    assert ended.code == 64, ended.err
    assert "expected an address of http:// or https://" in ended.err


def test_vectors_and_questions_that_are_fifos_are_refused_at_once(tmp_path: Path) -> None:
    for name in ("v.txt", "v.bin", "v.safetensors", "v.parquet", "pairs.tsv", "questions.txt"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / "meta.json")
    for name in ("v.txt", "v.bin", "v.safetensors", "v.parquet", "folder"):
        with pytest.raises(ValueError, match="not a regular file"):
            WordVectors.load(tmp_path / name)
    with pytest.raises(ValueError, match="not a regular file"):
        read_similarity(tmp_path / "pairs.tsv")
    with pytest.raises(ValueError, match="not a regular file"):
        read_analogies(tmp_path / "questions.txt")
