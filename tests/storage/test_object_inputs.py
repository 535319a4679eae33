"""A corpus in a bucket equals the same files on a disk: the same names are read, and the results have the same bits."""

from __future__ import annotations

import bz2
import gzip
import io
import random
import tarfile
import time
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import store
from pipeline.cluster.workers import InProcess
from pipeline.config import Corpus, RunConfig, Storage, parse_config
from pipeline.errors import DataError, InputError, PipelineError
from pipeline.planning.sample import take_sample
from pipeline.stages import tokenize
from pipeline.stages.work import Work
from pipeline.storage.addresses import Address
from pipeline.storage.objects import put_object, remove_object
from pipeline.stream.sampling import KeptStreams
from pipeline.text.corpus import plan_corpus
from tests.storage.server import Front, put_all

LINES = [f"line {number} holds word{number % 97} and word{number * 7 % 53} and grüße" for number in range(4000)]
TEXT = "\n".join(LINES).encode() + b"\n"


def tar_of(text: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for number, third in enumerate((text[:100_000], text[100_000:])):
            member = tarfile.TarInfo(f"in/{number}.txt")
            member.size = len(third)
            archive.addfile(member, io.BytesIO(third))
    return file.getvalue()


def zip_of(text: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/one.txt", text[:100_000])
        archive.writestr("two.txt", text[100_000:])
    return file.getvalue()


def table_of(lines: list[str], format: str) -> bytes:
    table, file = pa.table({"text": lines}), io.BytesIO()
    if format == "parquet":
        pq.write_table(table, file, row_group_size=500)
    else:
        with pa.ipc.new_file(pa.PythonFile(file, "w"), table.schema) as writer:
            writer.write_table(table, max_chunksize=700)
    return file.getvalue()


def config_of(inputs: list[str], storage: Storage, **corpus: object) -> RunConfig:
    tree = {"corpus": {"inputs": inputs, "block_bytes": 50_000} | corpus, "storage": storage.model_dump()}
    return parse_config(tree)


def tokens_of(config: RunConfig, workdir: Path) -> store.Manifest:
    plan = plan_corpus(config.corpus, config.storage)
    return tokenize.build(Work(config, workdir, InProcess(2)), plan).manifest


CORPORA: dict[str, tuple[str, dict[str, bytes]]] = {
    "lines": ("lines", {"plain.txt": TEXT, "small.txt": b"a few words\n", "empty.txt": b"", "packed.txt.gz": gzip.compress(TEXT),
                        "double.bz2": bz2.compress(TEXT[:9000]) + bz2.compress(TEXT[9000:]), "all.tar.gz": tar_of(TEXT),
                        "all.zip": zip_of(TEXT)}),
    "jsonl": ("jsonl", {"a.jsonl": b"".join(b'{"text": "%s"}\n' % line.encode() for line in LINES)}),
    "parquet": ("parquet", {"a.parquet": table_of(LINES, "parquet")}),
    "arrow": ("arrow", {"a.arrow": table_of(LINES, "arrow")}),
}  # fmt: skip


@pytest.mark.parametrize("name", CORPORA)
def test_every_format_gives_the_tokens_that_it_gives_on_a_disk(
    name: str, tmp_path: Path, bucket: Address, storage: Storage
) -> None:
    format, files = CORPORA[name]
    put_all(bucket / "texts", files, storage)
    (tmp_path / "texts").mkdir()
    for file, data in files.items():
        (tmp_path / "texts" / file).write_bytes(data)
    there = tokens_of(config_of([f"{bucket}/texts/"], storage, format=format), tmp_path / "there")
    here = tokens_of(config_of([str(tmp_path / "texts")], storage, format=format), tmp_path / "here")
    assert there.parts == here.parts
    assert there.fingerprint == here.fingerprint
    assert {key: there.totals[key] for key in ("tokens", "sentences")} == {
        key: here.totals[key] for key in ("tokens", "sentences")
    }


@pytest.mark.turns(3, 1.5, of="buckets")
def test_the_pages_of_a_parquet_file_are_looked_at_many_at_a_request(tmp_path: Path, front: Front, bucket: Address) -> None:
    rows = random.Random(1)
    words = [" ".join("".join(rows.choices("abcdefghij", k=8)) for _ in range(50)) for _ in range(9_000)]
    file = io.BytesIO()
    pq.write_table(
        pa.table({"text": words}), file, compression="none", use_dictionary=False, data_page_size=1 << 17, write_batch_size=50
    )
    pages = len(file.getvalue()) // (1 << 17)
    assert pages > 25
    storage = Storage(endpoint=front.address, patience_s=20)
    put_object(bucket / "a.parquet", file.getvalue(), storage)
    front.seen.clear()
    tokens_of(config_of([f"{bucket}/a.parquet"], storage, format="parquet", block_bytes=100_000_000), tmp_path)
    ranges = [seen for seen in front.seen if seen[0] == "GET" and seen[2]]
    assert len(ranges) < pages, f"{len(ranges)} requests for {pages} pages: {ranges}"


TREE = (
    "a.txt", "b.log", ".hidden.txt", "_SUCCESS", "x.txt~", "README.md", "deep/c.txt", "deep/er/d.txt", "_logs/e.txt",
    "deep/.git/f.txt", "deep/part-00000", "odd [1] ü*.txt",
)  # fmt: skip
PATTERNS = (
    "",
    "*",
    "*.txt",
    "**",
    "**/*.txt",
    "deep",
    "deep/*",
    "*/*.txt",
    "d*",
    "?.txt",
    "a.txt",
    "odd [1] ü*.txt",
    "[ab].*",
    "**/er",
)


COUNTED = ("", "*", "*.txt", "deep", "deep/*", "?.txt", "a.txt")
"""Patterns for which a disk and a bucket leave out equally many files: on a disk, `**` meets some names twice."""


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("chosen", [{}, {"exclude": ["*.log"]}, {"include": ["*.txt", ".hidden.txt"]}], ids=str)
def test_a_pattern_names_what_it_names_on_a_disk(
    pattern: str, chosen: dict[str, list[str]], tree: tuple[Path, Address], storage: Storage
) -> None:
    folder, place = tree

    def names(base: object) -> tuple[list[str], int] | str:
        corpus = Corpus(inputs=[f"{base}/{pattern}".rstrip("/")], sniff=False, **chosen)
        try:
            plan = plan_corpus(corpus, storage)
        except InputError:
            return "nothing"
        left_out = sum(int(note.split()[0].replace(",", "")) for note in plan.notes if "left out" in note)
        return [file.path.removeprefix(str(base)) for file in plan.files], left_out

    there, here = names(place), names(folder)
    assert there[0] == here[0]
    if pattern in COUNTED:
        assert there[1] == here[1]


@pytest.fixture(scope="module")
def tree(server: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Address]:
    """The same files in a folder and in a bucket."""
    from tests.storage.server import ENVIRONMENT, make_bucket

    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        storage, folder = Storage(endpoint=server), tmp_path_factory.mktemp("tree")
        place = make_bucket("tree-of-names", storage) / "texts"
        for number, name in enumerate(TREE):
            data = f"some words of file {number}\n".encode()
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
            put_object(place / name, data, storage)
    return folder, place


def test_an_object_is_hashed_once_and_then_believed_by_its_etag(
    tmp_path: Path, front: Front, bucket: Address, storage: Storage
) -> None:
    put_object(bucket / "a.txt", TEXT, storage)
    corpus, through = Corpus(inputs=[f"{bucket}/a.txt"]), storage.model_copy(update={"endpoint": front.address})
    first = plan_corpus(corpus, through, known=tmp_path / "known.json")
    assert front.bytes_asked_for() >= len(TEXT)
    front.seen.clear()
    assert plan_corpus(corpus, through, known=tmp_path / "known.json") == first
    assert front.bytes_asked_for() <= 1 << 18, "a look at its first bytes"
    put_object(bucket / "a.txt", TEXT[:-4] + b"new\n", storage)
    assert plan_corpus(corpus, through, known=tmp_path / "known.json").files[0].sha256 != first.files[0].sha256


def test_a_part_of_a_large_object_is_read_in_ranges(tmp_path: Path, front: Front, bucket: Address, storage: Storage) -> None:
    text = TEXT * 24
    put_object(bucket / "large.txt", text, storage)
    config = config_of([f"{bucket}/large.txt"], storage.model_copy(update={"endpoint": front.address}), block_bytes=1 << 20)
    plan = plan_corpus(config.corpus, config.storage)
    tasks = tokenize.plan_tasks(config, plan, tmp_path, {})
    assert len(tasks) > 2
    front.seen.clear()
    tokenize.tokenize_part(tasks[1], KeptStreams())
    assert all(text for method, _, text in front.seen if method == "GET")
    assert front.bytes_asked_for() < 2.5 * (1 << 20) < len(text)


def test_an_object_that_changes_between_plan_and_reading_stops_the_run(tmp_path: Path, bucket: Address, storage: Storage) -> None:
    put_object(bucket / "a.txt", TEXT, storage)
    config = config_of([f"{bucket}/a.txt"], storage)
    plan = plan_corpus(config.corpus, config.storage)
    put_object(bucket / "a.txt", TEXT[:-4] + b"new\n", storage)
    with pytest.raises(DataError, match=rf"{bucket}/a.txt: changed since the run was planned"):
        tokenize.build(Work(config, tmp_path, InProcess()), plan)
    remove_object(bucket / "a.txt", storage)
    with pytest.raises(InputError, match=rf"{bucket}/a.txt: it was there when the run was planned and is gone"):
        tokenize.build(Work(config, tmp_path, InProcess()), plan)


def test_an_object_that_was_put_again_unchanged_is_still_what_was_planned(
    tmp_path: Path, bucket: Address, storage: Storage
) -> None:
    put_object(bucket / "a.txt", TEXT, storage)
    config = config_of([f"{bucket}/a.txt"], storage)
    plan = plan_corpus(config.corpus, config.storage)
    time.sleep(1)  # S3 tells the time in seconds
    put_object(bucket / "a.txt", TEXT, storage)
    assert tokenize.build(Work(config, tmp_path, InProcess()), plan).manifest.totals["sentences"] == len(LINES)


def test_an_object_that_changes_while_it_is_hashed_is_named(front: Front, bucket: Address, storage: Storage) -> None:
    put_object(bucket / "a.txt", TEXT, storage)
    changed = []

    def change(method: str, path: str) -> None:
        if method == "GET" and path.endswith("a.txt") and not changed:
            changed.append(path)
            put_object(bucket / "a.txt", TEXT[:-4] + b"new\n", storage)

    front.answer = change  # type: ignore[assignment]
    with pytest.raises(DataError, match=rf"{bucket}/a.txt: changed while it was being hashed"):
        plan_corpus(Corpus(inputs=[f"{bucket}/a.txt"]), storage.model_copy(update={"endpoint": front.address}))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("no/such/key.txt", "no object matches"),
        ("no/*.txt", "no object matches"),
        ("empty/", "no object matches"),
    ],
)
def test_an_input_that_names_nothing_is_an_error(pattern: str, message: str, bucket: Address, storage: Storage) -> None:
    put_object(bucket / "a.txt", TEXT, storage)
    with pytest.raises(InputError, match=message) as found:
        plan_corpus(Corpus(inputs=[f"{bucket}/{pattern}"]), storage)
    assert f"{bucket}/{pattern}" in str(found.value)


