"""WordVectors answers as gensim's KeyedVectors does, keeps its order under ties, and refuses what it cannot answer."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.gensims import models
from w2v_core.text.printable import printable
from w2v_core.vectors import UnknownWordError, WordVectors

V, D = 300, 24
WORDS = [f"w{word_id}" for word_id in range(V)]


@pytest.fixture(scope="module")
def vectors() -> WordVectors:
    matrix = np.random.default_rng(5).standard_normal((V, D)).astype(np.float32) + np.float32(0.3)
    return WordVectors(WORDS, matrix, np.arange(V, 0, -1))


@pytest.fixture(scope="module")
def gensim(vectors: WordVectors) -> Any:
    keyed = models().KeyedVectors(D)
    keyed.add_vectors(list(vectors.words), np.array(vectors.matrix))
    return keyed


def assert_same_answers(ours: list[tuple[str, float]], theirs: list[tuple[str, float]]) -> None:
    assert [word for word, _ in ours] == [word for word, _ in theirs]
    np.testing.assert_allclose([score for _, score in ours], [score for _, score in theirs], rtol=2e-5, atol=2e-6)


# ── the same answers as gensim ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("positive", "negative", "restrict"),
    [(["w0"], [], None), (["w1", "w2"], ["w3"], None), (["w9", "w250"], ["w7", "w8"], 100), ([], ["w4"], 50)],
)
def test_most_similar_agrees_with_gensim(vectors: WordVectors, gensim: Any, positive: Any, negative: Any, restrict: Any) -> None:
    ours = vectors.most_similar(positive, negative, topn=20, restrict_vocab=restrict)
    assert_same_answers(ours, gensim.most_similar(positive, negative, topn=20, restrict_vocab=restrict))


@pytest.mark.filterwarnings("ignore:Call to deprecated `init_sims`")  # gensim calls it itself
def test_analogy_by_both_methods_agrees_with_gensim(vectors: WordVectors, gensim: Any) -> None:
    for a, b, c in (("w1", "w2", "w3"), ("w40", "w5", "w299")):
        assert_same_answers(vectors.analogy(a, b, c), gensim.most_similar([b, c], [a]))
        assert_same_answers(vectors.analogy(a, b, c, method="3cosmul"), gensim.most_similar_cosmul([b, c], [a]))
        among_sixty = [answer for answer in gensim.most_similar_cosmul([b, c], [a], topn=V) if int(answer[0][1:]) < 60]
        assert_same_answers(vectors.analogy(a, b, c, method="3cosmul", restrict_vocab=60), among_sixty[:10])


def test_similarity_and_similar_by_vector_agree_with_gensim(vectors: WordVectors, gensim: Any) -> None:
    assert vectors.similarity("w3", "w77") == pytest.approx(float(gensim.similarity("w3", "w77")), abs=1e-6)
    query = np.linspace(-1, 1, D, dtype=np.float32)
    assert_same_answers(vectors.similar_by_vector(query, topn=7), gensim.similar_by_vector(query, topn=7))


def test_doesnt_match_agrees_with_gensim(vectors: WordVectors, gensim: Any) -> None:
    for first in range(0, 280, 7):
        words = WORDS[first : first + 5]
        assert vectors.doesnt_match(words) == gensim.doesnt_match(words)


# ── what gensim leaves open ──────────────────────────────────────────────────────────────────────────────────────────

small_matrices = hnp.arrays(np.float32, st.tuples(st.integers(4, 24), st.integers(1, 5)), elements=st.integers(-2, 2).map(float))


def exact_cosines(matrix: np.ndarray[Any, Any], query: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The cosines of whole-numbered vectors without rounding before the last division."""
    rows, whole = matrix.astype(np.int64), query.astype(np.int64)
    lengths = np.sqrt(((rows * rows).sum(axis=1) * (whole * whole).sum()).astype(np.float64))
    return np.divide(rows @ whole, lengths, out=np.zeros(len(rows)), where=lengths > 0)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(matrix=small_matrices, topn=st.integers(1, 30), word_id=st.integers(0, 3))
