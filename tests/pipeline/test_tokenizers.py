"""What each tokenizer takes for a word; the compiled pass against plain Python."""

from __future__ import annotations

import itertools
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.config import Tokenize
from pipeline.errors import ConfigError, DataError
from pipeline.text.characters import INVISIBLE, character_classes
from pipeline.text.folding import fold_bytes, folding
from pipeline.text.segmenters import icu
from pipeline.text.tokenizers import Tokenizer, identify, korean, load_tokenizer, word_array
from w2v_core.text.character_classes import IGNORED, JOINER, MARK, SEPARATOR, SOLO, WORD
from w2v_core.text.hashing import absorb, key_of
from w2v_core.text.words import WordTable


def tokenizer(name: str = "simple", **options: object) -> Tokenizer:
    return load_tokenizer(Tokenize(tokenizer=name, **options))  # type: ignore[arg-type]


def simple_by_definition(text: str) -> list[list[str]]:
    """The rule of `simple` without options, character by character."""
    classes = character_classes("simple")
    text = unicodedata.normalize("NFC", text.lower())
    lines = []
    for line in text.split("\n"):
        words, word = [], ""
        for character in line + " ":
            kind = WORD if character == "_" else classes[ord(character)]
            if kind == SOLO or (kind == WORD and len(word) and classes[ord(word[0])] == SOLO):
                words, word = [*words, word], character
            elif kind == WORD or (kind in (MARK, JOINER) and word):
                word += character
            elif kind == SEPARATOR:
                words, word = [*words, word], ""
        words = [word.rstrip("\u200c\u200d") for word in words]
        lines.append([word for word in words if any(unicodedata.category(c)[0] in "LN" for c in word)])
    return [words for words in lines if words]


ONLY_LETTERS: dict[str, dict[str, object]] = {"simple": {}, "regex": {"pattern": "[a-z]+"}}
TEXT = st.text(
    alphabet=st.sampled_from(
        "aB9_ '-.\n\r\tÉé\u0301ﬁΣς한국어\u1112\u1161中文。“”—\u00ad\u200d\u200c\u2060\ufe0f\u3000\u2028\x85\x01\x02😀İ\ufffdनमस्ते"
    )
    | st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    max_size=80,
)


@given(text=TEXT)
@settings(max_examples=300, derandomize=True, deadline=None)
def test_simple_is_its_definition(text: str) -> None:
    assert tokenizer().split(text) == simple_by_definition(text)


@given(text=TEXT)
@settings(max_examples=150, derandomize=True, deadline=None)
def test_whitespace_does_what_str_split_does_except_for_invisible_marks(text: str) -> None:
    plain = tokenizer("whitespace", lowercase=False, normalize=None)
    expected = [words for line in text.split("\n") if (words := visible_words(re.sub("[\x01\x02]", " ", line)))]
    assert plain.split(text) == expected


def visible_words(line: str) -> list[str]:
    """The words between white space, without invisible marks, and without joiners and marks at their edges."""
    edge = "\u200c\u200d" + "".join({c for c in line if unicodedata.category(c)[0] == "M"})
    found = []
    for word in INVISIBLE.sub("", line).replace("\u200b", " ").split():
        word = word.lstrip(edge).rstrip("\u200c\u200d")
        if word.strip(edge + "_"):
            found.append(word)
    return found


FOLDS: list[dict[str, object]] = [
    {}, {"lowercase": False}, {"normalize": "NFKC"}, {"normalize": None, "inner": "'-"}, {"entities": True, "normalize": "NFC"},
    {"language": "tr"}, {"language": "lt"}, {"strip": ["accents", "arabic"]}, {"tokenizer": "whitespace", "normalize": "NFKC"},
]  # fmt: skip
PLAIN = st.sampled_from(
    [" plain words in a long row ", "\tA.\r\n", " I ", "&eacute;", "x" * 40, "J\u0301 ", "Σ", "ΑΣ.Α", " \u0301"]
)


