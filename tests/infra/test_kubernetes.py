"""The manifests: they match the published schemas, expose nothing by default, and their containers' commands train.

Nothing is sent to a cluster. `dask_kubernetes` contains the schemas of DaskCluster and DaskJob, `kubernetes_validate` the others.
"""

from __future__ import annotations

import importlib.resources
import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from pipeline.config import parse_config
from tests.cluster.disturbed import Bench
from tests.debian import program
from tests.infra.as_processes import localized, run_to_end, serving, wait_for_scheduler
from tests.ports import free_port
from tests.sampling import ALL

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra" / "kubernetes"
VERSION = "1.34"
KINDS = {"DaskCluster": "daskcluster", "DaskJob": "daskjob"}


def documents(*paths: Path) -> list[dict[str, Any]]:
    return [found for path in paths for found in yaml.safe_load_all(path.read_text()) if found]


def manifests() -> list[dict[str, Any]]:
    """Every manifest as written; patches and lists of files are for kustomize."""
    paths = [
        path for path in FOLDER.rglob("*.yaml") if path.name not in ("kustomization.yaml", "news.yaml", "refresh-patch.yaml")
    ]
    return documents(*sorted(paths), ROOT / "infra" / "refresh" / "cronjob.yaml")


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = [one for one in manifests() if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def rendered(folder: Path) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send."""
    kubectl = program("kubectl", "kubernetes-client")
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, timeout=60)
    # Of Debian 12: it does not know fields that the files spell right. Any other unknown field is a fault of the files.
    if re.search(r'unknown field "(options|patches)"', done.stderr):
        pytest.skip(f"this kubectl's kustomize is too old: {done.stderr.strip()[:200]}")
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


@cache
def schema(kind: str) -> dict[str, Any]:
    """Of one of the operator's kinds; what it does not name is refused, as `kubectl` does by its own validation."""
    crds = importlib.resources.files("dask_kubernetes") / "operator" / "deployment" / "helm" / "dask-kubernetes-operator" / "crds"
    definition = yaml.load((crds / f"{KINDS[kind]}.yaml").read_text(), Loader=yaml.CSafeLoader)
    found: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    strict(found)
    found["properties"] |= {
        "apiVersion": {"const": "kubernetes.dask.org/v1"},
        "kind": {"const": kind},
        "metadata": {"type": "object"},
    }
    return found


def strict(schema: Any) -> None:
    if isinstance(schema, dict):
        if (
            "properties" in schema
            and "additionalProperties" not in schema
            and not schema.get("x-kubernetes-preserve-unknown-fields")
        ):
            schema["additionalProperties"] = False
        if schema.get("x-kubernetes-int-or-string"):
            schema.pop("type", None)
            schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
        for value in schema.values():
            strict(value)
    elif isinstance(schema, list):
        for value in schema:
            strict(value)


@cache
def validator(kind: str) -> Any:
    """Checks manifests of this kind. That its schema is one itself is checked once: it takes seconds."""
    checks = jsonschema.validators.validator_for(schema(kind))
    checks.check_schema(schema(kind))
    return checks(schema(kind))


def validate(manifest: dict[str, Any]) -> None:
    if manifest["kind"] in KINDS:
        validator(manifest["kind"]).validate(manifest)
    else:
        kubernetes_validate.validate(manifest, VERSION, strict=True)


def pods(tree: Any) -> Iterator[dict[str, Any]]:
    """Every pod's specification in a manifest."""
    if isinstance(tree, dict):
        if "containers" in tree:
            yield tree
        for value in tree.values():
            yield from pods(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from pods(value)


@pytest.mark.parametrize("manifest", manifests(), ids=lambda one: f"{one['kind']} {one['metadata']['name']}")
def test_a_manifest_fits_its_published_schema(manifest: dict[str, Any]) -> None:
    validate(manifest)


@pytest.mark.parametrize("kind", ["DaskCluster", "DaskJob", "Deployment"])
def test_a_misspelt_key_is_seen(kind: str) -> None:
    (manifest, *_) = [one for one in manifests() if one["kind"] == kind]
    broken = json.loads(json.dumps(manifest).replace('"volumeMounts"', '"volumeMount"', 1))
    assert broken != manifest
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(broken)


@pytest.mark.parametrize("folder", ["infra/kubernetes", "infra/kubernetes/job", "infra/refresh"])
def test_what_would_be_applied_fits_the_schemas_and_has_one_image_of_ours(folder: str) -> None:
    found = rendered(ROOT / folder)
    for manifest in found:
        validate(manifest)
    images = {container["image"] for pod in pods(found) for container in pod["containers"]}
    assert {image.partition(":")[0] for image in images} <= {"registry.example.com/w2v", "postgres"}
    assert not [one for one in found if one["kind"] == "Secret"], "secrets are made by who applies"


def test_the_nightly_refresh_is_the_cron_job_of_its_folder_on_the_standing_cluster() -> None:
    (job,) = [one for one in rendered(FOLDER) if one["kind"] == "CronJob"]
    alone = yaml.safe_load((ROOT / "infra" / "refresh" / "cronjob.yaml").read_text())
    assert job["spec"]["concurrencyPolicy"] == alone["spec"]["concurrencyPolicy"] == "Forbid"
    assert job["spec"]["jobTemplate"]["spec"]["podFailurePolicy"] == alone["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]
    template = job["spec"]["jobTemplate"]["spec"]["template"]
    assert template["metadata"]["labels"]["w2v/connects"] == "true"
    (container,) = template["spec"]["containers"]
    assert container["command"][:3] == ["w2v", "refresh", "/etc/w2v/news.yaml"]
    assert {"/certs", "/etc/w2v", "/corpus", "/data", "/tmp"} <= {mount["mountPath"] for mount in container["volumeMounts"]}


def test_every_pod_is_confined_and_bounded() -> None:
    found = list(pods(manifests()))
    assert len(found) == 8
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            confined = container["securityContext"]
            assert confined == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"], container["name"]
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), container["name"]
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}, "scratch, as the root is read-only"


def test_pods_can_be_reached_only_by_those_that_are_named() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in manifests() if one["kind"] == "NetworkPolicy"}
    assert policies["closed"]["podSelector"] == {}
    assert set(policies["closed"]["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in policies["closed"]
    for name, policy in policies.items():
        for rule in policy.get("ingress", []):
            assert rule["from"], f"{name} lets everybody in"
            assert all("ipBlock" not in source for source in rule["from"])
    labels = named("DaskCluster", "w2v")["spec"]
    assert labels["scheduler"]["metadata"]["labels"] == labels["worker"]["metadata"]["labels"] == {"w2v/connects": "true"}
    services = [one for one in manifests() if one["kind"] == "Service"]
    assert all(one["spec"].get("type", "ClusterIP") == "ClusterIP" for one in services)


def test_everything_that_pods_mount_is_made_here_or_by_the_commands_of_the_page() -> None:
    page = (FOLDER / "README.md").read_text()
    secrets = dict(re.findall(r"create secret generic ([\w-]+) ((?:.|\\\n)*?)\n\n? *(?:kubectl|\n|4)", page))
    claims = {one["metadata"]["name"] for one in manifests() if one["kind"] == "PersistentVolumeClaim"}
    for pod in pods(documents(*FOLDER.rglob("*.yaml"))):
        for volume in pod.get("volumes", []):
            if claim := volume.get("persistentVolumeClaim"):
                assert claim["claimName"] in claims
            if secret := volume.get("secret"):
                assert secret["secretName"] in page
    assert "w2v-postgres" in page
    assert not any("ca.key" in text for text in secrets.values()), "the authority's key stays with its owner"


def test_the_configuration_beside_them_is_one() -> None:
    config = parse_config(yaml.safe_load((FOLDER / "news.yaml").read_text()))
    assert config.cluster.address == "tls://w2v-scheduler:8786"
    (options,) = [one["configMapGenerator"][0] for one in documents(FOLDER / "kustomization.yaml")]
    assert (options["name"], options["files"]) == ("w2v-news", ["news.yaml"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("DaskCluster", marks=pytest.mark.skipif(not ALL, reason="make deployment")),
        "DaskJob",
    ],
)
@pytest.mark.turns(10, 9, of="deployment")
def test_the_containers_commands_make_a_cluster_that_trains_the_same_bits(kind: str, bench: Bench, tmp_path: Path) -> None:
    manifest = named(kind, {"DaskCluster": "w2v", "DaskJob": "w2v-once"}[kind])
    cluster = manifest["spec"] if kind == "DaskCluster" else manifest["spec"]["cluster"]["spec"]
    scheduler, worker = (command(cluster[part]["spec"]) for part in ("scheduler", "worker"))
    name, port = f"{manifest['metadata']['name']}-scheduler", str(free_port("127.0.0.2"))
    run_to_end(["w2v", "cluster", "certs", str(tmp_path / "certs"), "--scheduler", name], tmp_path)
    places = {"/certs/": f"{tmp_path}/certs/", "127.0.0.1:8787": "127.0.0.1:0", f"//{name}:8786": f"//127.0.0.2:{port}"}
    section = yaml.safe_load((FOLDER / "news.yaml").read_text())["cluster"]
    if kind == "DaskCluster":
        section["address"] = localized([section["address"]], places)[0]
        run = ["w2v", "run", str(tmp_path / "news.yaml")]
    else:
        (job,) = manifest["spec"]["job"]["spec"]["containers"]
        run = localized(job["command"], places | {"/etc/w2v/": f"{tmp_path}/"})
    section["tls"] = {key: localized([path], places)[0] for key, path in section["tls"].items()}
    config = bench.config_file(f"kubernetes-{kind}", before="shards", cluster=section)
    (tmp_path / "news.yaml").write_bytes(config.read_bytes())
    scheduler = localized(scheduler, places)
    scheduler[scheduler.index("8786")] = port
    workers = [localized(worker, places | {"$(DASK_WORKER_NAME)": f"worker-{number}"}) for number in range(2)]
    with serving(scheduler, *workers, folder=tmp_path):
        wait_for_scheduler("127.0.0.2", port)
        said = run_to_end([*run, "--json", "--quiet"], tmp_path)
    assert f'"sha256": "{bench.digest}"' in said


def command(pod: dict[str, Any]) -> list[str]:
    (container,) = pod["containers"]
    return [*container["command"], *container.get("args", [])]