def test_neighbours_are_in_exact_order_with_equal_vectors_by_word_id(matrix: Any, topn: int, word_id: int) -> None:
    words = [f"w{i}" for i in range(len(matrix))]
    answers = WordVectors(words, matrix).most_similar(words[word_id], topn=topn)
    expected = exact_cosines(matrix, matrix[word_id])
    order = [i for i in np.lexsort((np.arange(len(matrix)), -expected.round(9))) if i != word_id][:topn]
    np.testing.assert_allclose([score for _, score in answers], expected[order], atol=1e-9)
    same = {tuple(row) for row in matrix}
    for row in same:  # words of one vector keep the order of their ids among the answers
        ids = [int(word[1:]) for word, _ in answers if tuple(matrix[int(word[1:])]) == row]
        assert ids == sorted(ids)


@pytest.mark.parametrize("topn", [1, 10, 300, 2999, 5000])
@pytest.mark.parametrize(
    ("chosen", "rows"),
    [({}, range(3000)), ({"clip_start": 7, "clip_end": 2300}, range(7, 2300)), ({"restrict_vocab": WORDS[::3]}, range(0, V, 3))],
    ids=["all", "a range", "some words"],
)  # fmt: skip
def test_the_nearest_of_many_rows_with_many_equals_are_those_of_a_sort_of_all(
    topn: int, chosen: dict[str, Any], rows: range
) -> None:
    matrix = np.random.default_rng(1).integers(-3, 4, (3000, 3)).astype(np.float32)
    asked = [9, 33, 2990]
    answers = WordVectors([f"w{i}" for i in range(3000)], matrix).most_similar(["w9"], ["w33", "w2990"], topn=topn, **chosen)
    units = matrix / np.maximum(np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True), 1e-9)
    expected = units @ (units[9] - units[33] - units[2990]) / np.linalg.norm(units[9] - units[33] - units[2990])
    order = [row for row in np.lexsort((np.arange(3000), -expected.round(9))) if row in rows and row not in asked]
    np.testing.assert_allclose([score for _, score in answers], expected[order][:topn], atol=1e-9)
    assert not {f"w{row}" for row in asked} & {word for word, _ in answers}


def test_equal_vectors_score_equally_wherever_their_rows_lie() -> None:
    matrix = np.random.default_rng(0).standard_normal((1003, 37)).astype(np.float32)
    copies = [1, 2, 500, 998, 1001, 1002]
    matrix[copies] = matrix[1]
    found = WordVectors([f"w{i}" for i in range(1003)], matrix).most_similar("w1", topn=5)
    assert [word for word, _ in found] == ["w2", "w500", "w998", "w1001", "w1002"]
    assert len({score for _, score in found}) == 1


def almost_equal_vectors() -> WordVectors:
    """Three words far apart, then 2,000 whose scores differ by less than float32 products can tell."""
    rng = np.random.default_rng(11)
    crowd = rng.standard_normal(64) + 3e-7 * rng.standard_normal((2000, 64))
    matrix = np.concatenate([rng.standard_normal((3, 64)), crowd]).astype(np.float32)
    return WordVectors([f"w{i}" for i in range(2003)], matrix)


def test_scores_that_float32_cannot_tell_apart_are_still_in_true_order() -> None:
    vectors = almost_equal_vectors()
    unit = vectors.matrix.astype(np.float64) / np.linalg.norm(vectors.matrix.astype(np.float64), axis=1)[:, None]
    to_a, to_b, to_c = (unit @ unit[word_id] for word_id in range(3))
    shifted = (1 + to_b) / 2 * (1 + to_c) / 2 / ((1 + to_a) / 2 + 1e-6)
    for scores, answers in (
        (to_a, vectors.most_similar("w0", topn=50)),
        (shifted, vectors.analogy("w0", "w1", "w2", method="3cosmul", topn=50)),
    ):
        allowed = [word_id for word_id in np.argsort(-scores) if word_id > 2]
        assert len(set(scores[allowed[:50]].astype(np.float32))) < 40  # or the test would show nothing
        found = [int(word[1:]) for word, _ in answers if int(word[1:]) > 2]
        np.testing.assert_allclose(scores[found], scores[allowed[: len(found)]], atol=1e-15)


