"""The shipper's requests to MLflow: one function per type of event, each safe to repeat, and what MLflow's errors mean."""

from __future__ import annotations

import logging
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.safety.second_names import share
from pipeline.tracking.empty_database import create_database
from pipeline.tracking.registry import CannotBeTaken, register_vectors, resolve
from pipeline.tracking.spool import Event, Spool, Target, without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

METRICS_PER_BATCH = 1000
PARAMS_PER_BATCH = 100
TAGS_PER_BATCH = 100
PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 5000
"""Limits of MLflow 3 (mlflow/utils/validation.py); a tag may have 8000 characters, but only 5000 on old servers."""
SHARED_BYTES = 1 << 20
RUN_TAG = "w2v.spool"
STAGE_TAG = "w2v.stage"


class Refused(Exception):
    """An error that retrying cannot help: the server would answer the same again."""

    def __init__(self, message: str, denied: bool = False) -> None:
        super().__init__(message)
        self.denied = denied


class RunVanished(Exception):
    """The run in run.json is gone from the server (deleted, or another database); everything goes to a new one."""


# ── one batch ────────────────────────────────────────────────────────────────────────────────────────────────────────


def batches(events: Sequence[tuple[Event | None, int]]) -> Iterator[tuple[list[Event], int]]:
    """(events of one request, offset after them): neighbouring metrics together up to the limit, other events one by one."""
    group: list[Event] = []
    points, end = 0, 0
    for event, offset in events:
        if event is None:
            logger.warning("the line that ends at byte %d is not an event; it is left out", offset)
            end = offset
            continue
        size = len(event["values"]) if event["type"] == "metrics" else METRICS_PER_BATCH + 1
        if group and points + size > METRICS_PER_BATCH:
            yield group, end
            group, points = [], 0
        group.append(event)
        points, end = points + size, offset
    if group:
        yield group, end


def ship(client: MlflowClient, run_id: str, batch: Sequence[Event], spool: Spool) -> None:
    """Sends events of one type; returns when the server has them."""
    event = batch[0]
    match event["type"]:
        case "metrics":
            ship_metrics(client, run_id, batch)
        case "params":
            ship_params(client, run_id, event["params"])
        case "dataset":
            ship_dataset(client, run_id, event["dataset"])
        case "tags":
            ship_tags(client, run_id, event["tags"])
        case "artifact":
            with resolve(spool, event["path"]) as path:
                ship_artifact(client, run_id, path, event["folder"])
        case "register":
            register_vectors(client, run_id, event, spool)
        case "alias":
            from pipeline.tracking.registry import move_alias

            move_alias(client, event, spool)
        case "stage":
            ship_stage(client, run_id, event)
        case "finish":
            # A clock that was set back during the run would give it a negative duration.
            started = client.get_run(run_id).info.start_time
            client.set_terminated(run_id, status=event["status"], end_time=max(event["time"], started))
        case other:
            raise CannotBeTaken(f"{other}: an event of a newer version")


def ship_metrics(client: MlflowClient, run_id: str, batch: Sequence[Event]) -> None:
    from mlflow.entities import Metric

    points = [Metric(key, value, event["time"], event["step"]) for event in batch for key, value in event["values"].items()]
    for start in range(0, len(points), METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=points[start : start + METRICS_PER_BATCH], synchronous=True)


def ship_params(client: MlflowClient, run_id: str, params: dict[str, str]) -> None:
    from mlflow.entities import Param

    items = [Param(key, value[:PARAM_CHARACTERS]) for key, value in params.items()]
    for start in range(0, len(items), PARAMS_PER_BATCH):
        client.log_batch(run_id, params=items[start : start + PARAMS_PER_BATCH], synchronous=True)