def test_an_input_named_twice_counts_once(bucket: Address, storage: Storage) -> None:
    put_object(bucket / "a.txt", TEXT, storage)
    plan = plan_corpus(Corpus(inputs=[f"{bucket}/a.txt", str(bucket)]), storage)
    assert [file.path for file in plan.files] == [f"{bucket}/a.txt"]
    assert "1 object was named by two inputs and is counted once" in " ".join(plan.notes)


def test_addresses_that_are_not_in_a_bucket_are_refused_by_name(storage: Storage) -> None:
    for address in ("hdfs://name/a", "https://host/a.txt", "s3a://bucket/a"):
        with pytest.raises(PipelineError, match=r"corpus.inputs: ") as found:
            plan_corpus(Corpus(inputs=[address]), storage)
        assert found.value.exit_code == 78


def test_a_plan_takes_the_same_sample_from_a_bucket_as_from_a_disk(bucket: Address, storage: Storage, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("in", "here", "there")]
    for folder in folders:
        folder.mkdir()
    files = {"a.txt": TEXT, "b.txt.gz": gzip.compress(TEXT)}
    for name, data in files.items():
        (folders[0] / name).write_bytes(data)
    put_all(bucket, files, storage)
    here = take_sample(Corpus(inputs=[str(folders[0])]), folders[1], tmp_path / "none", 1 << 15)
    there = take_sample(Corpus(inputs=[str(bucket)]), folders[2], tmp_path / "none", 1 << 15, storage)
    assert (there.stored_bytes, there.corpus_bytes, there.files) == (here.stored_bytes, here.corpus_bytes, 2)
    assert [path.read_bytes() for path in sorted(folders[2].iterdir())] == [
        path.read_bytes() for path in sorted(folders[1].iterdir())
    ]
