"""Alignment of vectors to the frame of others: distances and scores stay the same, and indexed vectors stay comparable.

Both matrices are multiplied by the same rotation, so every dot product of a word and a context is unchanged.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from pipeline import store
from pipeline.formats.trained import load_vectors
from pipeline.refresh.stability import common_words, rotation
from pipeline.training import assembly
from w2v_core.vectors import files

STAGE_VERSION = 1
FEWEST_WORDS_A_NUMBER = 2
"""Common words needed per dimension: fewer do not determine the rotation."""


def aligned(vectors: store.Artefact, champion: store.Artefact, workdir: Path) -> store.Artefact:
    """The artefact of `vectors` rotated onto the champion's; `vectors` itself if too few words are common or the sizes differ."""
    before, now = load_vectors(champion), load_vectors(vectors)
    size = now.matrix.shape[1]
    common = common_words(before, now)
    if before.matrix.shape[1] != size or len(common.words) < FEWEST_WORDS_A_NUMBER * size:
        return vectors
    kind, inputs = store.bring(vectors).manifest.stage, (vectors.fingerprint, champion.fingerprint)
    fingerprint = store.fingerprint(kind, STAGE_VERSION, {"aligned": True}, inputs)
    if (found := store.open_artefact(workdir, kind, fingerprint)) and not store.find_damage(found):
        return found
    turn_DD = rotation(before, now, common).astype(np.float32)
    directory = store.artefact_directory(workdir, kind, fingerprint)
    matrices = [
        assembly.write_matrix(index, np.load(vectors.path(name), mmap_mode="r", allow_pickle=False) @ turn_DD, size, directory)
        for index, name in enumerate(assembly.FILES)
    ]
    counts = np.load(vectors.path(files.COUNTS), allow_pickle=False)
    parts = assembly.add_words(directory, matrices, size, list(now.words), counts)
    manifest = asdict(vectors.manifest) | {
        "fingerprint": fingerprint, "parts": tuple(parts), "inputs": inputs,
        "totals": dict(vectors.manifest.totals) | {"aligned_to": champion.fingerprint},
    }  # fmt: skip
    return store.commit(workdir, store.Manifest(**manifest))
