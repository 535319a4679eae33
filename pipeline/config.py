"""A run's configuration: one YAML file is one complete run, one section a stage; every key is checked before work starts.

`load_config(path, overrides)` returns a frozen `RunConfig` or raises one `ConfigError` that lists every wrong key at
once. Names follow gensim where gensim has a name. Unknown keys are errors (with the nearest known key), because a
misspelt `negatve: 20` that is silently ignored costs a night of training.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.errors import ConfigError, InputError

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, le=10)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class Run(Section):
    name: str = Field("word2vec", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Label of the run; also the default workdir's name."""
    workdir: str | None = None
    """Folder of every artefact, relative to the current directory; null = `runs/<name>`."""
    seed: int = Field(1, ge=0, lt=2**63)


class Corpus(Section):
    inputs: list[str] = Field(min_length=1)
    """Files, globs, folders, or `pydocs:` (docstrings of the installed Python); read in the order given."""
    format: Literal["lines", "jsonl", "parquet"] = "lines"
    text_field: str = "text"
    """The field that holds the text (jsonl, parquet)."""
    encoding_errors: Literal["replace", "strict"] = "replace"
    follow_symlinks: bool = False
    skip_unreadable: bool = False
    """false: an unreadable input stops the run before work starts; true: it is listed and left out."""
    block_bytes: int = Field(16 << 20, ge=1 << 10, le=1 << 30)
    """Target size of one part in bytes of text as stored; decides how a corpus is cut, never what is in it."""
    max_ratio: int = Field(2000, ge=2)
    """A compressed file that grows more than this many times is refused (a bomb)."""

    @field_validator("inputs", mode="before")
    @classmethod
    def one_input_is_a_list_of_one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class Tokenize(Section):
    tokenizer: str = "simple"
    """`simple` (Unicode words), `whitespace`, `regex`, or `package.module:factory`."""
    lowercase: bool = True
    normalize: Literal["NFC", "NFKC"] | None = "NFC"
    pattern: str = r"[\pL\pM\pN_]+"
    """The tokens of `tokenizer: regex` (RE2 syntax: linear time, no look-around; its \\w is ASCII only)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of a `package.module:factory`."""
    max_token_bytes: int = Field(256, ge=1, le=1 << 16)
    """Longer tokens are dropped and counted."""
    end_of_line: str | None = Field(None, min_length=1, pattern=r"^\S+$")
    """null: a line is a sentence, and windows stop at its end. A token such as `<eos>`: the line's end becomes this token
    and windows run over it, as the textbooks read Penn Treebank."""

    @model_validator(mode="after")
    def line_ends_pass_the_tokenizer(self) -> Tokenize:
        if self.end_of_line is not None and self.tokenizer != "whitespace":
            raise ValueError(f"end_of_line needs tokenizer: whitespace, found {self.tokenizer}, which may change the token")
        return self

    @field_validator("tokenizer")
    @classmethod
    def tokenizer_is_known(cls, value: str) -> str:
        if value in ("simple", "whitespace", "regex") or re.fullmatch(r"[\w.]+:[\w.]+", value):
            return value
        raise ValueError("expected simple, whitespace, regex or package.module:factory")


class Vocab(Section):
    min_count: Positive = 5
    max_size: Annotated[int, Field(ge=2, lt=2**31)] | None = None
    ns_exponent: float = Field(0.75, ge=-2, le=2)


class Shards(Section):
    window: int = Field(5, ge=1, le=255)
    shrink_windows: bool = True
    """true: each target draws its width from 1..window, as word2vec does; false: always `window`."""
    sample: float = Field(1e-4, ge=0, le=1)
    """Subsampling threshold of frequent words; 0 = keep every token."""