def test_zero_vectors_have_cosine_zero_and_nothing_is_nan() -> None:
    zero = WordVectors(["zero", "a", "b", "c"], np.array([[0, 0], [1, 0], [0, 2], [-3, 0]], np.float32))
    assert zero.similarity("zero", "a") == 0.0
    assert zero.most_similar("zero") == [("a", 0.0), ("b", 0.0), ("c", 0.0)]
    assert zero.most_similar("a") == [("zero", 0.0), ("b", 0.0), ("c", -1.0)]
    assert zero.doesnt_match(["a", "b", "zero"]) == "zero"
    assert all(np.isfinite(score) for _, score in zero.analogy("zero", "a", "b", method="3cosmul"))


@pytest.mark.parametrize("method", ["3cosadd", "3cosmul"])
def test_the_words_asked_about_are_not_answers(vectors: WordVectors, method: Any) -> None:
    answers = vectors.analogy("w1", "w2", "w3", method=method, topn=V)
    assert sorted(word for word, _ in answers) == sorted(set(WORDS) - {"w1", "w2", "w3"})
    assert vectors.most_similar(WORDS) == []


def test_vectors_at_both_ends_of_float32_are_compared() -> None:
    matrix = np.array([[1e-30, 0], [1e30, 1e30], [2e-30, 0]], np.float32)
    assert WordVectors(["a", "b", "c"], matrix).most_similar("a") == [("c", 1.0), ("b", pytest.approx(0.5**0.5))]


def test_a_query_holds_no_second_copy_of_the_matrix() -> None:
    matrix = np.random.default_rng(0).standard_normal((20_000, 128)).astype(np.float32)
    vectors = WordVectors([str(i) for i in range(20_000)], matrix)
    tracemalloc.start()
    vectors.most_similar("7")
    vectors.analogy("1", "2", "3", method="3cosmul")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < matrix.nbytes


def test_a_word_is_looked_up_and_its_vector_cannot_be_changed(vectors: WordVectors) -> None:
    assert "w7" in vectors
    assert "W7" not in vectors
    assert 7 in vectors  # a row is a key too, as in gensim
    assert V not in vectors
    assert None not in vectors
    assert (len(vectors), vectors.vector_size, list(vectors)[:2]) == (V, D, ["w0", "w1"])
    np.testing.assert_array_equal(vectors["w7"], vectors.matrix[7])
    with pytest.raises(ValueError, match="read-only"):
        vectors["w7"][0] = 1
    with pytest.raises(AttributeError, match="cannot assign"):
        vectors.words = ()  # type: ignore[misc]


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_unknown_words_of_a_question_are_named(vectors: WordVectors) -> None:
    ways = (
        lambda v: v.most_similar(["nowhere", "w1"], ["never", ("nobody", -2.0)]),
        lambda v: v.most_similar_cosmul(["nowhere", "w1"], ["never", "nobody", "never"]),
        lambda v: v.analogy("never", "nowhere", "nobody"),
        lambda v: v[["w1", "nowhere", "never", "nobody"]],
    )
    for ask in ways:
        with pytest.raises(UnknownWordError) as caught:
            ask(vectors)
        lines = str(caught.value).splitlines()
        assert {line.partition(" is not in the vocabulary of ")[0] for line in lines} == {"'nowhere'", "'never'", "'nobody'"}
        assert len(lines) == 3
    with pytest.raises(UnknownWordError) as caught:
        vectors.most_similar([f"no{number}" for number in range(1200)])
    assert [str(caught.value).count("\n"), str(caught.value).splitlines()[-1]] == [5, "and 1,195 more are not in the vocabulary"]