def ship_dataset(client: MlflowClient, run_id: str, dataset: dict[str, str]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    corpus = Dataset(source_type="local", **dataset)
    client.log_inputs(run_id, [DatasetInput(corpus, [InputTag("mlflow.data.context", "training")])])


def ship_tags(client: MlflowClient, run_id: str, tags: dict[str, str]) -> None:
    from mlflow.entities import RunTag

    items = [RunTag(key, value[:TAG_CHARACTERS]) for key, value in tags.items()]
    for start in range(0, len(items), TAGS_PER_BATCH):
        client.log_batch(run_id, tags=items[start : start + TAGS_PER_BATCH], synchronous=True)


def ship_artifact(client: MlflowClient, run_id: str, path: Path, folder: str) -> None:
    """Uploads a file, or a folder's files; earlier uploads are overwritten with the same bytes.

    A large file whose destination is on the same file system is linked there instead of being copied.
    """
    if path.is_dir():
        place = local_folder(client.get_run(run_id).info.artifact_uri)
        if place is None:
            client.log_artifacts(run_id, str(path), folder or None)
            return
        for file in sorted(found for found in path.rglob("*") if found.is_file()):
            below = Path(folder) / file.parent.relative_to(path)
            if file.stat().st_size < SHARED_BYTES or not _share_below(file, place, below):
                client.log_artifact(run_id, str(file), str(below) if below.parts else None)
    elif path.is_file():
        client.log_artifact(run_id, str(path), folder or None)
    else:
        raise CannotBeTaken(f"{path}: gone before it was uploaded")


def local_folder(artifact_uri: str) -> Path | None:
    """The folder into which MLflow's client puts the files of a run; None if it is not local."""
    found = urllib.parse.urlsplit(artifact_uri)
    if found.scheme not in ("", "file") or found.netloc not in ("", "localhost"):
        return None
    return Path(urllib.parse.unquote(found.path))


def _share_below(file: Path, place: Path, below: Path) -> bool:
    try:
        (place / below).mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return share(file, place / below / file.name)


def ship_stage(client: MlflowClient, run_id: str, event: Event) -> None:
    """Reports a stage as a finished child run; one left behind by a lost reply or a killed shipper is reused."""
    from mlflow.entities import Metric, RunTag

    experiment = client.get_run(run_id).info.experiment_id
    tags = {"mlflow.parentRunId": run_id, STAGE_TAG: f"{event['name']} {event['start']}"}
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found = client.search_runs([experiment], wanted, max_results=1)
    child = found[0] if found else client.create_run(experiment, event["start"], tags=tags, run_name=event["name"])
    metrics = [Metric(key, value, event["end"], 0) for key, value in event["values"].items()]
    said = [RunTag(key, value[:TAG_CHARACTERS]) for key, value in event["tags"].items()]
    client.log_batch(child.info.run_id, metrics=metrics, tags=said, synchronous=True)
    client.set_terminated(child.info.run_id, status="FINISHED", end_time=event["end"])


# ── the run ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def make_ready(target: Target) -> None:
    """Imports MLflow and creates a local database, so that `connect` is quick. Raises ImportError; other errors are left for
    `connect` to report."""
    try:
        client = connect(target)
        if target.uri.startswith("sqlite:///"):
            client.search_experiments(max_results=1)
    except ImportError:
        raise
    except Exception as error:
        logger.info("not ready yet: %s", without_credentials(str(error)))


def connect(target: Target) -> MlflowClient:
    """A client of the target; a new SQLite file is created first, by a single process, complete or not at all."""
    from mlflow import MlflowClient

    if target.uri.startswith("sqlite:///"):
        create_database(Path(target.uri.removeprefix("sqlite:///").partition("?")[0]))
    return MlflowClient(tracking_uri=target.uri, registry_uri=target.uri)


def open_experiment(client: MlflowClient, target: Target) -> str:
    """The id of the target's experiment, created if there is none."""
    experiment = client.get_experiment_by_name(target.experiment)
    if experiment is None:
        return str(client.create_experiment(target.experiment, artifact_location=target.artifact_location))
    if experiment.lifecycle_stage != "active":
        raise Refused(f"experiment {target.experiment!r} is deleted in MLflow; restore it there or set tracking.experiment")
    return str(experiment.experiment_id)


def find_or_create_run(client: MlflowClient, experiment_id: str, target: Target) -> str:
    """The id of the run with the spool's token, created if there is none."""
    found = client.search_runs([experiment_id], f"tags.`{RUN_TAG}` = '{target.token}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    tags = {RUN_TAG: target.token, "w2v.config_digest": target.config_digest}
    run = client.create_run(experiment_id, start_time=target.created_ms, tags=tags, run_name=target.run_name)
    return str(run.info.run_id)


def check_run(client: MlflowClient, run_id: str) -> None:
    """Raises RunVanished if the server no longer has the run."""
    try:
        run = client.get_run(run_id)
    except Exception as error:
        if run_is_missing(error):
            raise RunVanished from None
        raise
    if run.info.lifecycle_stage != "active":
        raise RunVanished


def reopen(client: MlflowClient, run_id: str) -> None:
    """Marks an ended run as running again, since more events follow."""
    if client.get_run(run_id).info.status != "RUNNING":
        client.update_run(run_id, status="RUNNING")


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def cannot_be_taken(error: Exception) -> bool:
    """Whether the server understood the request and will never accept its content."""
    return isinstance(error, CannotBeTaken) or _code(error) in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")


def may_be_a_collision(error: Exception) -> bool:
    """Whether another client may have written the same row at the same time.

    An MLflow server answers each error of its database with BAD_REQUEST, also when two runs add the same alias or dataset at once
    (`ManagedSessionMaker` in mlflow/store/db/utils.py); the same request succeeds a moment later.
    """
    return _code(error) == "BAD_REQUEST"


def run_is_missing(error: Exception) -> bool:
    return _code(error) == "RESOURCE_DOES_NOT_EXIST"


def explain(error: Exception, uri: str) -> Refused | str:
    """The problem: a Refused if retrying cannot help, otherwise one line for the user."""
    if isinstance(error, Refused):
        return error
    text = " ".join(without_credentials(str(error)).split())[:300]
    code = _code(error)
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED"):
        return Refused(
            f"MLflow at {uri} refuses these credentials ({text[:120]}); set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
            denied=True,
        )
    if "CERTIFICATE_VERIFY_FAILED" in text or "SSLError" in text or "certificate verify failed" in text:
        return Refused(
            f"MLflow at {uri}: its TLS certificate is not trusted; set MLFLOW_TRACKING_SERVER_CERT_PATH to its CA's file",
            denied=True,
        )
    if code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
        return Refused(f"MLflow at {uri} will not open the run ({text[:200]}); check tracking.uri and tracking.experiment")
    if isinstance(error, ImportError):
        return Refused(f"MLflow cannot be imported ({text}); install the package mlflow into this Python")
    return f"MLflow at {uri} does not answer ({_cause(error) or text})"


def _cause(error: BaseException) -> str | None:
    """What the system said when the connection failed; MLflow wraps it in the words of four libraries."""
    found: BaseException | None = error
    while found is not None and not (isinstance(found, OSError) and found.strerror):
        found = found.__cause__ or found.__context__
    return found.strerror if isinstance(found, OSError) else None


def _code(error: Exception) -> str | None:
    code = getattr(error, "error_code", None)
    return str(code) if code is not None else None
