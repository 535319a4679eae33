"""`cluster.kind: kubernetes`: the real KubeCluster with an API server that answers as Kubernetes and the operator would."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline.cluster.before_start import refuse_hopeless
from pipeline.cluster.opening import open_workers
from pipeline.config import Cluster, parse_config
from pipeline.errors import PipelineError, ServiceError, UsageError
from tests.cluster.disturbed import Bench
from tests.cluster.kubernetes_api import Api, kubernetes_api
from tests.infra.as_processes import serving
from tests.ports import free_port

pytestmark = pytest.mark.filterwarnings("default")  # of the packages below, about themselves
OPTIONS = {"image": "w2v", "scheduler_service_type": "LoadBalancer"}


def kubernetes(wait_s: float = 60, **options: object) -> Cluster:
    return Cluster(kind="kubernetes", n_workers=2, wait_s=wait_s, insecure=True, options=OPTIONS | options)


@pytest.mark.slow
@pytest.mark.turns(10, 10, of="deployment")
def test_a_run_on_the_cluster_that_the_operator_made_gives_the_same_bits_and_takes_it_down(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    scheduler = ["dask", "scheduler", "--host", "127.0.0.1", "--port", str(port), "--dashboard-address", "127.0.0.1:0"]
    worker = ["dask", "worker", f"tcp://127.0.0.1:{port}", "--nthreads", "1", "--dashboard-address", "127.0.0.1:0"]
    api = Api(("127.0.0.1", port))
    config = bench.config_file("operator", before="shards", cluster=kubernetes().model_dump(exclude_defaults=True))
    with kubernetes_api(api, tmp_path) as kubeconfig, serving(scheduler, worker, worker, folder=tmp_path):
        monkeypatch.setenv("KUBECONFIG", kubeconfig)
        bench.assert_same(config)
    (made,) = api.made
    assert made["spec"]["worker"]["replicas"] == 2
    assert {pod["image"] for part in ("scheduler", "worker") for pod in made["spec"][part]["spec"]["containers"]} == {"w2v"}
    assert made["spec"]["idleTimeout"] == 3600, "what a driver that was killed leaves is removed"
    assert api.clusters == {}, "it is taken down"


@pytest.mark.slow
@pytest.mark.parametrize(("acts", "silent"), [(False, False), (True, True)], ids=["no operator", "an API that does not answer"])
@pytest.mark.turns(3, 2, of="deployment")
def test_a_cluster_that_does_not_come_up_is_reported_within_the_deadline(
    acts: bool, silent: bool, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = kubernetes(wait_s=5).model_dump(exclude_defaults=True)
    config = bench.config_file(f"deadline-{acts}", before="shards", cluster=section)
    with kubernetes_api(Api(("127.0.0.1", 9), acts=acts, silent=silent), tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", kubeconfig)
        began = time.monotonic()
        ended = bench.finish(config)
    assert time.monotonic() - began < 50, "the operator's own deadline is a minute"
    assert ended.code == 69, ended.err
    assert "cluster.kind: kubernetes: TimeoutError: " in ended.err
    assert "check that `kubectl get daskclusters` works (KUBECONFIG), that the Dask operator runs" in ended.err


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"imagee": "w2v"}, UsageError, r"cluster\.options\.imagee: KubeCluster does not take it; did you mean image\?"),
        ({"create_mode": "SOMETIMES"}, UsageError, r"create_mode: expected CREATE_ONLY, CREATE_OR_CONNECT, CONNECT_ONLY, found"),
        ({"resources": {"limit": {}}}, ServiceError, r"kubernetes does not take these \(resources has unknown field 'limit'\)"),
    ],
    ids=["a misspelt key", "a mode that there is not", "a value that it does not take"],
)
def test_options_that_cannot_be_used_are_named_before_anything_is_requested(
    options: dict[str, object], kind: type[PipelineError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message), open_workers(kubernetes(**options), shared=tmp_path):
        pass


def test_a_misspelt_option_is_named_before_the_first_stage() -> None:
    config = parse_config({"corpus": {"inputs": ["x"]}, "cluster": kubernetes(n_worker=3).model_dump()})
    with pytest.raises(UsageError, match=r"cluster\.options\.n_worker: .*did you mean n_workers\?"):
        refuse_hopeless(config, trains=True)


def test_a_cluster_needs_an_image_with_this_program() -> None:
    with pytest.raises(ValueError, match=r"kind: kubernetes needs cluster\.options: \{image: …\}"):
        Cluster(kind="kubernetes")


def test_plain_connections_are_refused_unless_they_are_asked_for() -> None:
    with pytest.raises(
        ValueError, match=r"carry no TLS, so anyone who can reach its pods can run code there; .* cluster\.insecure: true"
    ):
        Cluster(kind="kubernetes", options=OPTIONS)
    with pytest.raises(ValueError, match=r"insecure is not read: cluster\.kind is slurm"):
        Cluster(kind="slurm", n_workers=1, insecure=True)
