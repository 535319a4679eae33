"""Workers on other machines share nothing with the driver but the bucket: each has its own copy under the same path."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.storage.addresses import Address
from pipeline.storage.copies import MARKER, begin, join
from tests.cluster.disturbed import environment_with
from tests.cluster.tls_cluster import TlsCluster
from tests.sampling import ALL, SEED
from tests.storage.site import Site, w2v_run

FAILPOINTS = ["", "put:part-00002.arrow", "was put:w_in-00000.npy"]
OWN_FOLDER = 'mount -t tmpfs tmpfs "$0" && exec "$@"'


def own_folder(folder: Path) -> tuple[str, ...]:
    """The beginning of a command that sees an empty folder in place of this one; skips the test if that is forbidden."""
    through = ("unshare", "--mount", "sh", "-c", OWN_FOLDER, str(folder))
    tried = subprocess.run([*through, "true"], capture_output=True, text=True, env=environment_with())
    if tried.returncode:
        pytest.skip(f"no mount namespaces here: {tried.stderr.strip()}")
    return through


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[TlsCluster]:
    found = TlsCluster(tmp_path)
    yield found
    found.stop()


@pytest.mark.parametrize("failpoint", FAILPOINTS if ALL else random.Random(SEED).sample(FAILPOINTS, 1))
@pytest.mark.turns(10, 16, of="hosts")
def test_workers_that_share_no_folder_give_the_bits_of_a_disk(
    failpoint: str, site: Site, cluster: TlsCluster, tmp_path: Path
) -> None:  # fmt: skip
    print(f"sampled with W2V_SEED={SEED}")
    name = f"far-{len(failpoint)}"
    (folder := site.directory / f"cache-{name}").mkdir()
    through = own_folder(folder)
    point = f"{failpoint}=kill,{tmp_path / 'token'}" if failpoint else ""
    for host in ("alpha", "beta"):
        cluster.start_worker(host, point, through=through)
    cluster.wait_for_workers(2)
    config = site.file(name, host=name, cluster=cluster.section | {"options": {}, "n_workers": None})
    code, summary, err = w2v_run(config)
    assert code == 0, err
    assert (tmp_path / "token").exists() == bool(failpoint)
    assert summary["vectors"]["sha256"] == site.digest
    copy = next((folder / "w2v-buckets").glob("*"))
    assert (copy / "vectors").is_dir()
    assert not list(copy.glob("shards/*/*.arrow")), "the driver has no need of what only workers read"


def test_a_machine_that_cannot_work_on_the_bucket_says_why(site: Site, bucket: Address, tmp_path: Path) -> None:
    storage = site.storage().model_copy(update={"cache": str(tmp_path), "patience_s": 0.5})
    copy = begin(bucket / "run", storage)
    with copy.sign(".seen-by-test") as (root, marker, sign):
        assert join(root, marker, sign) is None
        assert "does not see what the driver put" in str(join(root, marker, ".seen-by-another"))
        assert "set storage.cache" in str(join("/elsewhere", marker, sign))
    silent = begin(bucket / "run", storage.model_copy(update={"endpoint": "http://127.0.0.1:9"}))
    assert "gave no usable answer" in str(join(str(silent.root), (silent.root / MARKER).read_bytes(), ".seen-by-test"))
