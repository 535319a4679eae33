"""Scores equal gensim's and scipy's, always come with their coverage, and do not depend on how the work is divided."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gensims import models
from w2v_core.vectors import WordVectors, evaluation
from w2v_core.vectors.questions import AnalogyQuestions, AnalogySection, SimilarityPairs

D = 6
CAPITALS = [("Athens", "Greece"), ("Bern", "Switzerland"), ("Oslo", "Norway"), ("Rome", "Italy"), ("Lima", "Peru")]
ADVERBS = [("calm", "calmly"), ("rapid", "rapidly"), ("slow", "slowly"), ("lucky", "luckily")]


def write_questions(path: Path) -> Path:
    """Every pair against every other, in two sections; some words are in no vocabulary, some lines are no questions."""
    lines = [": capital-common"]
    lines += [f"{a} {b} {c} {d}" for a, b in CAPITALS for c, d in CAPITALS if a != c]
    lines += ["Athens Greece Atlantis", "", ": gram1-adjective-to-adverb"]
    lines += [f"{a} {b} {c} {d}" for a, b in ADVERBS for c, d in ADVERBS if a != c]
    lines += ["calm calmly rapid rapidly slow", ": empty"]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def questions(tmp_path: Path) -> AnalogyQuestions:
    return evaluation.read_analogies(write_questions(tmp_path / "questions.txt"))


def cased_vectors(seed: int, noise: float) -> WordVectors:
    """Words in several cases; related pairs differ by one direction, blurred by `noise`, so that some answers are right."""
    rng = np.random.default_rng(seed)
    known = CAPITALS[:4] + ADVERBS
    words, rows = [], []
    for index, (first, second) in enumerate(known):
        base, step = rng.standard_normal(D), np.eye(D)[0 if index < 4 else 1] * 2
        for word, row in ((first.lower(), base), (second.lower(), base + step), (second.upper(), base - step)):
            words.append(word)
            rows.append(row + noise * rng.standard_normal(D))
    words += ["Athens", "SLOWLY2", "filler", "zero"]
    rows += [rng.standard_normal(D), rng.standard_normal(D), rng.standard_normal(D), np.zeros(D)]
    order = rng.permutation(len(words))
    return WordVectors([words[i] for i in order], np.array(rows, np.float32)[order])


def as_gensim(vectors: WordVectors) -> Any:
    keyed = models().KeyedVectors(vectors.vector_size)
    keyed.add_vectors(list(vectors.words), np.array(vectors.matrix))
    return keyed


# ── analogies ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # gensim divides by the norm of the zero vector
@pytest.mark.parametrize("case_insensitive", [True, False])
@pytest.mark.parametrize("restrict", [12, 20, 30_000])
def test_scores_of_every_section_are_gensims(
    tmp_path: Path, questions: AnalogyQuestions, restrict: int, case_insensitive: bool
) -> None:
    right = 0
    for seed in range(6):
        full = cased_vectors(seed, noise=0.4)
        # gensim ranks NaN, its cosine with a zero vector, before all other words, so the comparison has no zero vectors. It also
        # takes the most frequent spelling whatever the question says, so the spellings in the questions come first here.
        asked = {word for section in questions.sections for question in section.questions for word in question}
        kept = sorted((word not in asked, i) for i, word in enumerate(full.words) if word != "zero")
        vectors = full.subset([i for _, i in kept])
        scores = evaluation.evaluate_analogies(vectors, questions, restrict, case_insensitive=case_insensitive)
        path = str(tmp_path / "questions.txt")
        _, theirs = as_gensim(vectors).evaluate_word_analogies(path, restrict_vocab=restrict, case_insensitive=case_insensitive)
        for (section, ours), found in zip(scores.sections, theirs[:-1], strict=True):
            assert section.name == found["section"]
            assert (ours.correct, ours.asked) == (len(found["correct"]), len(found["correct"]) + len(found["incorrect"]))
        right += scores.total.correct
    assert right > 0 or not case_insensitive  # else the comparison would show nothing


def test_a_score_comes_with_its_coverage_and_kind(questions: AnalogyQuestions) -> None:
    scores = evaluation.evaluate_analogies(cased_vectors(1, noise=0.0), questions)
    found = scores.to_dict()
    # Lima and Peru are unknown: 8 of the 20 capital questions fall away, and a line of each kind that is no question.
    assert (scores.semantic.asked, scores.semantic.total) == (12, 21)
    assert (scores.syntactic.asked, scores.syntactic.total) == (12, 13)
    assert (found["asked"], found["total"], found["coverage"]) == (24, 34, 24 / 34)
    assert (found["semantic_coverage"], found["syntactic_coverage"]) == (12 / 21, 12 / 13)
    assert (found["method"], found["case"]) == ("3cosadd", "folded, the exact word first")
    assert found["syntactic"] == scores.syntactic.correct / 12 > 0
    assert found["analogy"] == (scores.semantic.correct + scores.syntactic.correct) / 24
    nothing = {"accuracy": None, "coverage": 0.0, "correct": 0, "asked": 0, "total": 0, "malformed": 0, "right": [], "wrong": []}
    assert found["sections"][2] == {"name": "empty", "kind": "semantic", **nothing}
    capitals = found["sections"][0]
    assert (capitals["kind"], capitals["malformed"], len(capitals["right"]), len(capitals["wrong"])) == ("semantic", 1, 4, 4)
    for a, b, c, expected, answered in capitals["right"]:
        assert (a, b) in CAPITALS
        assert (c, expected) in CAPITALS
        assert answered.upper() == expected.upper()
    assert all(answered.upper() != expected.upper() for *_, expected, answered in capitals["wrong"])
    assert json.loads(json.dumps(found)) == found


def test_without_any_known_word_there_is_no_score_and_no_coverage(questions: AnalogyQuestions) -> None:
    found = evaluation.evaluate_analogies(WordVectors(["x"], np.ones((1, 2), np.float32)), questions).to_dict()
    assert (found["analogy"], found["semantic"], found["coverage"], found["asked"]) == (None, None, 0.0, 0)


whole_matrices = st.integers(4, 14).flatmap(
    lambda rows: st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=rows, max_size=rows)
)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(rows=whole_matrices, method=st.sampled_from(["3cosadd", "3cosmul"]), restrict=st.integers(4, 14), block=st.integers(3, 9))
def test_an_answer_is_the_one_that_analogy_gives_ties_and_zero_vectors_included(
    rows: list[list[int]], method: Any, restrict: int, block: int
) -> None:
    vectors = WordVectors([f"w{i}" for i in range(len(rows))], np.array(rows, np.float32))
    triples = [(a, b, c) for a in ("w0", "w1", "w2") for b in ("w1", "w3") for c in ("w0", "w2", "w3")]
    answers = [vectors.analogy(*triple, method=method, topn=1, restrict_vocab=restrict) for triple in triples]
    asked = tuple((*triple, answer[0][0]) for triple, answer in zip(triples, answers, strict=True) if answer)
    questions = AnalogyQuestions((AnalogySection("made", asked),))
    total = evaluation.evaluate_analogies(vectors, questions, restrict, method, block=block).total
    assert (total.correct, total.asked) == (len(asked), len(asked))


def test_when_every_word_is_asked_about_nothing_is_right() -> None:
    vectors = WordVectors(["a", "A", "b", "c"], np.eye(4, dtype=np.float32))
    questions = AnalogyQuestions((AnalogySection("made", (("a", "b", "c", "a"), ("a", "b", "c", "A"))),))
    assert evaluation.evaluate_analogies(vectors, questions).total == evaluation.Score(0, 2, 2)


@pytest.mark.parametrize("method", ["3cosadd", "3cosmul"])
def test_other_spellings_of_the_words_asked_about_are_not_answers(method: Any) -> None:
    matrix = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1], [0, 0.2, 1], [0, 0.1, 0.1]], np.float32)
    vectors = WordVectors(["a", "b", "c", "B", "C", "d"], matrix)
    questions = AnalogyQuestions((AnalogySection("made", (("A", "b", "c", "D"),)),))
    assert evaluation.evaluate_analogies(vectors, questions, method=method).total.correct == 1
    as_written = AnalogyQuestions((AnalogySection("made", (("a", "b", "c", "d"), ("a", "b", "c", "B"))),))
    assert evaluation.evaluate_analogies(vectors, as_written, method=method, case_insensitive=False).total.correct == 1


@pytest.mark.parametrize("method", ["3cosadd", "3cosmul"])
def test_answers_that_float32_cannot_tell_apart_are_still_the_true_ones(method: Any) -> None:
    rng = np.random.default_rng(4)
    asked_about = rng.standard_normal((12, 64))
    crowd = asked_about[4:].sum(axis=0) + 1e-6 * rng.standard_normal((500, 64))  # near to every b + c
    vectors = WordVectors([f"w{i}" for i in range(512)], np.concatenate([asked_about, crowd]).astype(np.float32))
    triples = [(f"w{a}", f"w{b}", f"w{c}") for a in range(4) for b in range(4, 8) for c in range(8, 12)]
    asked = tuple((*triple, vectors.analogy(*triple, method=method, topn=1)[0][0]) for triple in triples)
    assert len({answer for *_, answer in asked if int(answer[1:]) >= 12}) > 3  # or the test would show nothing
    total = evaluation.evaluate_analogies(vectors, AnalogyQuestions((AnalogySection("made", asked),)), method=method).total
    assert total.correct == total.asked == 64


def test_memory_is_bounded_by_the_block_and_not_by_the_questions() -> None:
    vectors = WordVectors(
        [f"w{i}" for i in range(10_000)], np.random.default_rng(0).standard_normal((10_000, 4)).astype(np.float32)
    )
    asked = tuple((f"w{i}", f"w{i + 1}", f"w{i + 2}", "w0") for i in range(0, 1500, 3))
    questions = AnalogyQuestions((AnalogySection("made", asked),))
    vectors.most_similar("w0")
    tracemalloc.start()
    evaluation.evaluate_analogies(vectors, questions, block=12)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8_000_000  # all 1,500 words at once: 60 MB


def test_malformed_lines_are_counted_and_named_with_their_number(tmp_path: Path) -> None:
    path = tmp_path / "q.txt"
    path.write_bytes(b"\xef\xbb\xbfa b c d\r\n: one\r\nA b C d\r\na b c\r\n\r\n:) b c d\n\x1b[2J x\n")
    questions = evaluation.read_analogies(path)
    [section] = questions.sections
    assert (section.name, section.questions) == ("one", (("A", "b", "C", "d"), (":)", "b", "c", "d")))
    assert [(line.number, line.text) for line in questions.malformed] == [(1, "a b c d"), (4, "a b c"), (7, "\\x1b[2J x")]
    found = evaluation.evaluate_analogies(WordVectors(["x"], np.ones((1, 2), np.float32)), questions).to_dict()
    assert (found["malformed"], found["malformed_lines"][1]) == (3, "line 4: a b c")
    assert (found["asked"], found["total"]) == (0, 5)


def test_a_file_without_sections_is_one_section_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "msr.txt").write_text("good better rough rougher\nbetter good rougher\n")
    [section] = evaluation.read_analogies(tmp_path / "msr.txt").sections
    assert (section.name, section.questions, len(section.malformed)) == ("msr", (("good", "better", "rough", "rougher"),), 1)


def test_the_rule_for_syntactic_sections_can_be_given(tmp_path: Path) -> None:
    names = ["gram1-adverb", "I01 [noun - plural_reg]", "D05 [adj+ly_reg]", "E03 [meronyms]", "capital", "Igneous", "programs"]
    (tmp_path / "q").write_text("".join(f": {name}\na b c d\n" for name in names))

    def syntactic(*rule: str) -> list[str]:
        return [section.name for section in evaluation.read_analogies(tmp_path / "q", *rule).sections if section.syntactic]

    assert syntactic() == names[:3]
    assert syntactic("capital|^E") == ["E03 [meronyms]", "capital"]
    assert syntactic("(?!)") == []


def test_folding_case_never_prefers_another_word_to_the_exact_one() -> None:
    # The bird comes first, so it is what gensim takes for the country, too.
    matrix = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1], [1, 0, 1]], np.float32)
    vectors = WordVectors(["turkey", "Turkey", "x", "Ankara", "nest"], matrix)
    country, bird = ("x", "X", "Turkey", "Ankara"), ("x", "x", "turkey", "nest")
    pairs = SimilarityPairs((("Turkey", "Ankara", 9.0), ("turkey", "Ankara", 1.0)))
    assert evaluation.evaluate_similarity(vectors, pairs).spearman == 1.0
    for question in (country, bird):
        made = AnalogyQuestions((AnalogySection("made", (question,)),))
        assert evaluation.evaluate_analogies(vectors, made).total == evaluation.Score(1, 1, 1)
    one_case = vectors.subset(["turkey", "x", "Ankara", "nest"])
    found = evaluation.evaluate_similarity(one_case, SimilarityPairs((("Turkey", "Ankara", 9.0), ("TURKEY", "nest", 1.0))))
    assert found.used == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"q\.txt: expected ': section' lines followed by lines of four words, found no such line$"),
        (b": s\n", "found no such line"),
        (b"a b c d e\ne\n", r"first of 2 other lines: line 1: a b c d e"),
        (b": s\na b \xff d\n", r"q\.txt: line 2 is not UTF-8; convert the file"),
        (b"\x1f\x8b\x08\x00", r"q\.txt: it is compressed; decompress it first"),
    ],
)
def test_a_file_without_questions_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "q.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        evaluation.read_analogies(tmp_path / "q.txt")


@pytest.mark.parametrize("wrong", [{"method": "cos"}, {"restrict_vocab": 0}, {"block": 2}])
def test_settings_without_a_meaning_are_refused(questions: AnalogyQuestions, wrong: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match="expected method 3cosadd or 3cosmul, restrict_vocab of at least 1 and block of at least 3"
    ):
        evaluation.evaluate_analogies(cased_vectors(0, 0.1), questions, **wrong)


# ── similarity ───────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=80, derandomize=True, deadline=None)
@given(judgements=st.lists(st.integers(0, 4), min_size=2, max_size=30), seed=st.integers(0, 5))
def test_spearman_is_scipys_with_ties_on_both_sides(judgements: list[int], seed: int) -> None:
    from scipy.stats import spearmanr  # takes a second, in every process of pytest

    rng = np.random.default_rng(seed)
    vectors = WordVectors([f"w{i}" for i in range(8)], rng.integers(-1, 2, (8, 3)).astype(np.float32))
    pairs = tuple((f"w{rng.integers(8)}", f"w{rng.integers(8)}", float(score)) for score in judgements)
    result = evaluation.evaluate_similarity(vectors, SimilarityPairs(pairs))
    cosines = [vectors.similarity(first, second) for first, second, _ in pairs]
    if np.ptp(cosines) == 0 or np.ptp(judgements) == 0:
        assert result.spearman is None
    else:
        assert result.spearman == pytest.approx(spearmanr(np.round(cosines, 12), judgements).statistic, abs=1e-9)
    assert (result.used, result.total, result.coverage) == (len(pairs), len(pairs), 1.0)


def test_similarity_agrees_with_gensim_and_leaves_unknown_words_out(tmp_path: Path) -> None:
    vectors = cased_vectors(3, noise=0.5)
    rng = np.random.default_rng(0)
    first = {word.upper(): word for word in reversed(vectors.words)}  # gensim takes the most frequent spelling, asked or not
    words = [word for word in first.values() if word != "zero"] + ["unheard", "Unseen"]
    lines = [f"{words[rng.integers(len(words))]}\t{words[rng.integers(len(words))]}\t{rng.random():.2f}" for _ in range(60)]
    path = tmp_path / "pairs.tsv"
    path.write_text("# made\n" + "\n".join(lines) + "\n")
    result = evaluation.evaluate_similarity(vectors, evaluation.read_similarity(path))
    _, theirs, unknown_percent = as_gensim(vectors).evaluate_word_pairs(str(path))
    assert result.spearman == pytest.approx(theirs.statistic, abs=1e-6)
    assert result.coverage == pytest.approx(1 - unknown_percent / 100)
    assert result.coverage < 1
    assert set(result.unknown) == {"unheard", "Unseen"}
    assert result.to_dict()["unknown_words"] == 2


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ((), "at least 2 pairs, 0 have both words"),
        ((("a", "b", 1.0), ("a", "nowhere", 2.0)), "at least 2 pairs, 1 have both words in the vocabulary"),
        ((("a", "b", 1.0), ("b", "c", 1.0)), "all 2 judgements are equal"),
        ((("a", "b", 1.0), ("b", "a", 2.0)), "all 2 cosines are equal"),
    ],
)
def test_without_an_order_there_is_no_correlation_but_a_reason(pairs: Any, reason: str) -> None:
    vectors = WordVectors(["a", "b", "c"], np.array([[1, 2], [3, 1], [-1, 1]], np.float32))
    found = evaluation.evaluate_similarity(vectors, SimilarityPairs(pairs)).to_dict()
    assert found["spearman"] is None
    assert reason in found["reason"]
    assert found["coverage"] == (found["used"] / found["total"] if found["total"] else 0)


def test_case_can_be_told_apart_in_similarity() -> None:
    vectors = WordVectors(["Turkey", "turkey", "bird"], np.array([[1, 0], [0, 1], [0.1, 1]], np.float32))
    pairs = SimilarityPairs((("turkey", "bird", 2.0), ("Turkey", "bird", 1.0)))
    assert evaluation.evaluate_similarity(vectors, pairs, case_insensitive=False).spearman == 1.0
    assert evaluation.evaluate_similarity(vectors, SimilarityPairs((("TURKEY", "bird", 2.0), ("tURKEY", "bird", 1.0)))).reason


@pytest.mark.parametrize(
    "content",
    [
        "# made by hand\nbig\tlarge\t9.5\nbig\tsmall\t2\n",
        "\ufeffword 1,word 2,score\nbig,large,9.5\nbig,small,2\n",
        "big large 9.5\r\nbig   small 2\r\n\r\n",
        '"big","large","9.5"\nbig, small , 2',
    ],
)
def test_pairs_are_read_with_tabs_commas_or_spaces(tmp_path: Path, content: str) -> None:
    (tmp_path / "pairs").write_bytes(content.encode())
    found = evaluation.read_similarity(tmp_path / "pairs")
    assert found.pairs == (("big", "large", 9.5), ("big", "small", 2.0))
    assert found.malformed == ()
    assert str(found.header) == ("line 1: word 1,word 2,score" if "word 1" in content else "None")


def test_words_of_several_parts_are_read_between_tabs(tmp_path: Path) -> None:
    (tmp_path / "pairs").write_text("New York\tBoston, Mass.\t5\n")
    assert evaluation.read_similarity(tmp_path / "pairs").pairs == (("New York", "Boston, Mass.", 5.0),)


def test_lines_that_are_not_pairs_are_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "pairs").write_text("first\tsecond\tscore\na\tb\t1\na\tb\n\tb\t3\na\tb\tmany\na\tb\tinf\na\tc\t2\n")
    found = evaluation.read_similarity(tmp_path / "pairs")
    assert [pair[2] for pair in found.pairs] == [1.0, 2.0]
    assert [line.number for line in found.malformed] == [3, 4, 5, 6]


@pytest.mark.parametrize("judgement", ["N/A", "NaN", "-", "", "7,35", "?", "none", "1.5e", "inf"])
def test_a_first_line_without_a_judgement_is_a_malformed_line_not_a_header(tmp_path: Path, judgement: str) -> None:
    (tmp_path / "pairs").write_text(f"tiger\tcat\t{judgement}\nbook\tpaper\t7.46\nking\tqueen\t8.58\n")
    found = evaluation.read_similarity(tmp_path / "pairs")
    assert (found.header, [line.number for line in found.malformed], len(found.pairs)) == (None, [1], 2)


def test_lines_that_could_not_be_used_count_against_coverage(tmp_path: Path) -> None:
    (tmp_path / "pairs").write_text("a\tb\t1\na\tc\t7,5\nb\tc\t3\nb\t\tc\t2\n")
    vectors = WordVectors(["a", "b", "c"], np.array([[1, 2], [3, 1], [-1, 1]], np.float32))
    found = evaluation.evaluate_similarity(vectors, evaluation.read_similarity(tmp_path / "pairs")).to_dict()
    assert (found["used"], found["total"], found["coverage"], found["malformed"]) == (2, 4, 0.5, 2)
    assert found["malformed_lines"] == ["line 2: a\\tc\\t7,5", "line 4: b\\t\\tc\\t2"]
    assert found["method"] == "Spearman's ρ of cosines"


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (
            "word1\tword2\tPOS\tscore\told\nold\tnew\tA\t1.58\t2\n",
            r"line 1: word1\\tword2.*has 5 columns|5 columns; keep .* cut -f1,2,4",
        ),
        ("love\t\tsex\t6.77\ntiger\t\tcat\t7.35\n", r"line 1: love\\t\\tsex\\t6.77; its lines have 4 columns; .* cut -f1,3,4"),
        ("id,word1,word2,score\n1,old,new,1.58\n2,cat,dog,7\n", r"its lines have 4 columns; .* cut -d, -f2,3,4"),
        ("old new 1.58 1\ncat dog 7 1\n", r"its lines have 4 columns; .* cut -d' ' -f1,2,3"),
        ("old\tnew\t1,58\ncat\tdog\t7,5\n", "numbers have a point, not a comma"),
        ("old\tnew\t1_58\n", "first of 1 other lines"),
        ("a b\nc\n", r"first of 2 other lines: line 1: a b$"),
    ],
)
def test_the_error_of_a_set_without_pairs_shows_its_first_line_and_a_way_out(tmp_path: Path, content: str, hint: str) -> None:
    (tmp_path / "pairs").write_text(content)
    with pytest.raises(ValueError, match=hint):
        evaluation.read_similarity(tmp_path / "pairs")


def test_a_set_is_read_as_what_it_is(tmp_path: Path) -> None:
    for content, kind in (
        (": s\na b c d\n", AnalogyQuestions),
        ("a b c d\ne f g h\n", AnalogyQuestions),
        ("a b 1.5\nb c 2\n", SimilarityPairs),
        ("word1,word2,score\na,b,1\n", SimilarityPairs),
        ("New York\tNew Jersey\t5\n", SimilarityPairs),
        (": s\ra b c d\r", AnalogyQuestions),
        ("a\tb\t1.5\rb\tc\t2\r", SimilarityPairs),
    ):
        (tmp_path / "set").write_text(content)
        assert isinstance(evaluation.read_questions(tmp_path / "set"), kind)


def test_pairs_with_a_weight_are_not_taken_for_analogies(tmp_path: Path) -> None:
    (tmp_path / "set").write_text("cat\tdog\t7.5\t1.0\nold\tnew\t1.58\t.5\n")
    with pytest.raises(ValueError, match=r"its lines have 4 columns; keep the words and one score, perhaps: cut -f1,2,3"):
        evaluation.read_questions(tmp_path / "set")


def test_a_file_without_pairs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pairs").write_text("# nothing\n")
    with pytest.raises(ValueError, match=r"pairs: expected lines of word, word, score \(tabs, commas or spaces between\)"):
        evaluation.read_similarity(tmp_path / "pairs")