class Train(Section):
    model: Literal["cbow", "skipgram"] = "cbow"
    engine: Literal["kernels", "layers"] = "kernels"
    backend: Literal["auto", "numba", "numpy", "cupy"] = "auto"
    vector_size: int = Field(100, ge=1, le=4096)
    negative: int = Field(5, ge=1, le=64)
    epochs: Positive = 5
    alpha: Rate = 0.05
    """At the start. From 4 lanes on it loses up to three tenths more than the way to min_alpha, as training gets older
    (infra/decisions/0015-age.md)."""
    min_alpha: float = Field(0.005, ge=0, le=10)
    """A tenth of alpha if not given: better in few epochs than falling to zero (infra/decisions/0007-learning-rate.md)."""
    alpha_exponent: float = Field(0.3, ge=0, le=1)
    """Of `engine: kernels`: the rate of a word's rows is α times a factor proportional to count**−p, 1 on average, where p grows
    from 0 towards this as tokens are trained (infra/decisions/0015-age.md); 0 = α for every word, as in word2vec."""
    gradient: Literal["word2vec", "exact"] = "word2vec"
    optimizer: Literal["sgd", "adam"] = "sgd"
    """Of `engine: layers`; the kernels are SGD by design."""
    batch_size: Positive = 100
    """Of `engine: layers`."""
    deterministic: bool = True
    """true: workers that compute other bits than the run's (another processor or version) are left out, and the run is
    refused if none is left. false: they train too, and the run says so."""
    lanes: int = Field(1, ge=1, le=1024)
    """How many parallel copies train; part of the result, unlike the number of workers."""
    merge: Literal["adasum", "mean"] = "adasum"
    """adasum: row by row, what lanes agree on is averaged, the rest added, and changes that oppose each other are freed from
    each other first (infra/decisions/0011-opposing-changes.md). mean: the average, which loses most of what was learnt."""
    merge_every: Positive | None = None
    """Kept tokens a lane between two merges of all rows; null = chosen from lanes and corpus size."""
    hot_rows: Annotated[int, Field(ge=0)] | None = None
    """How many of the most frequent words are merged more often; null = chosen from lanes and vocabulary."""
    hot_merge_every: Positive | None = None
    """Kept tokens a lane between two merges of the hot rows; null = chosen, and grows as training gets older."""
    checkpoint_every: Positive | None = None
    """Kept tokens a lane between two checkpoints; null = chosen from the vocabulary's size, at least one at the end."""

    @model_validator(mode="before")
    @classmethod
    def min_alpha_follows_alpha(cls, given: Any) -> Any:
        if isinstance(given, dict) and "min_alpha" not in given and isinstance(given.get("alpha"), (int, float)):
            return given | {"min_alpha": given["alpha"] / 10}
        return given

    @model_validator(mode="after")
    def settings_fit_together(self) -> Train:
        if self.min_alpha > self.alpha:
            raise ValueError(f"min_alpha ({self.min_alpha:g}) is above alpha ({self.alpha:g})")
        if self.engine == "kernels" and self.optimizer != "sgd":
            raise ValueError("optimizer: adam needs engine: layers; the kernels are plain SGD")
        if self.engine == "layers" and self.lanes != 1:
            raise ValueError("engine: layers trains in one lane; set lanes: 1 or engine: kernels")
        return self


class Evaluate(Section):
    analogies: list[str] = Field(default_factory=list)
    similarity: list[str] = Field(default_factory=list)
    restrict_vocab: Positive = 30000
    queries: list[str] = Field(default_factory=list)
    """Words whose neighbours the report shows."""
    analogy_queries: list[str] = Field(default_factory=list)
    """Analogies the report answers, each `a:b=c` (a is to b as c is to …)."""

    @field_validator("analogy_queries")
    @classmethod
    def queries_have_three_words(cls, value: list[str]) -> list[str]:
        for query in value:
            if not re.fullmatch(r"[^\s:=]+:[^\s:=]+=[^\s:=]+", query):
                raise ValueError(f"expected a:b=c, found {query!r}")
        return value


Format = Literal["word2vec-text", "word2vec-bin", "npy", "parquet", "safetensors", "tensorboard"]


class Publish(Section):
    formats: list[Format] = ["word2vec-bin"]
    on_unwritable: Literal["refuse", "escape"] | None = None
    """A word that a format cannot hold (a space in word2vec formats): refuse the export, or write it escaped and list what
    stands for what; null = each format's own way (all refuse, TensorBoard escapes)."""
    register_as: str | None = Field(None, alias="register", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    """Name in MLflow's model registry; null = the vectors are logged, not registered."""
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, populate_by_name=True)


