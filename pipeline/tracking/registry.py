"""Word vectors in MLflow's model registry: a model from code (no pickle) and plain files, under an alias.

The shipper registers a version for an event of a run (`register`), and moves an alias if that could not be done directly
(`pipeline.tracking.aliases`). Everything may be done twice: a version is found again by the digest of its vectors.
"""

from __future__ import annotations

import contextlib
import filecmp
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pipeline.history.latest import champion_of
from pipeline.safety.seals import file_sha256
from pipeline.tracking.moves import CHALLENGER, CHAMPION, DIGEST_TAG, MOVES_TAG, Move, next_moves, parse_moves, version_tags
from pipeline.tracking.spool import Event, Spool, without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

REQUIREMENTS = ["mlflow>=3.17,<4", "numpy>=2.0"]
ABOUT = "Word vectors. The newest version that a run made is `challenger`; the one in use is `champion`."
EXAMPLE = (["king", "queen"], {"ask": "similar", "topn": 10, "restrict_vocab": 0})
"""A request, with every parameter at its default; MLflow makes the signature from it."""


class CannotBeTaken(Exception):
    """An event that can never be delivered; it is counted, named in the log, and skipped."""


@contextlib.contextmanager
def resolve(spool: Spool, name: str) -> Iterator[Path]:
    """The file or folder that an event names; raises CannotBeTaken if it is outside the workdir, behind a link, or gone."""
    with contextlib.ExitStack() as stack:
        try:
            path = stack.enter_context(spool.resolve(name))
        except FileNotFoundError:
            raise CannotBeTaken(f"{name}: gone before it was delivered") from None
        except OSError as error:
            raise CannotBeTaken(f"{name}: {error.strerror}") from None
        yield path


def register_vectors(client: MlflowClient, run_id: str, event: Event, spool: Spool) -> None:
    """Registers the vectors of a `register` event as a new version of their model; the same vectors are registered once."""
    from mlflow.exceptions import MlflowException

    name, digest, description = event["name"], event["digest"], event.get("description") or None
    with resolve(spool, event["directory"]) as vectors:
        if not (vectors / "meta.json").is_file():
            raise CannotBeTaken(f"{vectors}: gone before it was registered")
        try:
            client.create_registered_model(name, description=ABOUT)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        version = find_version(client, name, digest)
        if version is None:
            model_id, source = _log_model(client, run_id, vectors, name, digest)
            created = client.create_model_version(
                name, source, run_id=run_id, tags={DIGEST_TAG: digest}, description=description, model_id=model_id
            )
            version = str(created.version)
        challenge(client, name, version)


def challenge(client: MlflowClient, name: str, version: str) -> None:
    """Makes `version` challenger, or the newest version that a run made, if another run has registered one meanwhile.

    Whoever moves the alias last looks once more, so that it never stays on the older of two versions registered at once.
    """
    given: str | None = None
    while version != given:
        client.set_registered_model_alias(name, CHALLENGER, version)
        given, version = version, str(max([int(version), *_made_by_runs(client, name)]))


def move_alias(client: MlflowClient, event: Event, spool: Spool) -> None:
    """Gives an alias to the version whose vectors an `alias` event names, unless something else has been decided since: several
    spools are delivered in any order."""
    name, move = event["name"], Move(**event["move"])
    decided = champion_of(spool.workdir) if move.alias == CHAMPION else None
    if decided and _digest(decided.vectors) not in (event["digest"], None):
        logger.info("%s: %s does not move to vectors that are no longer the workdir's champion", name, move.alias)
        return
    version = find_version(client, name, event["digest"])
    if version is None:
        raise CannotBeTaken(f"{name}: no version has these vectors ({event['digest'][:16]}…), so {move.alias} stays where it is")
    model = client.get_registered_model(name)
    before = model.aliases.get(move.alias)
    moves = parse_moves(model.tags.get(MOVES_TAG))
    if str(before) == version or any(later.alias == move.alias and later.at > move.at for later in moves):
        return
    move = replace(move, version=version, before=None if before is None else str(before))
    client.set_registered_model_alias(name, move.alias, version)
    client.set_registered_model_tag(name, MOVES_TAG, next_moves(model.tags.get(MOVES_TAG), move))
    for key, value in version_tags(move).items():
        client.set_model_version_tag(name, version, key, value)


def _digest(vectors: Path) -> str | None:
    with contextlib.suppress(OSError):
        return file_sha256(vectors / "meta.json")
    return None


def find_version(client: MlflowClient, name: str, digest: str) -> str | None:
    """The newest version with these vectors (a lost reply or a killed shipper may have left one behind), or None."""
    found = [v for v in client.search_model_versions(f"name = '{name}'") if v.tags.get(DIGEST_TAG) == digest]
    return str(max(found, key=lambda version: int(version.version)).version) if found else None