def test_unknown_words_are_left_out_with_a_warning_as_in_gensim(vectors: WordVectors, gensim: Any) -> None:
    for ask in (lambda v, words: v.doesnt_match(words), lambda v, words: [word for _, word in v.rank_by_centrality(words)]):
        with pytest.warns(UserWarning, match="left out: 'nowhere' is not in the vocabulary of"):
            found = ask(vectors, ["w1", "nowhere", "w5", "w9", "w11"])
        assert found == ask(vectors, ["w1", "w5", "w9", "w11"]) == ask(gensim, ["w1", "nowhere", "w5", "w9", "w11"])


def test_an_unknown_word_is_answered_with_the_nearest_spellings() -> None:
    known = WordVectors(["king", "queen", "Kinga", "zebra"], np.eye(4, dtype=np.float32))
    with pytest.raises(UnknownWordError) as caught:
        known.most_similar("Kinng")
    assert str(caught.value) == "'Kinng' is not in the vocabulary of 4 words; nearest spellings: king, Kinga"
    with pytest.raises(KeyError, match=r"'\\x1b\[31m' is not in .* no known spelling is near"):
        known["\x1b[31m"]


def test_text_from_data_is_escaped_and_cut_at_80_characters() -> None:
    assert printable("naïve 단어") == "naïve 단어"
    assert printable("a\x1b[2J\u202eb\ud800\n") == "a\\x1b[2J\\u202eb\\ud800\\n"
    assert printable("x" * 80) == "x" * 80
    for long in ("x" * 81, "\x00" * 80):
        assert len(printable(long)) == 80
        assert printable(long).endswith("…")


