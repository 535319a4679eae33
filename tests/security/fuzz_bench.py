"""What `make fuzz` damages: a workdir, a refreshed workdir, files of vectors, configurations, a corpus in every format."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline import store
from pipeline.cluster.workers import InProcess
from pipeline.config import RunConfig, load_config, parse_config
from pipeline.formats.exports import FORMATS, export_vectors
from pipeline.progress import Progress
from pipeline.refresh.refresh import refresh
from pipeline.run import run
from tests.tiny import tiny_config, write_corpus
from w2v_core.vectors import WordVectors

ROOT = Path(__file__).parents[2]
UNTRACKED: dict[str, object] = {"enabled": False}


@dataclass
class Bench:
    """The files to be damaged, made once in a folder; every case gets a copy of the part it needs."""

    folder: Path
    workdir: Path
    refreshed: Path
    """A workdir with two snapshots, one decision by a run and one by a refresh."""
    configs: list[bytes] = field(default_factory=list)
    vectors: dict[str, bytes] = field(default_factory=dict)
    corpora: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """{file name: (corpus.format, bytes)}."""


def make_bench(folder: Path) -> Bench:
    inputs = write_corpus(folder / "corpus", 200)
    bench = Bench(folder, folder / "work", folder / "refreshed")
    tree = tiny_config(bench.workdir, inputs, tracking=UNTRACKED)
    tree["train"] = {"lanes": 1, "epochs": 1, "vector_size": 4}
    (folder / "c.yaml").write_text(yaml.safe_dump(tree))
    run(parse_config(tree), workers=InProcess(), progress=Progress(quiet=True))
    _make_refreshed(bench, inputs)
    bench.configs = [path.read_bytes() for path in sorted((ROOT / "configs").glob("*.yaml"))]
    vectors = WordVectors(("the", "of", "naïve", "왕"), np.arange(16, dtype=np.float32).reshape(4, 4) / 7, np.arange(4, 0, -1))
    for paths in export_vectors(vectors, list(FORMATS), folder / "exports").values():
        bench.vectors |= {path.name: path.read_bytes() for path in paths}
    bench.corpora = dict(_corpora())
    return bench


def _make_refreshed(bench: Bench, inputs: list[str]) -> None:
    shutil.copytree(bench.workdir, bench.refreshed, symlinks=True)
    (bench.folder / "new.txt").write_text("a new sentence of words that are new\n" * 20)
    config = load_config(bench.folder / "c.yaml")
    corpus = config.corpus.model_copy(update={"inputs": [*inputs, str(bench.folder / "new.txt")]})
    refresh(at(bench, bench.refreshed).model_copy(update={"corpus": corpus}), workers=InProcess(), progress=Progress(quiet=True))


def _corpora() -> Iterator[tuple[str, tuple[str, bytes]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [f"word{index % 7} naïve word{index % 5} 왕 emoji 🙂 end" for index in range(60)]
    lines = "\n".join(texts).encode()
    rows = "\n".join(json.dumps({"text": text, "id": index}) for index, text in enumerate(texts)).encode()
    table = pa.table({"text": texts, "id": list(range(60))})
    parquet, arrow = io.BytesIO(), io.BytesIO()
    pq.write_table(table, parquet, row_group_size=20)
    with pa.ipc.new_file(arrow, table.schema) as writer:
        writer.write_table(table)
    yield from {
        "a.txt": ("lines", lines), "a.txt.gz": ("lines", gzip.compress(lines, mtime=0)),
        "a.txt.bz2": ("lines", bz2.compress(lines)),
        "a.txt.xz": ("lines", lzma.compress(lines)), "a.txt.zst": ("lines", pa.compress(lines, "zstd", asbytes=True)),
        "a.jsonl": ("jsonl", rows), "a.jsonl.gz": ("jsonl", gzip.compress(rows, mtime=0)),
        "a.csv": ("csv", b"id,text\n" + "\n".join(f'{i},"{t}"' for i, t in enumerate(texts)).encode()),
        "a.tsv": ("tsv", b"id\ttext\n" + "\n".join(f"{i}\t{t}" for i, t in enumerate(texts)).encode()),
        "a.parquet": ("parquet", parquet.getvalue()), "a.arrow": ("arrow", arrow.getvalue()),
    }.items()  # fmt: skip


def at(bench: Bench, workdir: Path) -> RunConfig:
    """The bench's configuration with another workdir."""
    config = load_config(bench.folder / "c.yaml")
    return config.model_copy(update={"run": config.run.model_copy(update={"workdir": str(workdir)})})


def as_written(body: Any) -> bytes:
    """A sealed body as `store.write_json` writes it."""
    sealed = store.sealed(body) if isinstance(body, dict) else body
    return (json.dumps(sealed, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode(errors="surrogatepass")
