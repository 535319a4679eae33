"""A corpus, the result of a run on it on a disk, and configurations whose inputs and workdirs are in a bucket."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import yaml

from pipeline.cluster.workers import InProcess
from pipeline.config import RunConfig, Storage, parse_config
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.storage.addresses import Address
from pipeline.storage.objects import listing
from tests.cluster.disturbed import end_of, environment_with
from tests.storage.server import make_bucket, put_all
from tests.tiny import IN_THREADS, tiny_config, write_corpus

QUIET = Progress(quiet=True)


class Site:
    """A corpus, the digest of a run on it on a disk, and configurations with inputs and workdirs in a bucket."""

    def __init__(self, directory: Path, endpoint: str) -> None:
        self.directory, self.endpoint = directory, endpoint
        self.bucket = make_bucket(f"workdirs-{uuid.uuid4().hex[:8]}", Storage(endpoint=endpoint))
        self.inputs = write_corpus(directory / "corpus", sentences=2000)
        put_all(self.bucket / "corpus", {Path(path).name: Path(path).read_bytes() for path in self.inputs}, self.storage())
        self.digest = run(parse_config(self.tree("disk", place=None)), workers=InProcess(), progress=QUIET)["vectors"]["sha256"]

    def tree(self, name: str, host: str = "one", *, place: Address | None, **sections: dict[str, Any]) -> dict[str, Any]:
        """`host`: each machine keeps its own copies."""
        storage = {"endpoint": self.endpoint, "cache": str(self.directory / f"cache-{host}"), "patience_s": 20}
        settings: dict[str, Any] = {"tracking": {"enabled": False}, "cluster": IN_THREADS} | sections
        inputs = [f"{self.bucket}/corpus/"] if place else self.inputs
        tree = tiny_config(self.directory / name, inputs, **settings) | {"storage": storage}
        if place:
            tree["run"] = {**tree["run"], "workdir": str(place)}  # type: ignore[dict-item]
        return tree

    def place(self, name: str) -> Address:
        return self.bucket / "runs" / name

    def config(self, name: str, host: str = "one", **sections: dict[str, Any]) -> RunConfig:
        return parse_config(self.tree(name, host, place=self.place(name), **sections))

    def file(self, name: str, host: str = "one", **sections: dict[str, Any]) -> Path:
        path = self.directory / f"{name}-{host}.yaml"
        path.write_text(yaml.safe_dump(self.tree(name, host, place=self.place(name), **sections)))
        return path

    def storage(self) -> Storage:
        return Storage(endpoint=self.endpoint)

    def keys(self, name: str) -> list[str]:
        place = self.place(name)
        return [found.key.removeprefix(f"{place.key}/") for found in listing(place, self.storage())]


def w2v_run(config: Path, failpoint: str = "", *, command: str = "run") -> tuple[int, dict[str, Any], str]:
    """(exit code, its JSON, standard error) of `w2v run` or `w2v refresh`, which prints JSON anyway."""
    arguments = [sys.executable, "-m", "pipeline.cli", command, str(config), *(["--json"] if command == "run" else [])]
    process = subprocess.Popen(
        arguments, env=environment_with(failpoint), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    with process:
        ended = end_of(process)
    return ended.code, json.loads(ended.out) if ended.code == 0 else {}, ended.err
