"""The tracking URI of a run, as configured, and as stored in a spool: without user and password."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.config import Tracking
from pipeline.tracking.spool import Target, without_credentials


def tracking_uri(tracking: Tracking, workdir: Path) -> str:
    """The full tracking URI: by default an SQLite file beside the workdir; SQLite paths become absolute."""
    if tracking.uri is None:
        return f"sqlite:///{Path(os.path.abspath(workdir)).parent / 'mlflow.db'}"
    if tracking.uri.startswith("sqlite:///"):
        path, question, query = tracking.uri.removeprefix("sqlite:///").partition("?")
        return f"sqlite:///{os.path.abspath(path)}{question}{query}"
    return tracking.uri.rstrip("/")


def new_target(tracking: Tracking, uri: str, run_name: str, config_digest: str) -> Target:
    """The target of a spool that is opened for the first time."""
    location = None
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///").partition("?")[0])
        location = (database.parent / "mlartifacts").as_uri()
    return Target(
        uri=without_credentials(uri),
        experiment=tracking.experiment,
        run_name=run_name,
        config_digest=config_digest,
        token=uuid.uuid4().hex,
        created_ms=time.time_ns() // 1_000_000,
        artifact_location=location,
    )


def credentials_of(uri: str) -> dict[str, str]:
    """The user and password in a URI as MLflow's environment variables: passed to the shipper, never in a file or argument."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or parts.username is None:
        return {}
    return {"MLFLOW_TRACKING_USERNAME": unquote(parts.username), "MLFLOW_TRACKING_PASSWORD": unquote(parts.password or "")}