def _made_by_runs(client: MlflowClient, name: str) -> list[int]:
    return [int(found.version) for found in client.search_model_versions(f"name = '{name}'") if DIGEST_TAG in found.tags]


def _log_model(client: MlflowClient, run_id: str, vectors: Path, name: str, digest: str) -> tuple[str, str]:
    """(id, location of its files) of the run's logged model; an unfinished one is deleted first."""
    import mlflow

    experiment_id = client.get_run(run_id).info.experiment_id
    for logged in client.search_logged_models(
        [experiment_id], f"source_run_id = '{run_id}' AND tags.`{DIGEST_TAG}` = '{digest}'"
    ):
        if str(logged.status) == "READY":
            return logged.model_id, logged.artifact_location
        client.delete_logged_model(logged.model_id)
    tags = {DIGEST_TAG: digest}
    logged = client.create_logged_model(experiment_id, name, source_run_id=run_id, tags=tags, model_type="word2vec")
    with tempfile.TemporaryDirectory(prefix="model.") as scratch:
        plain, model = Path(scratch) / "vectors", Path(scratch) / "model"
        copy_vectors(vectors, plain)
        mlflow.pyfunc.save_model(
            model, python_model=str(_serving() / "served_model.py"), code_paths=[str(_core())],
            artifacts={"vectors": str(plain)}, input_example=EXAMPLE, pip_requirements=REQUIREMENTS,
            mlflow_model=mlflow.models.Model(model_id=logged.model_id, run_id=run_id),
        )  # fmt: skip
        client.log_model_artifacts(logged.model_id, str(model))
        link_vectors(vectors, logged.artifact_location)
    client.finalize_logged_model(logged.model_id, "READY")
    return logged.model_id, logged.artifact_location


def copy_vectors(source: Path, target: Path) -> None:
    """Copies `meta.json` and the files it names: all that `WordVectors.load` reads, and nothing else of the artefact."""
    target.mkdir()
    for file in _files_of(source):
        shutil.copyfile(source / file, target / file)


def link_vectors(source: Path, location: str) -> None:
    """Replaces the copies of the vectors in a logged model by hard links to `source`, if its files are on the same file system:
    artefacts never change, so one copy on the disk is enough. `location` is the logged model's, as MLflow names it."""
    address = urlsplit(location)
    if address.scheme not in ("", "file") or address.netloc not in ("", "localhost"):
        return
    place = Path(unquote(address.path) if address.scheme else location) / "artifacts" / "vectors"
    for file in _files_of(source):
        link = place / f".{file}.link"
        try:
            if (source / file).is_symlink() or not filecmp.cmp(source / file, place / file, shallow=False):
                continue
            os.link(source / file, link)
            os.replace(link, place / file)
        except OSError:  # another file system, or one without links: the copies stay
            return


def _files_of(vectors: Path) -> tuple[str, ...]:
    meta: Mapping[str, Any] = json.loads((vectors / "meta.json").read_bytes())
    return (*meta["files"], "meta.json")


def _serving() -> Path:
    return Path(__file__).parents[1] / "serving"


def _core() -> Path:
    import w2v_core

    return Path(w2v_core.__file__).parent


# ── reading back ─────────────────────────────────────────────────────────────────────────────────────────────────────


def local_copy(address: str) -> Path:
    """The folder of the vectors of `models:/NAME@alias`, `models:/NAME/2` or `runs:/ID/vectors`, downloaded if need be.

    The store is MLflow's current one: MLFLOW_TRACKING_URI, or `mlflow.set_tracking_uri`. Raises FileNotFoundError if it has none.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    if not mlflow.is_tracking_uri_set() and not os.path.exists("mlflow.db") and not os.path.isdir("mlruns"):
        # MLflow would make an empty database here, and find nothing in it.
        raise FileNotFoundError(f"{address}: set MLFLOW_TRACKING_URI to the store of the run (`w2v status` shows it)")
    if not sys.stderr.isatty():  # in a log, MLflow's bar would be one line of thousands of characters
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=address))
    except (MlflowException, OSError) as error:
        where = without_credentials(mlflow.get_tracking_uri())
        raise FileNotFoundError(
            f"{address}: MLflow at {where} does not have it ({without_credentials(str(error))[:200]}); set MLFLOW_TRACKING_URI "
            "to the store of the run; w2v ui shows its registered models"
        ) from error
    for place in (folder, folder / "artifacts" / "vectors"):
        if (place / "meta.json").is_file():
            return place
    raise FileNotFoundError(f"{address}: there are no word vectors in it (no meta.json)")