@pytest.mark.parametrize(
    ("words", "matrix", "counts", "message"),
    [
        (["a"], np.ones((1, 2), int), None, r"matrix: expected float32 of 1 × D .* found int64 \(1, 2\)"),
        (["a", "b"], np.ones((1, 2), np.float32), None, r"matrix: expected float32 of 2 × D"),
        (["a"], np.ones(3, np.float32), None, r"found float32 \(3,\)"),
        ([], np.ones((0, 2), np.float32), None, r"at least one word and one number a word, found shape \(0, 2\)"),
        (["a", "b", "a\n", "a\n"], np.ones((4, 2), np.float32), None, r"words: 1 come twice, first 'a\\n'; give every word once"),
        (["a"], np.ones((1, 2), np.float32), np.ones(1, np.int32), r"counts: expected int64 of 1 "),
    ],
)
def test_vectors_that_do_not_fit_together_are_refused(words: Any, matrix: Any, counts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WordVectors(words, matrix, counts)


def test_numbers_that_are_not_finite_are_named_by_their_word() -> None:
    broken = WordVectors(["a", "b", "c"], np.array([[1, 2], [np.nan, 0], [np.inf, 0]], np.float32))
    with pytest.raises(ValueError, match=r"2 of 3 vectors hold numbers that are not finite, first that of 'b'.*lower alpha"):
        broken.most_similar("a")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda v: v.most_similar(), "at least one positive or negative word"),
        (lambda v: v.most_similar("w1", topn=-1), "topn: expected at least 0, found -1"),
        (lambda v: v.most_similar("w1", restrict_vocab=0), "restrict_vocab: expected at least 1, found 0"),
        (lambda v: v.similar_by_vector("king"), "vector: expected 24 finite numbers, found 'king'"),
        (lambda v: v.most_similar(positive=[[0.5, 0.5, 0.5]]), r"vector: expected 24 finite numbers, found shape \(3,\)"),
        (lambda v: v.most_similar_cosmul(negative="w1"), "give at least one positive word"),
        (lambda v: v.get_mean_vector([]), "at least one word, row or vector"),
        (lambda v: v.get_mean_vector(["w1"], [1, 2]), r"a weight for each of 1 keys, found shape \(2,\)"),
        (lambda v: v.n_similarity(["w1"], ["nowhere"]), "at least one known word in the second list"),
        (lambda v: v.most_similar_to_given("w1", []), "at least one word to choose from"),
        (lambda v: v.rank_by_centrality([]), "at least 1 known word, found 0$"),
        (lambda v: v.vectors_for_all(["nowhere"]), "at least one word of the vocabulary, found none"),
        (lambda v: v.subset(["w1"], missing="no"), "missing: expected refuse or skip, found 'no'"),
        (lambda v: v.with_vectors(["x"], np.ones((2, 24))), "vectors: expected 1 × 24 numbers"),
        (lambda v: v.with_vectors(["x", "x"], np.ones((2, 24))), "words: 1 come twice, first 'x'"),
        (lambda v: v.with_vectors(["x"], np.ones(24), counts=[1, 2]), "counts: expected 1, found 2"),
        (lambda v: v.predict_output_word(["w1"]), "came without output vectors; load the folder that training left"),
        (lambda v: v.context_vectors(), "came without output vectors"),
        (lambda v: v.analogy("w1", "w2", "w3", method="cos"), "method: expected 3cosadd or 3cosmul, found 'cos'"),
        (lambda v: v.doesnt_match(["w1", "w1", "w2"]), "at least 3 different known words, found 2"),
        (lambda v: v.doesnt_match(["w1", "w2", "nowhere"]), "known words, found 2; 'nowhere' is not in the vocabulary of"),
        (lambda v: v.similar_by_vector([1.0]), r"vector: expected 24 finite numbers, found shape \(1,\)"),
        (lambda v: v.similar_by_vector([np.nan] * D), "expected 24 finite numbers"),
        (lambda v: v.get_mean_vector(["w1"], [np.nan]), r"weights that are finite numbers, found \[nan\]"),
        (lambda v: v.get_mean_vector(["w1"], ["much"]), r"weights that are finite numbers, found \['much'\]"),
        (lambda v: v.with_vectors(["x"], np.ones(24), counts=["many"]), r"counts: expected whole numbers, found \['many'\]"),
        (lambda v: v.subset(["w1"]).relative_cosine_similarity("w1", "w1"), "expected at least two words, found one"),
    ],
)
def test_a_question_without_an_answer_is_refused(vectors: WordVectors, ask: Callable[[WordVectors], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask(vectors)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda v: v.most_similar(3.5), r"positive: expected a word, the number of its row, a vector.*found 3.5 \(float\)"),
        (lambda v: v.most_similar([None]), r"expected a word, the number of its row, .*; found None \(NoneType\)"),
        (lambda v: v.most_similar([("w1", "much")]), "expected a weight that is a finite number, found 'much'"),
        (lambda v: v.most_similar([("w1", np.nan)]), "expected a weight that is a finite number, found nan"),
        (lambda v: v.most_similar("w1", topn="5"), r"topn: expected a whole number, found '5' \(str\)"),
        (lambda v: v.most_similar("w1", topn=2.0), r"topn: expected a whole number, found 2.0 \(float\)"),
        (lambda v: v.most_similar("w1", restrict_vocab="w2"), "restrict_vocab: expected a whole number, found 'w2'"),
        (lambda v: v[None], r"expected words or the numbers of their rows, found None"),
        (lambda v: v[["w1", 2.5]], r"expected a word or the number of its row, found 2.5 \(float\)"),
        (lambda v: v.similarity("w1", ["w2"]), r"expected a word or the number of its row, found \['w2'\] \(list\)"),
        (lambda v: v[b"w1"], r"found b'w1' \(bytes\); decode\(\) makes text of it"),
        (lambda v: v.unit_vectors([1.5]), r"expected a word or the number of its row, found 1.5 \(float\)"),
        (lambda v: v.most_similar({"w1": "much"}), "expected a weight that is a finite number, found 'much'"),
        (lambda v: v.__setitem__("w1", np.ones(24)), r"WordVectors never changes; with_vectors"),
        (lambda v: WordVectors(["a", 1], np.ones((2, 2), np.float32)), r"words: expected text, found 1 \(int\)"),
        (lambda v: WordVectors([["a"]], np.ones((1, 2), np.float32)), r"words: expected text, found \['a'\] \(list\)"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_named(vectors: WordVectors, ask: Callable[[WordVectors], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        ask(vectors)


def test_names_of_gensim_that_are_not_here_say_what_to_use(vectors: WordVectors) -> None:
    for name in ("add_vectors", "vocab", "sort_by_descending_frequency", "save_word2vec_format", "to_pandas", "shape"):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'; .{{20}}"):
            getattr(vectors, name)
    with pytest.raises(AttributeError, match=r"no attribute 'most_similarr'$"):
        vectors.most_similarr  # noqa: B018


def test_a_vector_of_any_length_finds_the_same_neighbours(vectors: WordVectors) -> None:
    query = vectors["w5"].astype(np.float64)
    expected = vectors.similar_by_vector(query)
    for length in (1e-300, 1e-40, 1e30, 1e300):
        assert [word for word, _ in vectors.similar_by_vector(query * length)] == [word for word, _ in expected]
    assert vectors.similar_by_vector(np.zeros(D), topn=2) == [("w0", 0.0), ("w1", 0.0)]


def test_no_cosine_is_beyond_one_and_a_word_is_at_no_distance_from_itself() -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((200, 7)).astype(np.float32)
    vectors = WordVectors([f"w{i}" for i in range(400)], np.concatenate([rows, -rows * np.float32(3)]))
    for row in range(200):
        assert vectors.distance(row, row) == 0
        assert all(abs(cosine) <= 1 for _, cosine in vectors.most_similar(row, topn=400))
        assert vectors.most_similar(row, topn=None).min() >= -1
    assert 1 - 1e-12 < vectors.n_similarity(["w1"], ["w1"]) <= 1


def test_copies_are_read_only_too(vectors: WordVectors) -> None:
    for made in (copy.copy(vectors), copy.deepcopy(vectors), pickle.loads(pickle.dumps(vectors))):
        np.testing.assert_array_equal(made.matrix, vectors.matrix)
        assert (made.words, list(made.counts)) == (vectors.words, list(vectors.counts))  # type: ignore[arg-type]
        for array in (made.matrix, made.counts, made.norms, made["w1"], made.get_vector("w1", norm=True)):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1  # type: ignore[index]


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_widths_of_number_give_the_same_answers(vectors: WordVectors, dtype: Any) -> None:
    made = WordVectors(WORDS, vectors.matrix.astype(dtype))
    same = WordVectors(WORDS, made.matrix.astype(np.float32))
    assert made.most_similar("w3", topn=20) == same.most_similar("w3", topn=20)
    assert made["w3"].dtype == dtype
    beyond = WordVectors(["a", "b"], np.array([[1e200, 0], [1, 1]]))
    with pytest.raises(ValueError, match="not finite, first that of 'a'"):
        beyond.most_similar("b")


def test_methods_that_would_change_vectors_return_new_ones(vectors: WordVectors) -> None:
    more = vectors.with_vectors(["w3", "new"], np.stack([np.zeros(D), np.ones(D)]), counts=[7, 8])
    assert (len(more), more["w3"].tolist(), more["new"].tolist()) == (V + 1, vectors["w3"].tolist(), [1.0] * D)
    assert (more.get_vecattr("new", "count"), more.get_vecattr("w3", "count")) == (8, V - 3)
    changed = vectors.with_vectors("w3", np.zeros(D), replace=True)
    assert (len(changed), changed["w3"].any(), vectors["w3"].any()) == (V, False, True)
    assert vectors.with_vectors("one", np.ones(D)).get_vecattr("one", "count") == 0
    few = vectors.subset(["w9", "w2", "w9"])
    assert (few.words, list(few.counts)) == (("w9", "w2"), [V - 9, V - 2])  # type: ignore[arg-type]
    with pytest.raises(UnknownWordError, match="'nowhere' is not in the vocabulary"):
        vectors.subset(["w1", "nowhere"])
    assert vectors.without(["w0", "w2"]).words[:3] == ("w1", "w3", "w4")


# ── in whatever form words, vectors and weights are given ────────────────────────────────────────────────────────────

COLUMNS: dict[str, Callable[[Any], Any]] = {
    "NumPy": np.array,
    "pandas": lambda words: pd.Series(words, index=range(len(words), 0, -1)),
    "Arrow": pa.array,
    "a chunked column of Arrow": lambda words: pa.chunked_array([words[:1], words[1:]]),
    "a tuple": tuple,
    "an iterator": iter,
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_of_words_is_a_list_of_words_in_every_method(vectors: WordVectors, kind: str) -> None:
    words, column = ["w7", "w3", "w9", "w30"], COLUMNS[kind]
    asked: list[Callable[[Any], Any]] = [
        vectors.most_similar,
        vectors.__getitem__,
        vectors.doesnt_match,
        vectors.get_mean_vector,
        vectors.rank_by_centrality,
        vectors.unit_vectors,
        lambda given: vectors.most_similar("w1", restrict_vocab=given),
        lambda given: vectors.distances("w1", given),
        lambda given: vectors.n_similarity(given, "w1"),
        lambda given: vectors.most_similar_to_given("w1", given),
        lambda given: list(vectors.subset(given)),
        lambda given: list(vectors.without(given)),
        lambda given: vectors.with_vectors(given, np.ones((4, D)), replace=True)["w9"],
        lambda given: WordVectors(given, np.ones((4, 2), np.float32)).index_to_key,
    ]
    for ask in asked:
        np.testing.assert_equal(ask(column(words)), ask(words))


@pytest.mark.parametrize("kind", ["NumPy", "pandas", "Arrow", "a tuple", "a list"])
def test_a_vector_is_one_in_every_form_and_whole_numbers_are_rows(vectors: WordVectors, kind: str) -> None:
    column = COLUMNS.get(kind, list)
    found = vectors.most_similar(column(vectors["w5"].tolist()), topn=3)
    assert found == vectors.most_similar([vectors["w5"]], topn=3)
    assert found[0][0] == "w5"
    assert vectors.most_similar([5, 6]) == vectors.most_similar(["w5", "w6"])


def test_a_weight_counts_however_it_is_given(vectors: WordVectors) -> None:
    expected = vectors.most_similar([("w1", 0.25), ("w2", -1.0)])
    assert vectors.most_similar({"w1": 0.25, "w2": -1}) == expected
    assert expected != vectors.most_similar(["w1", "w2"])
    assert vectors.most_similar(("w1", -0.5)) == vectors.most_similar(negative="w1")


def test_words_of_numpy_and_classes_of_text_are_answered_as_plain_text() -> None:
    class Special(str):
        pass

    for words in (np.array(["a", "b"]), [Special("a"), "b"]):
        found = WordVectors(words, np.ones((2, 2), np.float32))
        assert [type(word) for word in (*found, *found.key_to_index, found.most_similar("b")[0][0])] == [str] * 5


def test_rows_are_counted_from_0_to_the_last_and_a_slice_is_one_of_rows(vectors: WordVectors) -> None:
    for rows in ([-1], [V], np.array([0, -1])):
        with pytest.raises(UnknownWordError, match=r"row (-1|300) is not in the vocabulary of 300 words"):
            vectors.unit_vectors(rows)
    np.testing.assert_array_equal(vectors[2:9:3], vectors[["w2", "w5", "w8"]])
    np.testing.assert_array_equal(vectors[-2:], vectors[["w298", "w299"]])
    assert list(reversed(vectors)) == WORDS[::-1]
    assert repr(vectors.subset(["w1"])) == "WordVectors(1 word, vector_size=24)"
    np.testing.assert_array_equal(vectors.distances("w1", 0), vectors.distances("w1", ["w0"]))
