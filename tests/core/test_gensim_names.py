"""gensim's names give gensim's numbers: its own tests run on `WordVectors`, and every name is compared on the same vectors."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gensims import models
from w2v_core.vectors import WordVectors

V, D = 200, 16
WORDS = [f"w{word_id}" for word_id in range(V)]
CHANGING = {"test_add_single", "test_add_multiple", "test_add_type", "test_set_item", "test_save_reload", "test_no_header"}
"""gensim's tests that change vectors in place, which a WordVectors never does."""


def names_of_theirs() -> list[str]:
    """Read from the source: importing gensim takes seconds, and every process of pytest asks for the names."""
    package = Path(importlib.util.find_spec("gensim").origin).parent  # type: ignore[union-attr, arg-type]
    tree = ast.parse((package / "test" / "test_keyedvectors.py").read_text())
    (case,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TestKeyedVectors"]
    return sorted(node.name for node in case.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test"))


@pytest.mark.parametrize("name", [name for name in names_of_theirs() if name not in CHANGING])
def test_gensims_own_test_passes_with_word_vectors_in_the_place_of_keyed_vectors(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gensim.test.test_keyedvectors as theirs

    monkeypatch.setattr(theirs, "KeyedVectors", WordVectors)
    monkeypatch.setattr(models(), "KeyedVectors", WordVectors)
    case = theirs.TestKeyedVectors(name)
    result = unittest.TestResult()
    case.run(result)
    assert isinstance(case.vectors, WordVectors)
    assert (result.testsRun, result.failures, result.errors, result.skipped) == (1, [], [], [])


def test_only_gensims_tests_that_change_vectors_are_left_out() -> None:
    import gensim.test.test_keyedvectors as theirs

    assert unittest.TestLoader().getTestCaseNames(theirs.TestKeyedVectors) == names_of_theirs()
    assert set(names_of_theirs()) >= CHANGING
    assert len(names_of_theirs()) - len(CHANGING) >= 21


@pytest.fixture(scope="module")
def both() -> tuple[WordVectors, Any]:
    matrix = np.random.default_rng(7).standard_normal((V, D)).astype(np.float32) + np.float32(0.2)
    keyed = models().KeyedVectors(D)
    keyed.add_vectors(WORDS, matrix.copy())
    for row, word in enumerate(WORDS):
        keyed.set_vecattr(word, "count", V - row)
    return WordVectors(WORDS, matrix, np.arange(V, 0, -1)), keyed


QUERY = np.linspace(-1, 2, D).astype(np.float32)
CALLS: dict[str, Callable[[Any], Any]] = {
    "len": len,
    "contains": lambda wv: ["w3" in wv, "nowhere" in wv, 5 in wv, V in wv, -1 in wv],
    "index_to_key": lambda wv: wv.index_to_key,
    "key_to_index": lambda wv: dict(wv.key_to_index),
    "vectors": lambda wv: wv.vectors,
    "vector_size": lambda wv: wv.vector_size,
    "one word": lambda wv: wv["w3"],
    "one row": lambda wv: wv[3],
    "many words": lambda wv: wv[["w3", "w1", 7]],
    "get_vector": lambda wv: wv.get_vector("w3"),
    "get_vector norm": lambda wv: wv.get_vector("w3", norm=True),
    "get_index": lambda wv: [wv.get_index("w3"), wv.get_index(4), wv.get_index("nowhere", default=-1)],
    "has_index_for": lambda wv: [wv.has_index_for("w3"), wv.has_index_for("nowhere")],
    "get_vecattr": lambda wv: [wv.get_vecattr("w0", "count"), wv.get_vecattr("w9", "count")],
    "get_normed_vectors": lambda wv: wv.get_normed_vectors(),
    "norms": lambda wv: [None if isinstance(wv, WordVectors) else wv.fill_norms(), wv.norms][1],
    "similarity": lambda wv: wv.similarity("w3", "w77"),
    "distance": lambda wv: wv.distance("w3", "w77"),
    "distances": lambda wv: wv.distances("w3"),
    "distances to some": lambda wv: wv.distances("w3", ["w1", "w9"]),
    "distances of a vector": lambda wv: wv.distances(QUERY, ["w1", "w9", 4]),
    "closer_than": lambda wv: wv.closer_than("w3", "w77"),
    "rank": lambda wv: [wv.rank("w3", word) for word in WORDS[:40]],
    "most_similar_to_given": lambda wv: wv.most_similar_to_given("w3", ["w9", "w77", "w5"]),
    "n_similarity": lambda wv: wv.n_similarity(["w3", "w4"], ["w5", "w6", "w7"]),
    "n_similarity unknown": lambda wv: wv.n_similarity(["w3", "nowhere"], ["w5", "w6"]),
    "relative_cosine_similarity": lambda wv: wv.relative_cosine_similarity("w3", "w77", 10),
    "doesnt_match": lambda wv: [wv.doesnt_match(WORDS[first : first + 4]) for first in range(0, 100, 4)],
    "rank_by_centrality": lambda wv: wv.rank_by_centrality(WORDS[3:9]),
    "rank_by_centrality raw": lambda wv: wv.rank_by_centrality(WORDS[3:9], use_norm=False),
    "cosine_similarities": lambda wv: wv.cosine_similarities(QUERY, wv.vectors[:5]),
    "get_mean_vector": lambda wv: wv.get_mean_vector(["w3", "w4", "nowhere"]),
    "get_mean_vector weights": lambda wv: wv.get_mean_vector(["w3", 4, QUERY], [1, -2, 0.5]),
    "get_mean_vector raw": lambda wv: wv.get_mean_vector(["w3", "w4"], pre_normalize=False, post_normalize=True),
    "most_similar": lambda wv: wv.most_similar("w3"),
    "most_similar many": lambda wv: wv.most_similar(["w3", "w4"], ["w5"], topn=7),
    "most_similar positions": lambda wv: wv.most_similar(["w3"], ["w4"], 6, 10, 90),
    "most_similar rows": lambda wv: wv.most_similar([3, "w4"], topn=7),
    "most_similar vector": lambda wv: wv.most_similar(QUERY, topn=7),
    "most_similar matrix": lambda wv: wv.most_similar(wv.vectors[3:5], topn=7),
    "most_similar mixed": lambda wv: wv.most_similar(["w3", QUERY], ["w4"], topn=7),
    "most_similar weights": lambda wv: wv.most_similar([("w3", 2.0), ("w4", 0.5), (QUERY, 0.1)], [("w5", -0.7), "w6"]),
    "most_similar positive weight of a negative": lambda wv: wv.most_similar("w3", [("w5", 0.7)]),
    "most_similar numpy topn": lambda wv: wv.most_similar("w3", topn=np.int16(4)),
    "most_similar none": lambda wv: wv.most_similar("w3", topn=0),
    "most_similar all": lambda wv: wv.most_similar("w3", topn=None),
    "most_similar all restricted": lambda wv: wv.most_similar("w3", topn=None, restrict_vocab=20),
    "most_similar all clipped": lambda wv: wv.most_similar("w3", topn=None, clip_start=5, clip_end=-3),
    "most_similar restrict_vocab": lambda wv: wv.most_similar("w3", topn=5, restrict_vocab=50),
    "most_similar clip": lambda wv: wv.most_similar("w3", topn=5, clip_start=20, clip_end=60),
    "most_similar more than there are": lambda wv: wv.most_similar("w3", topn=10 * V),
    "similar_by_word": lambda wv: wv.similar_by_word("w3", 4),
    "similar_by_key": lambda wv: wv.similar_by_key("w3", topn=4, restrict_vocab=60),
    "similar_by_vector": lambda wv: wv.similar_by_vector(QUERY, topn=4),
    "similar_by_vector all": lambda wv: wv.similar_by_vector(QUERY, topn=None),
    "most_similar_cosmul": lambda wv: wv.most_similar_cosmul(["w3", "w4"], ["w5"]),
    "most_similar_cosmul one": lambda wv: wv.most_similar_cosmul("w3"),
    "most_similar_cosmul many": lambda wv: wv.most_similar_cosmul(["w3", "w4", "w8"], ["w5", "w6"], topn=20),
    "most_similar_cosmul all": lambda wv: wv.most_similar_cosmul(["w3", "w4"], ["w5"], topn=None),
    "most_similar_cosmul none": lambda wv: wv.most_similar_cosmul("w3", topn=0),
    "vectors_for_all": lambda wv: wv.vectors_for_all(["w9", "nowhere", "w3", "w9"]).index_to_key,
    "vectors_for_all counts": lambda wv: wv.vectors_for_all(["w9", "w3"], copy_vecattrs=True).get_vecattr("w3", "count"),
    "vectors_for_all matrix": lambda wv: wv.vectors_for_all(["w9", "nowhere", "w3"]).vectors,
}


def assert_same(ours: Any, gensims: Any) -> None:
    """Words and counts are equal, and numbers agree within the precision of float32, in which gensim computes."""
    if isinstance(gensims, str | bool) or gensims is None or isinstance(gensims, dict):
        assert ours == gensims
    elif isinstance(gensims, list | tuple):
        assert len(ours) == len(gensims)
        for one, other in zip(ours, gensims, strict=True):
            assert_same(one, other)
    else:
        assert np.shape(ours) == np.shape(gensims)
        np.testing.assert_allclose(ours, gensims, rtol=3e-5, atol=3e-6)


@pytest.mark.filterwarnings("ignore:Call to deprecated `init_sims`")  # gensim calls it itself
@pytest.mark.parametrize("name", CALLS)
def test_every_name_gives_gensims_numbers(both: tuple[WordVectors, Any], name: str) -> None:
    ours, keyed = both
    assert_same(CALLS[name](ours), CALLS[name](keyed))


def test_every_public_name_of_gensim_is_here_or_says_what_to_use() -> None:
    wv = WordVectors(["a"], np.ones((1, 2), np.float32))
    names = {name for name in dir(models().KeyedVectors) if not name.startswith("_")}
    assert len(names) > 40
    for name in names - set(dir(WordVectors)):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'; .{{15}}"):
            getattr(wv, name)


def test_answers_can_be_restricted_to_a_list_of_words(both: tuple[WordVectors, Any]) -> None:
    ours, keyed = both
    among = ["w90", "w3", "w12", "w45", "w12"]
    expected = [answer for answer in keyed.most_similar("w3", topn=V) if answer[0] in among]
    assert_same(ours.most_similar("w3", restrict_vocab=among), expected)
    cosines = ours.most_similar("w3", topn=None, restrict_vocab=["w90", "w12"])
    assert_same(cosines, [keyed.similarity("w3", "w90"), keyed.similarity("w3", "w12")])


def test_output_words_are_predicted_as_gensim_predicts_them() -> None:
    rng = np.random.default_rng(3)
    model = models().Word2Vec(vector_size=D, min_count=1, negative=5)
    model.build_vocab([[word] * 3 for word in WORDS])
    words = list(model.wv.index_to_key)
    matrix, context = (rng.standard_normal((V, D)).astype(np.float32) for _ in range(2))
    model.wv.vectors, model.syn1neg = matrix, context
    ours = WordVectors(words, matrix, context=context)
    for asked in (["w3"], ["w3", "w4", "w5"], ["w3", "nowhere", 7]):
        with pytest.warns(UserWarning, match="left out: 'nowhere'") if "nowhere" in asked else contextlib.nullcontext():
            found = ours.predict_output_word(asked, topn=8)
        assert_same(found, [(w, float(p)) for w, p in model.predict_output_word(asked, topn=8)])
    assert_same(sum(p for _, p in ours.predict_output_word(["w3"], topn=V)), 1.0)
    with pytest.raises(KeyError, match="'nowhere' is not in the vocabulary"):
        ours.predict_output_word(["nowhere"])


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_files_are_loaded_as_gensim_loads_them(both: tuple[WordVectors, Any], tmp_path: Path, binary: bool, suffix: str) -> None:
    _, keyed = both
    path, counts = str(tmp_path / f"vectors{suffix}"), str(tmp_path / "counts.txt")
    keyed.save_word2vec_format(path, fvocab=counts, binary=binary)
    for options in ({}, {"limit": 30}, {"fvocab": counts}, {"datatype": np.float16}):
        theirs_loaded = models().KeyedVectors.load_word2vec_format(path, binary=binary, **options)
        ours = WordVectors.load_word2vec_format(path, binary=binary, **options)
        assert ours.index_to_key == theirs_loaded.index_to_key
        np.testing.assert_array_equal(ours.vectors, theirs_loaded.vectors)
        assert ours.vectors.dtype == theirs_loaded.vectors.dtype
        assert ours.get_vecattr("w3", "count") == theirs_loaded.get_vecattr("w3", "count")
        np.testing.assert_array_equal(WordVectors.load(path, limit=7)["w3"], keyed["w3"])


@pytest.mark.filterwarnings("ignore:Exception ignored in")  # gensim opens the file twice and closes one
def test_a_file_without_a_header_is_loaded_as_gensim_loads_it(both: tuple[WordVectors, Any], tmp_path: Path) -> None:
    _, keyed = both
    keyed.save_word2vec_format(str(tmp_path / "glove.txt"), write_header=False)
    ours = WordVectors.load_word2vec_format(tmp_path / "glove.txt", no_header=True, limit=9)
    theirs_loaded = models().KeyedVectors.load_word2vec_format(str(tmp_path / "glove.txt"), no_header=True, limit=9)
    assert ours.index_to_key == theirs_loaded.index_to_key
    np.testing.assert_array_equal(ours.vectors, theirs_loaded.vectors)