@pytest.mark.parametrize("options", FOLDS, ids=str)
@given(text=st.lists(TEXT | PLAIN, max_size=8).map("".join))
@settings(max_examples=100, derandomize=True, deadline=None)
def test_folding_only_what_is_not_ascii_is_folding_everything(options: dict[str, object], text: str) -> None:
    config = Tokenize(**options)  # type: ignore[arg-type]
    fold = folding(config)
    found, expected = fold_bytes(fold, text.encode()).tobytes(), fold(text).encode()
    assert (found.lower() if config.lowercase else found) == (expected.lower() if config.lowercase else expected)


def test_every_character_has_its_category() -> None:
    letters = [unicodedata.category(chr(code))[0] for code in range(0x110000)]
    marks = np.array([letter == "M" for letter in letters])
    classes = character_classes("whitespace")
    assert set(np.unique(classes[~marks])) == {SEPARATOR, IGNORED, WORD, JOINER}
    assert set(np.unique(classes[marks])) == {IGNORED, MARK}
    # Variation selectors and other invisible marks are ignored though they are marks.
    words = np.array([letter in "LN" for letter in letters])
    assert set(np.unique(character_classes("simple")[words])) == {IGNORED, WORD, SOLO}
    assert set(np.unique(character_classes("simple")[~words & ~marks])) == {SEPARATOR, IGNORED, JOINER}


@given(text=TEXT)
@settings(max_examples=150, derandomize=True, deadline=None)
def test_regex_gives_the_matches_of_its_pattern(text: str) -> None:
    found = tokenizer("regex", pattern="[a-zé]+|[0-9]", lowercase=False, normalize=None).split(text)
    assert found == [words for line in text.split("\n") if (words := re.findall("[a-zé]+|[0-9]", line))]


@pytest.mark.parametrize("inner", ["'", "’", "-", "'-"])
def test_a_word_that_is_typed_in_several_ways_is_one_word(inner: str) -> None:
    said = tokenizer(inner=inner).split("don't don’t donʼt don＇t ‘don’t’ e-mail e‐mail e‑mail")
    apostrophes = ["don't"] * 5 if inner != "-" else None
    hyphens = ["e-mail"] * 3 if "-" in inner else ["e", "mail"] * 3
    assert said[0][-len(hyphens) :] == hyphens
    if apostrophes:
        assert said[0][:5] == apostrophes


def test_simple_examples_that_its_docstring_promises() -> None:
    (words,) = tokenizer().split("Don’t STATE-of-the-art 3.14 max_iter naïve “x” dis\u00adcuss 😀 한국어를 北京ラーメン")
    assert words == [*"don t state of the art 3 14 max_iter naïve x discuss 한국어를".split(), "北", "京", "ラーメン"]
    (words,) = tokenizer(inner="'’-·.", emoji=True).split(
        "don’t e-mail- 'rock'n'roll' col·lecció 3.14 👨\u200d👩\u200d👧 ❤\ufe0f👍\U0001f3fd 🇰🇷"
    )
    assert words == [
        *"don't e-mail rock'n'roll col·lecció 3.14".split(), "👨\u200d👩\u200d👧", "❤", "👍\U0001f3fd", "🇰🇷",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["simple", "whitespace", "regex"])
def test_invisible_marks_make_no_word_split_none_and_make_no_second_spelling(name: str) -> None:
    split = tokenizer(name).split
    words = "data\u2060base data\ufeffbase dis\u00adcuss a\ufe0f \u202bab\u202c \ufeffab ab\u200c \u200dab ab\u200ccd".split(" ")
    expected = ["database", "database", "discuss", "a", "ab", "ab", "ab", "ab", "ab\u200ccd"]
    assert split(" ".join(words)) == [expected]
    for nothing in ("\ufe0f", "\u200d \u200c", "\u2060", "\u00ad", "\ufeff", "\u0301 \u0301\u0302", "_ __ ___", "\U000e0041"):
        assert split(f"{nothing}\nword\n") == [["word"]], f"{nothing!r} is no word"


