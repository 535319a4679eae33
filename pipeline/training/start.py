"""The start of a training that continues from other vectors (`train.start_from`): rows are matched by word.

A word that the other vectors contain starts with its rows there, whatever its rank is now; a new word starts with small random
numbers drawn by the hash of the word, so that neither its rank nor the other words matter. The start is a function of (the other
vectors, vocabulary, seed) alone, so each worker reads it by itself, and again after a loss: a copy beside the checkpoints would
have to be written, hashed and read back before the first token is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline import store
from pipeline.config import Train
from pipeline.errors import DamagedError, DataError, InputError
from pipeline.history.answers import VECTORS, find_answer, snapshot_vectors
from pipeline.training.assembly import CONTEXT
from pipeline.training.history import history_of
from w2v_core.vectors import WordVectors, files


@dataclass(frozen=True)
class Parent:
    """The vectors that training continues from."""

    directory: str
    digest: str
    """Digest of their content: equal exactly if every number and word is."""
    trained_tokens: int
    """Kept tokens that they were trained on, including those of their own parents; 0 = not known."""
    learnt: frozenset[str] = frozenset()
    """The parts of text that their last training read, by name (`part_files.part_names`); empty = not known."""


def open_parent(train: Train) -> Parent | None:
    """The vectors named by `train.start_from`, with their digest; None if it is not set. Raises InputError or DataError if
    training cannot continue from them."""
    if train.start_from is None:
        return None
    directory = Path(train.start_from)
    try:
        store.bring_folder(directory)
        vectors = WordVectors.load(directory)
        meta = store.file_sha256(directory / files.META)  # it holds the SHA-256 of every file but W_out
    except (OSError, ValueError) as error:
        raise InputError(f"train.start_from: {directory}: {_instead(directory, error)}") from None
    if vectors.matrix.shape[1] != train.vector_size:
        raise DataError(
            f"train.start_from: {directory} has vectors of {vectors.matrix.shape[1]} numbers, train.vector_size is "
            f"{train.vector_size}; set it to {vectors.matrix.shape[1]} or start anew"
        )
    try:
        artefact = store.load_artefact(directory)
    except DamagedError:
        return Parent(str(directory), f"{meta} {_context_digest(directory)}", 0)
    if artefact.manifest.stage != VECTORS:  # exported
        return Parent(str(directory), f"{meta} {_context_digest(directory)}", 0)
    trained = int(artefact.manifest.totals.get("trained_before", 0)) + sum(r.kept_tokens for r in history_of(artefact))
    learnt = frozenset(artefact.manifest.totals.get("learnt", ()))
    return Parent(str(directory), f"{meta} {artefact.part(CONTEXT).sha256}", trained, learnt)


def _instead(place: Path, error: OSError | ValueError) -> str:
    """What to give in place of something that is no folder of vectors."""
    if place.is_file():
        return f"a file, not a folder of vectors; `w2v export {place} FOLDER -f npy` makes one of a file with vectors"
    if (vectors := snapshot_vectors(place)) != place:
        return f"a complete result, not a folder of vectors; its vectors are in {vectors}"
    if answer := find_answer(place):
        return f"a workdir, not a folder of vectors; its last ones are in {answer.vectors}"
    reason = error.strerror if isinstance(error, OSError) else error
    return f"no vectors here ({reason}); give a folder that training or `w2v export … -f npy` wrote"


def _context_digest(directory: Path) -> str | None:
    path = directory / CONTEXT
    return store.file_sha256(path) if path.exists() else None


def require_intact(parent: Parent) -> None:
    """Raises DataError unless the parent's files are as training wrote them; vectors of other programs have no checksums."""
    folder = Path(parent.directory)
    try:
        for damage in store.find_damage(store.load_artefact(folder)):
            raise DamagedError(damage, str(folder))
    except DamagedError as error:
        # The parent must not be discarded like other damaged artefacts: only the run that made it can repair it.
        if (folder / store.MANIFEST).exists():
            raise DataError(f"train.start_from: {error}; choose other vectors, or start anew") from error
