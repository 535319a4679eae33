"""Word vectors in MLflow's model registry: a model from code (no pickle) and two files, under an alias."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.tracking.spool import Event, Spool

if TYPE_CHECKING:
    from mlflow import MlflowClient

ALIAS = "challenger"
"""What a new version is called until someone who compared it moves `champion` to it."""
DIGEST_TAG = "w2v.vectors_digest"


class CannotBeTaken(Exception):
    """An event that will never ship; it is counted, named in the log and passed over."""


def resolve(spool: Spool, name: str) -> Path:
    """The file or folder that an event names; raises CannotBeTaken for one outside the workdir, behind a link, or gone."""
    try:
        return spool.resolve(name)
    except FileNotFoundError:
        raise CannotBeTaken(f"{name}: gone before it was delivered") from None
    except OSError as error:
        raise CannotBeTaken(f"{name}: {error.strerror}") from None


def register_vectors(client: MlflowClient, run_id: str, event: Event, spool: Spool) -> None:
    """Enters the vectors of a `register` event as a new version of their model; the same vectors are entered once."""
    from mlflow.exceptions import MlflowException

    name, digest = event["name"], event["digest"]
    vectors = resolve(spool, event["directory"])
    if not (vectors / "meta.json").is_file():
        raise CannotBeTaken(f"{vectors}: gone before it was registered")
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = _find_version(client, name, run_id, digest)
    if version is None:
        folder = f"model-{digest[:16]}"
        _upload_model(client, run_id, vectors, folder)
        source = f"{client.get_run(run_id).info.artifact_uri}/{folder}"
        created = client.create_model_version(name, source, run_id=run_id, tags={DIGEST_TAG: digest})
        version = str(created.version)
    client.set_registered_model_alias(name, ALIAS, version)


def _find_version(client: MlflowClient, name: str, run_id: str, digest: str) -> str | None:
    """The version that a lost reply or a killed shipper left behind, or None."""
    for version in client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
        if version.tags.get(DIGEST_TAG) == digest:
            return str(version.version)
    return None


def _upload_model(client: MlflowClient, run_id: str, vectors: Path, folder: str) -> None:
    import mlflow

    code = Path(__file__).with_name("served_model.py")
    with tempfile.TemporaryDirectory(prefix="model.") as scratch:
        model = Path(scratch) / "model"
        mlflow.pyfunc.save_model(
            model,
            python_model=str(code),
            artifacts={"vectors": str(vectors / "vectors.npy"), "words": str(vectors / "words.txt")},
            pip_requirements=["numpy>=2"],
        )
        client.log_artifacts(run_id, str(model), folder)