def test_a_language_has_its_own_lower_case() -> None:
    assert tokenizer(language="tr").split("ISPARTA İstanbul I\u0307") == [["ısparta", "istanbul", "i"]]
    assert tokenizer(language="tr").split("IPSALA AB\n") == [["ıpsala", "ab"]], "text of ASCII too"
    assert tokenizer(language="lt", normalize=None).split("\u00cc J\u0301") == [["i\u0307\u0300", "j\u0307\u0301"]]
    assert tokenizer().split("ISPARTA") == [["isparta"]]


@pytest.mark.parametrize("name", ["simple", "whitespace", "regex"])
def test_marks_are_stripped_by_script_when_asked(name: str) -> None:
    assert tokenizer(name, strip=["arabic", "tatweel"]).split("كِتاب كتــاب كتاب") == [["كتاب"] * 3]
    assert tokenizer(name, strip=["hebrew"]).split("שָׁלוֹם שלום") == [["שלום"] * 2]
    assert tokenizer(name, strip=["accents"]).split("Café naïve Søren") == [["cafe", "naive", "søren"]]


@pytest.mark.parametrize("name", ["simple", "regex"])
def test_entities_are_the_characters_they_stand_for_when_asked(name: str) -> None:
    text = "caf&eacute; Tom&nbsp;Jerry&#10;x &#8217;hi&#8217; &bogus; &amp\n"
    assert tokenizer(name, entities=True).split(text) == [["café", "tom", "jerry", "x", "hi", "bogus", "amp"]]
    assert tokenizer(name).split("caf&eacute;") == [["caf", "eacute"]]


def test_settings_that_nothing_reads_are_refused() -> None:
    for given_settings in ({"pattern": "[a-z]+"}, {"options": {"x": 1}}, {"tokenizer": "regex", "emoji": True},
                     {"tokenizer": "whitespace", "inner": "-"}, {"lowercase": False, "language": "tr"}):  # fmt: skip
        with pytest.raises(ValidationError, match="is not read: tokenize"):
            Tokenize(**given_settings)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="expected punctuation"):
        Tokenize(inner="a")


@pytest.mark.parametrize(("locale", "text", "words"), [
    ("zh", "今天天气不错，我们去公园散步。", ["今天", "天气", "不错", "我们", "去", "公园", "散步"]),
    ("th", "วันนี้อากาศดี", ["วัน", "นี้", "อากาศ", "ดี"]),
])  # fmt: skip
def test_icu_knows_the_words_of_scripts_without_spaces(locale: str, text: str, words: list[str]) -> None:
    pytest.importorskip("icu4py", reason="the extra [icu] is not installed")
    assert tokenizer("pipeline.text.segmenters:icu", options={"locale": locale}).split(text + "\n\n") == [words]


def test_icu_without_its_extra_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "icu4py.breakers", None)
    with pytest.raises(ConfigError, match=r"-m pip install -e \S*\[icu\]"):
        icu()


def test_settings_change_the_words() -> None:
    assert tokenizer(lowercase=False).split("Ab ÉÉ") == [["Ab", "ÉÉ"]]
    assert tokenizer().split("한") == [["한"]], "NFC joins what macOS writes apart"
    assert tokenizer(normalize=None).split("한") == [["한"]]
    assert tokenizer(normalize="NFKC").split("ﬁne ℡ ＡＢ \U0001d6a8") == [["fine", "tel", "ab", "α"]]


def test_ascii_and_other_text_take_the_same_ids() -> None:
    table = WordTable(64)
    ids, _, _ = tokenizer().encode(b"alpha beta\n", table)
    again, _, _ = tokenizer().encode("Beta «alpha» gamma é\n".encode(), table)
    assert ids.tolist() == [0, 1]
    assert again.tolist() == [1, 0, 2, 3]
    assert word_array(table).to_pylist() == ["alpha", "beta", "gamma", "é"]


