"""vectors/ → exports/: the vectors in the formats of other programs."""

from __future__ import annotations

from pathlib import Path

from pipeline import store
from pipeline.config import RunConfig
from pipeline.errors import DataError, counted
from pipeline.formats.exports import Wanted, export_parts
from pipeline.formats.placing import send
from pipeline.formats.trained import load_vectors
from pipeline.safety.second_names import share
from pipeline.stages.work import Done, Identity, Told, Work
from pipeline.storage.addresses import parse_address

STAGE = "exports"
STAGE_VERSION = 2


def identity(config: RunConfig, vectors: store.Artefact) -> Identity:
    """(fingerprint, fields read, inputs) of the exports."""
    fields = config.publish.model_dump(exclude={"register_as", "to"})
    inputs = (vectors.fingerprint,)
    return store.fingerprint(STAGE, STAGE_VERSION, fields, inputs), fields, inputs


def build(work: Work, vectors: store.Artefact) -> store.Artefact:
    """The committed exports; raises DataError if a format cannot hold a word."""
    config, workdir = work.config, work.workdir
    fingerprint, fields, inputs = identity(config, vectors)
    directory = store.artefact_directory(workdir, STAGE, fingerprint)
    directory.mkdir(parents=True, exist_ok=True)
    try:
        written = export_parts(load_vectors(vectors), list(config.publish.formats), directory, wanted_of(config))
        parts = {part.name: part for found in written.values() for part in found}
        for part in parts.values():
            _share(vectors, directory, part)
    except ValueError as error:
        raise DataError(f"publish: {error}") from error
    except OSError as error:
        raise store.explain_os_error(error, directory) from error
    return store.commit(
        workdir,
        store.Manifest(
            stage=STAGE, fingerprint=fingerprint, parts=tuple(parts[name] for name in sorted(parts)),
            totals={"files": {name: [part.name for part in found] for name, found in written.items()}},
            fields=fields, inputs=inputs,
        ),
    )  # fmt: skip


def send_exports(config: RunConfig, exports: store.Artefact) -> None:
    """Uploads the exports to `publish.to`, if it is set, and makes them the latest there."""
    if config.publish.to is None:
        return
    written = exports.manifest.totals["files"]
    paths = {name: [store.bring(exports).directory / path for path in found] for name, found in written.items()}
    send(parse_address(config.publish.to, "publish.to"), config.storage, paths)


def _share(vectors: store.Artefact, directory: Path, part: store.Part) -> None:
    """An exported file that is byte for byte equal to a file of vectors/ becomes a hard link to that."""
    twins = [twin for twin in vectors.manifest.parts if (twin.sha256, twin.bytes) == (part.sha256, part.bytes)]
    if twins and share(vectors.directory / twins[0].name, directory / part.name):
        store.sync_directory(directory)


def wanted_of(config: RunConfig) -> Wanted:
    """The export options of this configuration."""
    wanted = config.publish
    return Wanted(wanted.words, wanted.dtype, wanted.header, wanted.counts, wanted.on_unwritable)


def describe(done: Done) -> Told:
    files, directory = done.totals["files"], done.artefact.directory
    exports = {name: [str(directory / path) for path in paths] for name, paths in files.items()}
    return Told(counted(len(files), "formats|format"), sections={"exports": exports})