class Tracking(Section):
    enabled: bool = True
    """false: nothing is told to MLflow; the report and summary.json are written all the same."""
    uri: str | None = None
    """MLflow server (http/https) or sqlite:///…; null = an SQLite file in the workdir's parent."""
    experiment: str = Field("word2vec", min_length=1)
    required: bool = False
    """true: a tracking server that cannot be reached stops the run at its start."""

    @field_validator("uri")
    @classmethod
    def uri_is_supported(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://", "sqlite:///")):
            raise ValueError("expected http://…, https://… or sqlite:///…")
        return value


class Tls(Section):
    ca_file: str
    cert: str
    key: str


class Cluster(Section):
    kind: Literal["local", "address", "ssh", "slurm", "kubernetes"] = "local"
    address: str | None = None
    n_workers: Annotated[int, Field(ge=1)] | None = None
    """null = one worker a core, at most one a lane while training needs no more."""
    wait_s: float = Field(120, gt=0)
    """How long to wait for workers, and for any answer of the scheduler, before giving up."""
    silent_s: float = Field(30, gt=0)
    """A worker without a heartbeat for so long is taken for lost: frozen, cut off or dead."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The vendor's own keyword arguments, passed through untouched."""
    tls: Tls | None = None

    @model_validator(mode="after")
    def address_when_needed(self) -> Cluster:
        if self.kind == "address" and not self.address:
            raise ValueError("kind: address needs cluster.address (tcp://host:port or tls://host:port)")
        if self.kind != "address" and self.address:
            raise ValueError(f"cluster.address is only read with kind: address, found kind: {self.kind}")
        return self


class RunConfig(Section):
    run: Run = Run()
    corpus: Corpus
    tokenize: Tokenize = Tokenize()
    vocab: Vocab = Vocab()
    shards: Shards = Shards()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    publish: Publish = Publish()
    tracking: Tracking = Tracking()
    cluster: Cluster = Cluster()

    @property
    def workdir(self) -> Path:
        return Path(self.run.workdir or Path("runs") / self.run.name).absolute()

    @property
    def digest(self) -> str:
        """Hash of everything that decides the results; where it runs and who watches are left out."""
        left_out: dict[str, Any] = {"tracking": True, "cluster": True, "train": {"deterministic"}}
        fields = self.model_dump(mode="json", by_alias=True, exclude=left_out)
        fields["run"] = {"seed": self.run.seed}
        return hashlib.sha256(canonical_json(fields)).hexdigest()


def canonical_json(value: object) -> bytes:
    """The same bytes for equal values, whatever the order of their keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The checked configuration of YAML file `path` with `section.key=value` overrides; raises ConfigError or InputError."""
    return parse_config(read_yaml(Path(path)), overrides, source=str(path))


def parse_config(tree: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "configuration") -> RunConfig:
    """As load_config, from a mapping that is already read."""
    merged = {key: dict(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
    for override in overrides:
        _apply_override(merged, override)
    # An empty section (`publish:` alone) is YAML null; read it as "all defaults".
    merged = {key: {} if value is None and key in RunConfig.model_fields else value for key, value in merged.items()}
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise ConfigError("\n".join([f"{source}: {count} in the configuration", *(f"  {p}" for p in problems)])) from None


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice; plain YAML would keep the last one silently."""


def _mapping_without_duplicates(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise ConfigError(f"line {key_node.start_mark.line + 1}: key {key!r} is given twice; remove one of them")
        seen.add(key)
    return dict(loader.construct_pairs(node, deep=True))


_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:map", _mapping_without_duplicates)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises InputError when it cannot be read, ConfigError when it is no mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"{path}: cannot read the configuration ({reason}); give the path of a YAML file") from None
    try:
        tree = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections such as `corpus:`, found {type(tree).__name__}")
    return tree


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    parts = key.split(".")
    if not equals or len(parts) < 2 or not all(parts):
        raise ConfigError(f"{override!r}: an override is section.key=value, for example train.epochs=3")
    node = tree
    for part in parts[:-1]:
        child = node.get(part)
        node[part] = dict(child) if isinstance(child, Mapping) else {}
        node = node[part]
    try:
        node[parts[-1]] = yaml.load(value, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError:
        raise ConfigError(f"{override!r}: the value is not valid YAML; quote it") from None


def _explain(problem: Mapping[str, Any]) -> str:
    """One wrong key as one line: where, what is wrong, what was found."""
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, list(known_keys()), n=1, cutoff=0.5)
        return f"{key}: unknown key" + (f"; did you mean {near[0]}?" if near else "")
    if problem["type"] == "missing":
        return f"{key}: missing; this key has no default"
    found = problem.get("input")
    shown = "" if isinstance(found, (dict, BaseModel)) else f" (found {found!r})"
    return f"{key}: {problem['msg'].removeprefix('Value error, ')}{shown}"


def known_keys() -> Iterator[str]:
    """Every `section` and `section.key` that exists."""
    for name, field in RunConfig.model_fields.items():
        yield name
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            for key, inner in section.model_fields.items():
                yield f"{name}.{inner.alias or key}"