@given(
    words=st.lists(st.text(alphabet="ab", min_size=1, max_size=20), max_size=200), cuts=st.lists(st.integers(0, 200), max_size=5)
)
@settings(max_examples=100, derandomize=True, deadline=None)
def test_counts_and_order_of_first_occurrence_survive_growth_and_chunks(words: list[str], cuts: list[int]) -> None:
    table = WordTable(20)
    met: list[int] = []
    edges = [0, *sorted(min(cut, len(words)) for cut in cuts), len(words)]
    for start, stop in itertools.pairwise(edges):
        met += tokenizer().encode(" ".join(words[start:stop]).encode(), table)[0].tolist()
    data, ends, counts = table.words()
    known = [bytes(word).decode() for word in np.split(data, ends[:-1])] if len(ends) else []
    assert known == list(dict.fromkeys(words))
    assert dict(zip(known, counts.tolist(), strict=True)) == Counter(words)
    assert [known[word_id] for word_id in met] == words


def test_a_hundred_thousand_words_keep_their_identity() -> None:
    words = [f"w{index * 7919:x}{'y' * (index % 12)}" for index in range(100_000)]
    table = WordTable(64)
    ids, _, _ = tokenizer().encode(" ".join(words + words[::-1]).encode(), table)
    assert ids.tolist() == [*range(100_000), *reversed(range(100_000))]
    assert word_array(table).to_pylist() == words


def test_two_long_words_with_the_same_hash_stay_two_words() -> None:
    rng = np.random.default_rng(3)
    first = np.frombuffer(b"abcdefghijklmnop", np.uint64)
    hashed = absorb(np.uint64(0), first[0])
    while True:
        head = rng.integers(0x61, 0x7B, 8, np.uint8)
        tail = np.array([first[1] ^ hashed ^ absorb(np.uint64(0), head.view(np.uint64)[0])]).view(np.uint8)
        if ((tail > 0x20) & (tail < 0x7F)).all():
            break
    other = bytes(head) + bytes(tail)
    table = WordTable(64)
    ids, _, _ = tokenizer("whitespace", lowercase=False).encode(b"abcdefghijklmnop " + other + b" abcdefghijklmnop", table)
    keys = [key_of(np.frombuffer(word, np.uint8), 0, 16) for word in (b"abcdefghijklmnop", other)]
    assert keys[0] == keys[1], "the words were made to collide"
    assert ids.tolist() == [0, 1, 0]


@pytest.mark.parametrize("name", ["simple", "regex"])
def test_every_tokenizer_counts_each_occurrence(name: str) -> None:
    table = WordTable(64)
    for chunk in (b"a b a c\n", b"b longerthaneight b\nlongerthaneight a\n"):
        tokenizer(name, **ONLY_LETTERS[name]).encode(chunk, table)
    words = word_array(table).to_pylist()
    assert dict(zip(words, table.words()[2].tolist(), strict=True)) == {"a": 3, "b": 3, "c": 1, "longerthaneight": 2}


@pytest.mark.parametrize("name", ["simple", "regex"])
def test_long_tokens_are_dropped_counted_and_the_first_three_kept(name: str) -> None:
    table = WordTable(8)
    encode = tokenizer(name, **ONLY_LETTERS[name]).encode
    ids, ends, lines = encode(b"six abcdefgh short\nabcdefghi abcdefghi\nabcdefghij abcdefghijk\nend\n", table)
    assert word_array(table).to_pylist() == ["six", "abcdefgh", "short", "end"]
    assert (ids.tolist(), ends.tolist(), lines.tolist()) == ([0, 1, 2, 3], [3, 4], [0, 3])
    assert (table.dropped, table.dropped_bytes) == (4, 9 + 9 + 10 + 11)
    assert table.dropped_samples == [b"abcdefghi", b"abcdefghi", b"abcdefghij"]


# ── identity ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_identity_changes_with_everything_that_can_change_a_word() -> None:
    identities = [
        identify(Tokenize(**options))  # type: ignore[arg-type]
        for options in (
            {},
            {"lowercase": False},
            {"normalize": "NFKC"},
            {"tokenizer": "whitespace"},
            {"tokenizer": "regex"},
            {"tokenizer": "regex", "pattern": "[a-z]+"},
            {"language": "tr"},
            {"strip": ["accents"]},
            {"entities": True},
            {"inner": "-"},
            {"emoji": True},
            {"tokenizer": "pipeline.text.tokenizers:korean"},
            {"tokenizer": "pipeline.text.tokenizers:korean", "options": {"tags": ["NNG"]}},
        )
    ]
    assert len({repr(identity) for identity in identities}) == len(identities)
    assert "kiwipiepy" in identities[-1]["version"]


