"""The whole configuration is checked before anything starts, and every error says where it is and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import RunConfig, known_keys, load_config, parse_config
from pipeline.errors import ConfigError, InputError

CORPUS = {"corpus": {"inputs": ["a.txt"]}}
TLS = {"ca_file": "ca.pem", "cert": "client.pem", "key": "client.key"}


def test_a_corpus_is_all_that_must_be_given() -> None:
    config = parse_config(CORPUS)
    assert config.train.vector_size == 100
    assert config.workdir == Path("runs/word2vec").absolute()


def test_unknown_key_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"train\.negatve: unknown key; did you mean train\.negative\?"):
        parse_config(CORPUS | {"train": {"negatve": 3}})


def test_unknown_section_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"evalute: unknown key; did you mean evaluate\?"):
        parse_config(CORPUS | {"evalute": {}})


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("epochs=3", "did you mean train.epochs=…?"),
        ("window=3", "did you mean shards.window=…?"),
        ("size=50", "did you mean train.vector_size=…?"),
        ("sg=1", "here it is train.model=skipgram (cbow is the default)"),
        ("min_coutn=3", "did you mean vocab.min_count=…?"),
        ("qqqq=3", "for example train.epochs=3"),
        ("shards=", "for example shards.window=…"),
        ("shrads=3", "for example shards.window=…"),
        ("train.epochs", "for example train.epochs=3"),
    ],
)
def test_an_override_without_its_section_is_told_where_the_setting_is(override: str, hint: str) -> None:
    with pytest.raises(ConfigError) as told:
        parse_config({"corpus": {"inputs": ["x"]}}, [override])
    assert str(told.value) == f"'{override}': an override is section.key=value; {hint}"


def test_one_text_is_a_list_of_one_for_every_key_that_takes_a_list(tmp_path: Path) -> None:
    config = parse_config({"corpus": {"inputs": "x", "include": "*.txt"}}, ["publish.formats=npy", "evaluate.queries=river"])
    assert (config.corpus.include, config.publish.formats, config.evaluate.queries) == (["*.txt"], ["npy"], ["river"])
    with pytest.raises(ConfigError, match="expected 'word2vec-text'"):
        parse_config({"corpus": {"inputs": "x"}}, ["publish.formats=word2vec"])


def test_text_that_yaml_reads_as_something_else_is_shown_quoted() -> None:
    with pytest.raises(ConfigError, match=r"""quote the value if it is text: 'corpus\.include="\*\.md"'$"""):
        parse_config(CORPUS, ["corpus.include=*.md"])
    assert parse_config(CORPUS, ['corpus.include="*.md"']).corpus.include == ["*.md"]


@pytest.mark.parametrize(
    ("text", "found"),
    [("", "nothing"), ("# a note\n", "nothing"), ("a line", "text"), ("- a", "a list"), ("3", "3"), ("true", "true")],
)
def test_a_file_without_sections_is_told_what_it_holds(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"x\.yaml: expected sections such as `corpus:`, found {found}$"):
        load_config(tmp_path / "x.yaml")


def test_settings_before_the_file_are_told_apart_from_a_missing_file() -> None:
    with pytest.raises(InputError, match=r"train\.epochs=3: cannot read .*; settings follow the file"):
        load_config("train.epochs=3")


def test_all_problems_are_reported_at_once() -> None:
    tree = CORPUS | {"train": {"epochs": "many", "lanes": -1}, "shards": {"window": 256}, "run": {"name": "../../x"}}
    with pytest.raises(ConfigError) as caught:
        parse_config(tree, source="x.yaml")
    text = str(caught.value)
    assert text.startswith("x.yaml: 4 problems")
    for key in ("train.epochs", "train.lanes", "shards.window", "run.name"):
        assert key in text


@pytest.mark.parametrize(
    ("section", "settings", "key"),
    [
        ("train", {"batch_size": 8}, "batch_size"),
        ("train", {"engine": "layers", "checkpoint_every": 5000}, "checkpoint_every"),
        ("train", {"engine": "layers", "gradient": "exact"}, "gradient"),
        ("train", {"engine": "layers", "merge_every": 5000}, "merge_every"),
        ("cluster", {"kind": "address", "address": "tls://host:8786", "n_workers": 2}, "n_workers"),
        ("cluster", {"kind": "address", "address": "tls://host:8786", "options": {"processes": 2}}, "options"),
        ("corpus", {"inputs": ["a.txt"], "format": "lines", "text_field": "body"}, "text_field"),
        ("tokenize", {"tokenizer": "simple", "pattern": "x+"}, "pattern"),
    ],
)
def test_a_key_that_nothing_would_read_is_an_error(section: str, settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} is not read"):
        parse_config(CORPUS | {section: settings})


def test_settings_of_merging_may_stay_where_one_lane_is_compared_with_others() -> None:
    assert parse_config(CORPUS | {"train": {"lanes": 1, "merge_every": 5000}}).train.merge_every == 5000


def test_missing_corpus_is_named() -> None:
    with pytest.raises(ConfigError, match="corpus: missing"):
        parse_config({})


def test_yaml_1e3_without_a_dot_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("corpus: {inputs: a.txt}\nshards: {sample: 1e-3}\n")
    assert load_config(path).shards.sample == 0.001
    assert load_config(path, ["train.alpha=1e-2"]).train.alpha == 0.01


def test_an_override_wins_over_the_file_and_may_open_a_section(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("corpus: {inputs: [a.txt]}\ntrain: {epochs: 2}\n")
    config = load_config(path, ["train.epochs=7", "vocab.max_size=null", "evaluate.queries=[a, b]"])
    assert (config.train.epochs, config.vocab.max_size, config.evaluate.queries) == (7, None, ["a", "b"])


@pytest.mark.parametrize("override", ["train.epochs", "epochs=3", "train.=3", "=3"])
def test_a_malformed_override_is_explained(override: str) -> None:
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        parse_config(CORPUS, [override])


def test_a_key_given_twice_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("corpus: {inputs: [a]}\ntrain:\n  epochs: 1\n  epochs: 2\n")
    with pytest.raises(ConfigError, match=r"line 4: key 'epochs' is given twice"):
        load_config(path)


def test_a_merge_key_of_yaml_is_told_to_be_written_out(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("corpus: &c {inputs: [a]}\ntrain: {<<: *c, epochs: 1}\n")
    with pytest.raises(ConfigError, match=r"train\.<<: YAML's merge key is not read; write the keys out"):
        load_config(path)


def test_an_empty_section_means_its_defaults(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("corpus: {inputs: [a]}\npublish:\n")
    assert load_config(path).publish.formats == ["word2vec-bin"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "expected sections"),
        ("a: [", "not valid YAML"),
        ("train: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_file_that_is_not_a_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the configuration"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"train": {"optimizer": "adam"}}, "adam needs engine: layers"),
        ({"train": {"engine": "layers", "lanes": 2}}, "one lane"),
        ({"train": {"lanes": 4, "copies": 8}}, r"copies \(8\), lanes \(4\): each copy needs a lane"),
        ({"train": {"model": "skipgram", "lanes": 4, "copies": 2}}, "skip-gram has one for each"),
        ({"train": {"alpha": 0.01, "min_alpha": 0.02}}, r"min_alpha \(0.02\) is above alpha \(0.01\)"),
        ({"cluster": {"kind": "address"}}, "needs cluster.address"),
        ({"cluster": {"address": "tcp://h:1"}}, "only read with kind: address"),
        *(
            ({"cluster": {"kind": "address", "address": address}}, "expected tls://host:port or tcp://host:port")
            for address in ("h:8786", "h", "tcp://h", "http://h:8786", "tcp://:8786", "tcp://h 1:8786")
        ),
        ({"cluster": {"kind": "address", "address": "tcp://h:8786", "tls": TLS}}, "only such an address reads it"),
        ({"cluster": {"kind": "address", "address": "tls://[::1]:8786"}}, r"tls:// needs cluster\.tls"),
        ({"tracking": {"uri": "file:///x"}}, "expected http"),
        ({"tokenize": {"tokenizer": "simpel"}}, "package.module:factory"),
        ({"evaluate": {"analogy_queries": ["a:b"]}}, "expected a:b=c"),
        ({"train": {"alpha": float("nan")}}, "finite"),
    ],
)
def test_settings_that_do_not_fit_are_refused(section: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(CORPUS | section)


def test_the_digest_ignores_where_it_runs_and_sees_what_decides_the_result() -> None:
    base = parse_config(CORPUS)
    assert parse_config(CORPUS, ["cluster.n_workers=9", "run.workdir=elsewhere", "run.name=x"]).digest == base.digest
    for override in ("run.seed=2", "train.alpha=0.04", "vocab.min_count=2", "train.lanes=2"):
        assert parse_config(CORPUS, [override]).digest != base.digest


def test_min_alpha_is_a_tenth_of_alpha_unless_it_is_given() -> None:
    def rates(**train: Any) -> tuple[float, float]:
        found = parse_config(CORPUS | {"train": train}).train
        return found.alpha, found.min_alpha

    assert rates() == rates(lanes=8) == (0.05, 0.005)
    assert rates(alpha=0.02) == pytest.approx((0.02, 0.002))
    assert rates(min_alpha=0.001) == (0.05, 0.001)


def test_every_key_of_the_design_exists() -> None:
    keys = set(known_keys())
    wanted = """
    run.name run.workdir run.seed corpus.inputs corpus.format corpus.text_field tokenize.tokenizer
    tokenize.lowercase tokenize.normalize vocab.min_count vocab.max_size vocab.ns_exponent shards.window
    shards.shrink_windows shards.sample train.model train.engine train.backend train.vector_size
    train.negative train.epochs train.alpha train.min_alpha train.alpha_exponent train.gradient train.optimizer
    train.batch_size train.lanes train.merge train.merge_every train.hot_rows train.hot_merge_every
    train.checkpoint_every evaluate.analogies evaluate.similarity evaluate.restrict_vocab
    evaluate.queries publish.formats publish.register tracking.uri tracking.experiment cluster.kind
    cluster.address cluster.n_workers cluster.options cluster.tls
    """
    assert set(wanted.split()) <= keys


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_is_valid(path: Path) -> None:
    assert isinstance(load_config(path), RunConfig)
