"""The sections of a configuration, one per stage: every key with its type, default and meaning.

Names follow gensim where gensim has a name. A value that cannot be used, or a key that nothing would read, is an error that says
what to do; config.py combines the sections and reads them from files.
"""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from pipeline.errors import ConfigError
from pipeline.options.cluster import Cluster as Cluster
from pipeline.options.cluster import Tls as Tls
from pipeline.options.section import Section as Section
from pipeline.options.section import refuse_unread, spelled
from pipeline.options.storage import Storage as Storage
from pipeline.options.text import Corpus as Corpus
from pipeline.options.text import Tokenize as Tokenize
from pipeline.safety.values import has_host
from pipeline.storage.addresses import is_address, parse_address

Positive = Annotated[int, Field(ge=1, lt=2**63)]
Chosen = Annotated[int, BeforeValidator(lambda value: 0 if value is None else value), Field(ge=0, le=1024)]
Rate = Annotated[float, Field(ge=1e-6, le=10)]
"""A learning rate; the steps of a lower one are so small beside the vectors' numbers that float32 rounds them away."""
_LABEL = "characters: a-z, A-Z, 0-9, and after the first also . _ -"


class Run(Section):
    name: Annotated[str, spelled(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", f"at most 64 {_LABEL}")] = "word2vec"
    """Label of the run; also the default workdir's name."""
    workdir: str | None = None
    """Folder of every artefact, or a place in a bucket (s3://…, gs://…, abfss://…); null = `runs/<name>` beside the configuration
    file."""
    seed: int = Field(1, ge=0, lt=2**63)
    """All random numbers come from it: the same seed gives the same vectors, bit for bit."""

    @field_validator("workdir")
    @classmethod
    def workdir_is_a_folder_or_in_a_bucket(cls, value: str | None) -> str | None:
        return _address(value, "run.workdir") if value is not None and is_address(value) else value


def _address(value: str, key: str) -> str:
    """The address in normalised form; raises ValueError for an invalid one."""
    try:
        return str(parse_address(value, key))
    except ConfigError as error:
        raise ValueError(str(error).removeprefix(f"{key}: ")) from None


class Vocab(Section):
    min_count: Positive = 5
    """Words that are rarer are left out, as if they were not in the text."""
    max_size: Annotated[int, Field(ge=2, lt=2**31)] | None = None
    """Keep only this many of the most frequent words; null = all."""
    ns_exponent: float = Field(0.75, ge=-2, le=2)
    """Noise words are drawn in proportion to count to this power: 1 = as in the text, 0 = all alike."""


class Shards(Section):
    window: int = Field(5, ge=1, le=255)
    """How many words on each side of a word count as its context, at most."""
    shrink_windows: bool = True
    """true: each target draws its width from 1..window, as word2vec does; false: always `window`."""
    sample: Annotated[float, Field(ge=0, le=1)] | None = None
    """Subsampling threshold for frequent words; 0 = keep every token; null = by corpus size: 1e-4 from a million tokens on,
    higher for smaller corpora, which have no tokens to spare (w2v_core/windows.py)."""


_OF_COPIES = ("merge", "merge_bits", "merge_every", "hot_rows", "hot_merge_every")
"""Keys of `train` that control how copies are merged."""


class Train(Section):
    model: Literal["cbow", "skipgram"] = "cbow"
    """cbow: a word is predicted from the mean of its context; skipgram: each word of its context from the word."""
    engine: Literal["kernels", "layers"] = "kernels"
    """kernels: compiled, fast; layers: the textbook's layers in NumPy, slow, to learn from."""
    backend: Literal["auto", "numba", "numpy", "cupy"] = "auto"
    """What the kernels compute with: numba and numpy on the CPU (numpy is slow), cupy on a GPU; auto = cupy
    where there is a GPU and CuPy, otherwise numba."""
    vector_size: int = Field(100, ge=1, le=4096)
    """Numbers per vector."""
    negative: int = Field(5, ge=1, le=64)
    """Noise words drawn for each word."""
    epochs: int = Field(5, ge=1, le=100_000)
    """How often the text is read."""
    alpha: Rate = 0.05
    """Initial learning rate. From 4 copies on it falls by up to three tenths more than the schedule to min_alpha, as training
    gets older (infra/decisions/0015-age.md)."""
    min_alpha: float = Field(default_factory=lambda read: read.get("alpha", 0.05) / 10, ge=0, le=10)
    """A tenth of alpha if not given: better in few epochs than falling to zero (infra/decisions/0007-learning-rate.md)."""
    alpha_exponent: float = Field(0.3, ge=0, le=1)
    """For `engine: kernels`: the rate of a word's rows is α times a factor proportional to count**−p, 1 on average, where p grows
    from 0 towards this value as tokens are trained (infra/decisions/0015-age.md); 0 = α for every word, as in word2vec."""
    gradient: Literal["word2vec", "exact"] = "word2vec"
    """The step of each word of a context in cbow: word2vec = the whole gradient of their mean, as in word2vec and gensim; exact =
    its share of it, which needs a higher alpha."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """For `engine: layers`; the kernels use SGD by design."""
    batch_size: Positive = 100
    """For `engine: layers`."""
    deterministic: bool = True
    """true: workers whose results would differ in bits from the run's (another processor or version) are left out, and the run
    is refused if none remain. false: they train too, and the run notes it."""
    lanes: Chosen = 0
    """Stretches of an epoch trained side by side, on as many cores; part of the result. null = chosen from the corpus."""
    copies: Chosen = 0
    """Copies of the parameters, at least one per host, each trained by its lanes; null = one per lane up to 3 lanes and for
    skip-gram, otherwise two, or one if both matrices take more than 256 MB."""
    merge: Literal["adasum", "mean"] = "adasum"
    """adasum: row by row, changes on which lanes agree are averaged, orthogonal ones added, and opposing ones are projected off
    each other first (infra/decisions/0011-opposing-changes.md). mean: the average, which loses most of what was learnt."""
    merge_bits: Literal[8, 32] | None = None
    """Bits per number that copies exchange. 8: changes since the last merge, one byte per number, and only of rows that are due;
    32: whole rows. null = 8 if `copies` is set, which is for several hosts, otherwise 32 (infra/decisions/0028-eight-bits.md)."""
    merge_every: Positive | None = None
    """Kept tokens per copy between two merges of all rows; null = chosen from copies and corpus size."""
    hot_rows: Annotated[int, Field(ge=0)] | None = None
    """How many of the most frequent words are merged more often; null = chosen from copies and vocabulary."""
    hot_merge_every: Positive | None = None
    """Kept tokens per copy between two merges of the hot rows; null = chosen, growing as training gets older."""
    checkpoint_every: Annotated[int, Field(ge=1000, lt=2**63)] | None = None
    """Kept tokens per lane between two checkpoints; null = chosen from the vocabulary's size, at least one at the end."""
    start_from: str | None = None
    """A folder of vectors that training goes on from: words that it knows begin with their rows there, new ones with random
    numbers of their own. `w2v refresh` sets it to the last good vectors."""
    rehearse: float = Field(1.0, ge=0, le=1)
    """With start_from: the share of the text those vectors were trained on that each epoch after the first reads again. Every
    epoch reads all text that is new to them."""

    @model_validator(mode="after")
    def settings_fit_together(self) -> Train:
        if self.min_alpha > self.alpha:
            raise ValueError(f"min_alpha ({self.min_alpha:g}) is above alpha ({self.alpha:g})")
        if self.engine == "kernels" and self.optimizer != "sgd":
            raise ValueError("optimizer: adam needs engine: layers; the kernels are plain SGD")
        if self.engine == "layers" and (self.lanes > 1 or self.copies > 1):
            raise ValueError("engine: layers trains in one lane; set lanes: 1 or engine: kernels")
        if 0 < self.lanes < self.copies or (self.lanes and self.model == "skipgram" and self.copies not in (0, self.lanes)):
            raise ValueError(f"copies ({self.copies}), lanes ({self.lanes}): each copy needs a lane; skip-gram has one for each")
        if self.engine == "layers" and self.backend not in ("auto", "numpy"):
            raise ValueError(f"backend: {self.backend} is not read: train.engine is layers, which computes with NumPy; remove it")
        if self.engine == "layers" and self.start_from is not None:
            raise ValueError("engine: layers always starts anew; start_from needs engine: kernels")
        if self.start_from is None:
            refuse_unread(self, ("rehearse",), "train.start_from is not set")
        if self.engine == "kernels":
            refuse_unread(self, ("batch_size",), "train.engine is kernels")
        else:
            refuse_unread(self, ("alpha_exponent", "gradient", "checkpoint_every", *_OF_COPIES), "train.engine is layers")
        return self

    def unread_by_one_copy(self) -> list[str]:
        """The keys given that do nothing where a single copy of the parameters is trained."""
        return [f"train.{key}" for key in _OF_COPIES if key in self.model_fields_set]


class Evaluate(Section):
    SEVERAL = frozenset({"queries", "analogy_queries"})
    analogies: list[str] = Field(default_factory=list)
    """Files of questions `a b c d`, one a line, in sections that begin with `: name`, as in Google's questions-words.txt."""
    similarity: list[str] = Field(default_factory=list)
    """Files of two words and a score a line, with tabs, commas or spaces between, such as WordSim-353."""
    restrict_vocab: Positive = 30000
    """Analogies: only this many of the most frequent words are used in questions and as answers."""
    method: Literal["3cosadd", "3cosmul"] = "3cosadd"
    """Analogies: the sum of the cosines (as gensim and word2vec score), or their product."""
    case_insensitive: bool = True
    """true: a word that is not in the vocabulary as written stands for the most frequent word that differs only in case."""
    syntactic: str | None = None
    """Regular expression that matches the names of syntactic analogy sections; null = Google's and BATS's names."""
    queries: list[str] = Field(default_factory=list)
    """Words whose neighbours the report shows."""
    analogy_queries: list[str] = Field(default_factory=list)
    """Analogies the report answers, each `a:b=c` (a is to b as c is to …)."""

    @field_validator("syntactic")
    @classmethod
    def rule_is_a_regular_expression(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"not a regular expression ({error})") from None
        return value

    @field_validator("analogy_queries")
    @classmethod
    def queries_have_three_words(cls, value: list[str]) -> list[str]:
        for query in value:
            if not re.fullmatch(r"[^\s:=]+:[^\s:=]+=[^\s:=]+", query):
                raise ValueError(f"expected a:b=c, found {query!r}")
        return value


Format = Literal["word2vec-text", "word2vec-bin", "npy", "parquet", "safetensors", "tensorboard"]


class Publish(Section):
    formats: list[Format] = Field(["word2vec-bin"])
    """Files for other programs: word2vec-text (also fastText's .vec), word2vec-bin, npy, parquet, safetensors, tensorboard."""
    on_unwritable: Literal["refuse", "escape"] | None = None
    """A word that a format cannot hold (with a space, for word2vec formats): refuse the export, or write the word escaped and
    list the replacements; null = the format's default (all refuse, TensorBoard escapes)."""
    words: Positive | None = None
    """Export only this many of the most frequent words; null = all."""
    dtype: Literal["float32", "float16"] = "float32"
    """float16: half the size, for npy, parquet, safetensors and text; word2vec-bin has float32 only."""
    header: bool = True
    """false: word2vec-text without its first line, like GloVe's files."""
    counts: bool = False
    """true: with words' counts beside word2vec's files (vocab.txt) and in safetensors; the other formats always have them."""
    to: str | None = None
    """A place in a bucket to which the exports of every champion are uploaded, with `latest.json`, written last, naming them."""
    register_as: Annotated[str, spelled(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", f"at most 128 {_LABEL}")] | None = Field(
        None, alias="register"
    )
    """Name in MLflow's model registry; null = the vectors are logged, not registered."""
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, populate_by_name=True)

    @field_validator("to")
    @classmethod
    def to_is_in_a_bucket(cls, value: str | None) -> str | None:
        if value is not None and not is_address(value):
            raise ValueError("expected a place in a bucket: s3://…, gs://… or abfss://…")
        return None if value is None else _address(value, "publish.to")


class Tracking(Section):
    enabled: bool = True
    """false: nothing is reported to MLflow; the report and summary.json are still written."""
    uri: str | None = None
    """MLflow server (http/https) or sqlite:///…; null = an SQLite file in the workdir's parent."""
    experiment: str = Field("word2vec", min_length=1)
    """MLflow's experiment that the run belongs to."""
    required: bool = False
    """true: the run stops at its start if the tracking server cannot be reached."""
    textfile: str | None = None
    """File with the run's state in Prometheus's text format, for node_exporter's textfile collector; null = metrics.prom in the
    workdir."""

    @field_validator("uri")
    @classmethod
    def uri_is_supported(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://", "sqlite:///")):
            raise ValueError("expected http://…, https://… or sqlite:///…")
        if value is not None and not value.startswith("sqlite") and not has_host(value):
            raise ValueError("expected the name of a host, and optionally a port, after ://")
        return value


Fraction = Annotated[float, Field(ge=0, le=1)]


class Gates(Section):
    """Conditions that a challenger must meet before it replaces the champion; measured in infra/decisions/0022-refresh.md. Where
    it says so, null disables a gate."""

    score_tolerance: float = Field(0.05, ge=0, le=1)
    """The fraction of each of the champion's scores that may be lost."""
    coverage_tolerance: float = Field(0.02, ge=0, le=1)
    """How much the coverage of each set may fall (0.02 = two in a hundred questions)."""
    vocabulary: float = Field(0.95, ge=0, le=1)
    """Share of the champion's tokens whose words must still be known."""
    overlap: float = Field(0.2, ge=0, le=1)
    """Share of the ten nearest words of frequent words that must stay."""
    drift: Annotated[float, Field(ge=0, le=2)] | None = 0.5
    """How far the most frequent words may turn (median of 1 − cosine) if the frame is kept; null = any."""
    memory: Fraction | None = 0.95
    """Which word belongs in a window of the champion's text? The share of the champion's right answers beyond chance that must
    remain; null = any. Needs no question sets."""
    sense: Fraction | None = 0.7
    """The same question about the challenger's own text, relative to the champion on its own: near 0 for vectors trained on
    noise; null = any."""
    loss: Annotated[float, Field(ge=1)] | None = 1.25
    """The challenger's final loss may be at most this many times the champion's; null = any."""
    norm: Annotated[float, Field(ge=1)] | None = 3
    """How many times longer or shorter the vectors of frequent words may be (median); null = any."""


class Refresh(Section):
    """Settings of `w2v refresh`."""

    warm: bool = True
    """true: the challenger continues from the champion; false: it is trained from scratch, with the settings of `train`."""
    epochs: Positive = 2
    """As in `train`, for a challenger that continues from the champion; measured, as the four below, in
    infra/decisions/0022-refresh.md."""
    rehearse: float = Field(0.5, ge=0, le=1)
    """As in `train`."""
    alpha: Rate = 0.03
    """As in `train`."""
    min_alpha: float = Field(0.0125, ge=0, le=10)
    """As in `train`."""
    alpha_exponent: float = Field(0.6, ge=0, le=1)
    """As in `train`."""
    forget: bool = False
    """true: after text was changed or deleted the challenger is trained from scratch, because continuing from vectors trained on
    that text would keep traces of it."""
    align: bool = False
    """true: a challenger trained from scratch is rotated into the champion's frame, so that indexed vectors stay comparable."""
    keep: Positive = 5
    """How many snapshots are kept, including the champion."""
    on_finish: list[str] | None = None
    """A command and its arguments, run after every decision in the configuration's folder, with the refresh's JSON on standard
    input; its outcome changes nothing. If a refresh was killed before its command had ended, the next one runs it again."""
    on_finish_timeout_s: float = Field(60, gt=0)
    """How long that command may take before it is ended."""
    gates: Gates = Gates()

    @field_validator("on_finish", mode="before")
    @classmethod
    def a_command_line_is_split(cls, value: Any) -> Any:
        return shlex.split(value) if isinstance(value, str) else value

    @field_validator("on_finish")
    @classmethod
    def a_command_is_named(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and not value:
            raise ValueError("expected a command and its arguments, or null")
        return value

    @model_validator(mode="after")
    def alpha_falls(self) -> Refresh:
        if self.min_alpha > self.alpha:
            raise ValueError(f"min_alpha ({self.min_alpha:g}) is above alpha ({self.alpha:g})")
        return self