def test_patterns_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"tokenize\.pattern: .* is not an RE2 pattern"):
        identify(Tokenize(tokenizer="regex", pattern="(?<=a)b"))
    with pytest.raises(ConfigError, match="matches the empty string"):
        identify(Tokenize(tokenizer="regex", pattern="[a-z]*"))


def test_a_pattern_that_matches_white_space_is_refused_when_it_does() -> None:
    with pytest.raises(DataError, match=r"must not be empty or hold white space, found 'a b'"):
        tokenizer("regex", pattern="[a-z ]+").split("a b\n")


# ── factories ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module with a `factory` and returns its name for the configuration."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(body: str) -> str:
        name = f"plugin_{abs(hash(body)):x}"
        (tmp_path / f"{name}.py").write_text(body)
        sys.modules.pop(name, None)
        return f"{name}:factory"

    return make


def test_a_factory_is_called_once_with_its_options_and_gets_lines(plugin: Callable[[str], str]) -> None:
    name = plugin(
        "calls = []\n"
        "def factory(mark):\n"
        "    calls.append(mark)\n"
        "    return lambda lines: [[mark + word for word in line.split()] for line in lines]\n"
        "factory.version = '7'\n"
    )
    first = tokenizer(name, options={"mark": "+"})
    assert first.split("A b\r\n\nc") == [["+a", "+b"], ["+c"]]
    assert tokenizer(name, options={"mark": "+"}) is first
    assert sys.modules[name.split(":")[0]].calls == ["+"]
    assert first.identity["version"] == "7"


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("'text'", "found str"),
        ("[['a']] * 3", "found 3 items"),
        ("['a', 'b']", "found an item of type str"),
        ("[[1], [2]]", "every word must be a str"),
        ("[['a b'], []]", "hold white space"),
        ("[[''], []]", "must not be empty"),
        ("[['\\ud800'], []]", "valid Unicode"),
        ("None", "found NoneType"),
    ],
)
def test_wrong_returns_of_a_factory_are_named(plugin: Callable[[str], str], result: str, message: str) -> None:
    name = plugin(f"def factory():\n    return lambda lines: {result}\n")
    with pytest.raises(DataError, match=rf"{name}: .*{message}"):
        tokenizer(name).split("one\ntwo")


def test_factories_that_cannot_be_had_are_configuration_errors(plugin: Callable[[str], str]) -> None:
    with pytest.raises(ConfigError, match="no_such_module:factory cannot be imported"):
        identify(Tokenize(tokenizer="no_such_module:factory"))
    with pytest.raises(ConfigError, match="expected a function that returns a tokenizer"):
        identify(Tokenize(tokenizer=plugin("factory = 3\n")))
    with pytest.raises(ConfigError, match="must return a function, found int"):
        tokenizer(plugin("def factory():\n    return 3\n"))
    with pytest.raises(ConfigError, match=r"tokenize\.options: .* does not take them"):
        tokenizer(plugin("def factory():\n    return len\n"), options={"x": 1})


@pytest.mark.turns(4, 4, of="large")
def test_korean_splits_into_morphemes_without_particles() -> None:
    pytest.importorskip("kiwipiepy", reason="the extra [ko] is not installed")
    words = tokenizer("pipeline.text.tokenizers:korean").split("나는 학교에서 밥을 먹었다.\n\n한국어 형태소")
    assert words[0] == ["나", "학교", "밥", "먹다"]
    assert len(words) == 2


def test_korean_without_its_extra_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kiwipiepy", None)
    with pytest.raises(ConfigError, match=r"-m pip install -e \S*\[ko\]"):
        korean()
