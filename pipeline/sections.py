"""The sections of a configuration, one a stage: every key with its type, its default and its meaning.

Names follow gensim where gensim has a name. A value that cannot be used, or a key that nothing would read, is an error with the
way out; config.py puts the sections together and reads them from files.
"""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from pipeline.errors import ConfigError
from pipeline.options.section import Section as Section
from pipeline.options.section import refuse_unread
from pipeline.options.storage import Storage as Storage
from pipeline.options.text import Corpus as Corpus
from pipeline.options.text import Tokenize as Tokenize
from pipeline.safety.values import has_host
from pipeline.storage.addresses import is_address, parse_address

Positive = Annotated[int, Field(ge=1, lt=2**63)]
Chosen = Annotated[int, BeforeValidator(lambda value: 0 if value is None else value), Field(ge=0, le=1024)]
Rate = Annotated[float, Field(gt=0, le=10)]


class Run(Section):
    name: str = Field("word2vec", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Label of the run; also the default workdir's name."""
    workdir: str | None = None
    """Folder of every artefact, or a place in a bucket (s3://…, gs://…, abfss://…); null = `runs/<name>` beside the configuration
    file."""
    seed: int = Field(1, ge=0, lt=2**63)

    @field_validator("workdir")
    @classmethod
    def workdir_is_a_folder_or_in_a_bucket(cls, value: str | None) -> str | None:
        return _address(value, "run.workdir") if value is not None and is_address(value) else value


def _address(value: str, key: str) -> str:
    """The address as it is written here; raises ValueError for one that cannot be meant."""
    try:
        return str(parse_address(value, key))
    except ConfigError as error:
        raise ValueError(str(error).removeprefix(f"{key}: ")) from None


class Vocab(Section):
    min_count: Positive = 5
    max_size: Annotated[int, Field(ge=2, lt=2**31)] | None = None
    ns_exponent: float = Field(0.75, ge=-2, le=2)


class Shards(Section):
    window: int = Field(5, ge=1, le=255)
    shrink_windows: bool = True
    """true: each target draws its width from 1..window, as word2vec does; false: always `window`."""
    sample: Annotated[float, Field(ge=0, le=1)] | None = None
    """Subsampling threshold of frequent words; 0 = keep every token; null = by the corpus's size: 1e-4 from a million tokens on,
    more for smaller ones, which have none to spare (w2v_core/windows.py)."""


_OF_COPIES = ("merge", "merge_every", "hot_rows", "hot_merge_every")
"""Keys of `train` that say how copies are merged."""


class Train(Section):
    model: Literal["cbow", "skipgram"] = "cbow"
    engine: Literal["kernels", "layers"] = "kernels"
    backend: Literal["auto", "numba", "numpy", "cupy"] = "auto"
    vector_size: int = Field(100, ge=1, le=4096)
    negative: int = Field(5, ge=1, le=64)
    epochs: int = Field(5, ge=1, le=100_000)
    alpha: Rate = 0.05
    """At the start. From 4 copies on it loses up to three tenths more than the way to min_alpha, as training gets older
    (infra/decisions/0015-age.md)."""
    min_alpha: float = Field(default_factory=lambda read: read.get("alpha", 0.05) / 10, ge=0, le=10)
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
    lanes: Chosen = 0
    """Stretches of an epoch trained side by side, by as many cores; part of the result. null = follows from the corpus."""
    copies: Chosen = 0
    """Of the parameters, one a host at least, each trained by its lanes; null = two from 4 lanes on, one if both matrices have
    more than 256 MB, skip-gram one a lane."""
    merge: Literal["adasum", "mean"] = "adasum"
    """adasum: row by row, what lanes agree on is averaged, the rest added, and changes that oppose each other are freed from
    each other first (infra/decisions/0011-opposing-changes.md). mean: the average, which loses most of what was learnt."""
    merge_every: Positive | None = None
    """Kept tokens a copy between two merges of all rows; null = chosen from copies and corpus size."""
    hot_rows: Annotated[int, Field(ge=0)] | None = None
    """How many of the most frequent words are merged more often; null = chosen from copies and vocabulary."""
    hot_merge_every: Positive | None = None
    """Kept tokens a copy between two merges of the hot rows; null = chosen, and grows as training gets older."""
    checkpoint_every: Annotated[int, Field(ge=1000, lt=2**63)] | None = None
    """Kept tokens a lane between two checkpoints; null = chosen from the vocabulary's size, at least one at the end."""
    start_from: str | None = None
    """A folder of vectors that training goes on from: words that it knows begin with their rows there, new ones with random
    numbers of their own. `w2v refresh` sets it to the last good vectors."""

    @model_validator(mode="after")
    def settings_fit_together(self) -> Train:
        if self.min_alpha > self.alpha:
            raise ValueError(f"min_alpha ({self.min_alpha:g}) is above alpha ({self.alpha:g})")
        if self.engine == "kernels" and self.optimizer != "sgd":
            raise ValueError("optimizer: adam needs engine: layers; the kernels are plain SGD")
        if self.engine == "layers" and (self.lanes > 1 or self.copies > 1):
            raise ValueError("engine: layers trains in one lane; set lanes: 1 or engine: kernels")
        if 0 < self.lanes < self.copies or (self.model == "skipgram" and self.copies not in (0, self.lanes)):
            raise ValueError(f"copies ({self.copies}), lanes ({self.lanes}): each copy needs a lane; skip-gram has one for each")
        if self.engine == "layers" and self.backend not in ("auto", "numpy"):
            raise ValueError(f"backend: {self.backend} is not read: train.engine is layers, which computes with NumPy; remove it")
        if self.engine == "layers" and self.start_from is not None:
            raise ValueError("engine: layers always starts anew; start_from needs engine: kernels")
        if self.engine == "kernels":
            refuse_unread(self, ("batch_size",), "train.engine is kernels")
        else:
            refuse_unread(self, ("alpha_exponent", "gradient", "checkpoint_every", *_OF_COPIES), "train.engine is layers")
        return self


class Evaluate(Section):
    analogies: list[str] = Field(default_factory=list)
    similarity: list[str] = Field(default_factory=list)
    restrict_vocab: Positive = 30000
    """Analogies: only the first so many words are asked about and can be answers."""
    method: Literal["3cosadd", "3cosmul"] = "3cosadd"
    """Analogies: the sum of the cosines (as gensim and word2vec score), or their product."""
    case_insensitive: bool = True
    """true: a word that is not in the vocabulary as it is written stands for the most frequent one that differs in case only."""
    syntactic: str | None = None
    """Regular expression, found in the names of analogy sections that ask about grammar; null = Google's and BATS's."""
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
    on_unwritable: Literal["refuse", "escape"] | None = None
    """A word that a format cannot hold (a space in word2vec formats): refuse the export, or write it escaped and list what
    stands for what; null = each format's own way (all refuse, TensorBoard escapes)."""
    words: Positive | None = None
    """Export only the first, most frequent so many words; null = all."""
    dtype: Literal["float32", "float16"] = "float32"
    """float16: half the size, for npy, parquet, safetensors and text; word2vec-bin has float32 only."""
    header: bool = True
    """false: word2vec-text without its first line, as GloVe's files are."""
    counts: bool = False
    """true: words' counts beside word2vec's files (vocab.txt) and in safetensors; the other formats have them always."""
    to: str | None = None
    """A place in a bucket that gets the exports of every result that answers, `latest.json` last, which names them."""
    register_as: str | None = Field(None, alias="register", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    """Name in MLflow's model registry; null = the vectors are logged, not registered."""
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, populate_by_name=True)

    @field_validator("to")
    @classmethod
    def to_is_in_a_bucket(cls, value: str | None) -> str | None:
        return None if value is None else _address(value, "publish.to")


class Tracking(Section):
    enabled: bool = True
    """false: nothing is told to MLflow; the report and summary.json are written all the same."""
    uri: str | None = None
    """MLflow server (http/https) or sqlite:///…; null = an SQLite file in the workdir's parent."""
    experiment: str = Field("word2vec", min_length=1)
    required: bool = False
    """true: a tracking server that cannot be reached stops the run at its start."""
    textfile: str | None = None
    """File of the run's state in Prometheus's text format, for node_exporter's textfile collector; null = metrics.prom in the
    workdir."""

    @field_validator("uri")
    @classmethod
    def uri_is_supported(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://", "sqlite:///")):
            raise ValueError("expected http://…, https://… or sqlite:///…")
        if value is not None and not value.startswith("sqlite") and not has_host(value):
            raise ValueError("expected the name of a host, and perhaps a port, behind ://")
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
    dashboard: bool = True
    """true: Dask's own pages of the run are there for who has the password, which `w2v run` and `w2v ui` print; they are made
    when they are first asked for. false: there are none."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The vendor's own keyword arguments, passed through untouched."""
    tls: Tls | None = None

    @model_validator(mode="after")
    def address_when_needed(self) -> Cluster:
        if self.kind == "address" and not self.address:
            raise ValueError("kind: address needs cluster.address (tcp://host:port or tls://host:port)")
        if self.kind != "address" and self.address:
            raise ValueError(f"cluster.address is only read with kind: address, found kind: {self.kind}")
        if self.kind == "local" and self.tls:
            raise ValueError("cluster.tls is for clusters of several machines, found kind: local; remove it or set kind")
        if self.kind in ("address", "ssh"):
            has_its_own = "cluster.kind is address, whose workers are there" if self.kind == "address" else (
                "cluster.kind is ssh, which starts cluster.options: {hosts: […], n_workers: of each host}"
            )  # fmt: skip
            refuse_unread(self, ("n_workers",), has_its_own)
        if self.kind == "address":
            refuse_unread(self, ("options",), "cluster.kind is address, which starts nothing")
        if self.kind == "ssh" and not self.options.get("hosts"):
            raise ValueError("kind: ssh needs cluster.options: {hosts: [scheduler, worker, …]}")
        if self.kind == "kubernetes" and not self.options.keys() & {"image", "name", "custom_cluster_spec"}:
            raise ValueError(
                "kind: kubernetes needs cluster.options: {image: …} with this program in it, {name: …} of a cluster that is "
                "there, or {custom_cluster_spec: …}"
            )
        return self


Fraction = Annotated[float, Field(ge=0, le=1)]


class Gates(Section):
    """What a challenger must hold before it replaces the champion; measured in infra/decisions/0022-refresh.md. Where it says so,
    null leaves a gate open."""

    score_tolerance: float = Field(0.05, ge=0, le=1)
    """The part of each of the champion's scores that may be lost."""
    coverage_tolerance: float = Field(0.02, ge=0, le=1)
    """How much less of each set may be covered (0.02 = two in a hundred questions)."""
    vocabulary: float = Field(0.95, ge=0, le=1)
    """Share of the champion's tokens whose words must still be known."""
    overlap: float = Field(0.3, ge=0, le=1)
    """Share of the ten nearest words of frequent words that must stay."""
    drift: Annotated[float, Field(ge=0, le=2)] | None = 0.5
    """How far the most frequent words may turn (median of 1 − cosine) where the frame is kept; null = as far as they like."""
    memory: Fraction | None = 0.95
    """Which word stands in a window of the champion's text? Of the champion's right answers beyond chance, the share that must
    stay; null = any. Needs no set of questions."""
    sense: Fraction | None = 0.7
    """The same question about the challenger's own text, beside the champion and its own: what was learnt from noise is near 0;
    null = any."""
    loss: Annotated[float, Field(ge=1)] | None = 1.25
    """How many times the champion's final loss may be the challenger's; null = any."""
    norm: Annotated[float, Field(ge=1)] | None = 3
    """How many times longer or shorter the vectors of frequent words may be (median); null = any."""


class Refresh(Section):
    """Of `w2v refresh`."""

    warm: bool = True
    """true: the challenger goes on from the champion; false: it is trained anew, by the settings of `train`."""
    epochs: Positive = 2
    alpha: Rate = 0.03
    min_alpha: float = Field(0.0125, ge=0, le=10)
    alpha_exponent: float = Field(0.5, ge=0, le=1)
    """As those of `train`, for a challenger that goes on from the champion; measured in infra/decisions/0022-refresh.md."""
    forget: bool = False
    """true: after text was changed or deleted the challenger is trained anew, because one that goes on from vectors that had
    learnt from the text carries traces of it."""
    align: bool = False
    """true: a challenger that was trained anew is turned into the champion's frame, so that indexed vectors stay comparable."""
    keep: Positive = 5
    """How many snapshots stay, the champion among them."""
    on_finish: list[str] | None = None
    """A command and its arguments, run after every decision with the refresh's JSON on standard input; what it does changes
    nothing."""
    on_finish_timeout_s: float = Field(60, gt=0)
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
