from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from pipeline.cluster.workers import InProcess
from pipeline.options.storage import Storage
from pipeline.run import run
from pipeline.storage.addresses import Address
from tests.storage.server import ENVIRONMENT, Front, make_bucket, s3_server
from tests.storage.site import QUIET, Site


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def front(server: str) -> Iterator[Front]:
    found = Front(server)
    yield found
    found.close()


@pytest.fixture
def storage(server: str) -> Storage:
    return Storage(endpoint=server, patience_s=20)


@pytest.fixture
def bucket(storage: Storage) -> Address:
    return make_bucket(f"bucket-{uuid.uuid4().hex[:12]}", storage)


@pytest.fixture(scope="session")
def site(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield Site(tmp_path_factory.mktemp("site"), server)


@pytest.fixture(scope="session")
def finished(site: Site) -> Site:
    summary = run(site.config("finished"), workers=InProcess(), progress=QUIET)
    assert summary["vectors"]["sha256"] == site.digest
    return site
