"""The state of a run in Prometheus's text format, for monitoring with Grafana: a file that is replaced every two seconds.

node_exporter's textfile collector reads such files (`--collector.textfile.directory`); `tracking.textfile` sets the path, by
default `<workdir>/metrics.prom`. `infra/grafana/w2v.json` is a dashboard over these names. A file that cannot be written is a
note: monitoring never stops a run.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import told_of_file
from pipeline.report.results import evaluation_rows, get, is_number, mapping
from pipeline.safety.files import MAX_JSON_BYTES, read_bounded
from pipeline.safety.outputs import target_of

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.training.history import RoundRecord
    from pipeline.training.live import Live

EVERY_S = 2.0
NAME = "metrics.prom"
_SEAL = "# sha256 of the lines above: "
FAMILIES: dict[str, tuple[str, str]] = {
    "w2v_run_state": ("gauge", "1 for the state the run is in: running, complete, failed."),
    "w2v_run_started_seconds": ("gauge", "When the run began, seconds since 1970."),
    "w2v_last_success_seconds": ("gauge", "When a run of this workdir last completed, seconds since 1970."),
    "w2v_updated_seconds": ("gauge", "When this file was written, seconds since 1970."),
    "w2v_stage_seconds": ("gauge", "Seconds a stage took; about 0 if its artefact was reused."),
    "w2v_corpus_tokens": ("gauge", "Tokens of the corpus."),
    "w2v_vocabulary_words": ("gauge", "Words in the vocabulary."),
    "w2v_epoch": ("gauge", "Current epoch of training, from 1."),
    "w2v_kept_tokens_total": ("counter", "Tokens kept by subsampling and trained so far."),
    "w2v_loss": ("gauge", "Mean loss per target over the last stretch, nats."),
    "w2v_alpha": ("gauge", "Learning rate."),
    "w2v_lane_spread": ("gauge", "Standard deviation of the lanes' losses, nats."),
    "w2v_raw_tokens_per_second": ("gauge", "Raw tokens trained per second, all lanes."),
    "w2v_merge_seconds_total": ("counter", "Seconds spent merging so far."),
    "w2v_score": ("gauge", "Scores of the vectors: fractions from 0 to 1, correlations from -1 to 1."),
    "w2v_score_coverage": ("gauge", "Share of a test whose words are all in the vocabulary."),
    "w2v_worker_cpu_percent": ("gauge", "Processor time of a worker, percent of one core."),
    "w2v_worker_memory_bytes": ("gauge", "Resident memory of a worker."),
    "w2v_worker_tokens_per_second": ("gauge", "Kept tokens per second of a worker's lanes."),
    "w2v_worker_waiting_ratio": ("gauge", "Share of the round in which a worker merged or waited for others."),
    "w2v_worker_gpu_memory_bytes": ("gauge", "Memory in use on a worker's GPU."),
}
"""Every metric with its type and meaning; every sample has the label `run` besides its own."""

Labels = tuple[tuple[str, str], ...]


@dataclass
class TextFile:
    """The samples of a run; written when `EVERY_S` have passed since the last time."""

    path: Path
    run: str
    named: bool = False
    """Whether a person named the path, who may have made it a link to where the file is to be."""
    samples: dict[str, dict[Labels, float]] = field(default_factory=dict)
    problem: str | None = None
    """Why it could not be written the last time."""
    _written: float = -math.inf

    def set(self, name: str, value: object, **labels: object) -> None:
        """Sets a sample; a value that is not a finite number is left out."""
        if name not in FAMILIES:
            raise ValueError(f"expected a name of textfile.FAMILIES, found {name!r}; add it there with its meaning")
        if is_number(value):
            self.samples.setdefault(name, {})[tuple((key, str(label)) for key, label in labels.items())] = float(value)

    def state(self, state: str) -> None:
        self.samples.pop("w2v_run_state", None)
        self.set("w2v_run_state", 1, state=state)
        self.write()

    def write_if_due(self) -> None:
        if time.monotonic() - self._written >= EVERY_S:
            self.write()

    def write(self) -> None:
        self._written = time.monotonic()
        self.set("w2v_updated_seconds", time.time())
        text = "".join(self._lines())
        self.problem, temporary = None, None
        try:
            target = target_of(self.path) if self.named else self.path
            temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
            with open(temporary, "x", encoding="utf-8") as file:
                file.write(f"{text}{_sealing(text)}")
            os.replace(temporary, target)
        except OSError as error:
            self.problem = f"{self.path}: cannot be written ({error.strerror}); what watches the run does not see it"
        finally:
            # On a full disk it would be one more every two seconds, in a folder that may not be the workdir.
            with suppress(OSError):
                if temporary:
                    temporary.unlink(missing_ok=True)

    def _lines(self) -> Iterator[str]:
        for name, (kind, meaning) in FAMILIES.items():
            if name not in self.samples:
                continue
            yield f"# HELP {name} {meaning}\n# TYPE {name} {kind}\n"
            for labels, value in self.samples[name].items():
                shown = ",".join(f'{key}="{_label(label)}"' for key, label in (("run", self.run), *labels))
                yield f"{name}{{{shown}}} {value!r}\n"


def _sealing(text: str) -> str:
    return f"{_SEAL}{hashlib.sha256(text.encode()).hexdigest()}\n"


def textfile_damage(path: Path) -> tuple[int, list[str]]:
    """(files checked, problems found) for the text file of the last run."""
    try:
        text, mark, digest = read_bounded(path, MAX_JSON_BYTES).decode().rpartition(_SEAL)
    except FileNotFoundError:
        return 0, []
    except (OSError, ValueError) as error:
        return 1, [told_of_file(error, path, "; the next run rewrites it")]
    whole = f"{mark}{digest}" == _sealing(text) and not path.is_symlink()
    return 1, [] if whole else [f"{path}: its content changed (SHA-256 differs); the next run rewrites it"]


def open_textfile(config: RunConfig) -> TextFile:
    """The text file of a run that begins, which keeps the time of the last success."""
    named = config.tracking.textfile
    path = Path(named) if named else config.workdir / NAME
    found = TextFile(path, config.run.name, named=bool(named))
    found.set("w2v_last_success_seconds", _last_success(path))
    found.set("w2v_run_started_seconds", time.time())
    return found


def _last_success(path: Path) -> float | None:
    with suppress(OSError, ValueError):
        for line in read_bounded(path, MAX_JSON_BYTES).decode().splitlines():
            if line.startswith("w2v_last_success_seconds{"):
                return float(line.rpartition(" ")[2])
    return None


def note_live(file: TextFile, live: Live) -> None:
    """Sets the samples of a running round."""
    file.set("w2v_epoch", live.epoch + 1)
    file.set("w2v_kept_tokens_total", live.kept_tokens)
    file.set("w2v_raw_tokens_per_second", live.raw_tokens_per_s)
    for point in live.points[-1:]:
        for name, value in (("w2v_loss", point.loss), ("w2v_alpha", point.alpha), ("w2v_lane_spread", point.spread)):
            file.set(name, value)
    for load in live.loads:
        for name, value in (
            ("cpu_percent", load.cpu_percent), ("memory_bytes", load.memory_bytes), ("tokens_per_second", load.tokens_per_s),
            ("waiting_ratio", load.waiting_share), ("gpu_memory_bytes", load.gpu_memory_bytes),
        ):  # fmt: skip
            file.set(f"w2v_worker_{name}", value, worker=load.worker)
    file.write_if_due()


def note_round(file: TextFile, record: RoundRecord, kept_tokens: int, merge_seconds: float) -> None:
    """Sets the samples of a finished round; `kept_tokens` and `merge_seconds` count the whole training so far."""
    file.set("w2v_epoch", record.epoch + 1)
    file.set("w2v_kept_tokens_total", kept_tokens)
    file.set("w2v_loss", record.loss)
    file.set("w2v_alpha", record.alpha)
    file.set("w2v_raw_tokens_per_second", record.raw_tokens / max(record.seconds, 1e-9))
    file.set("w2v_merge_seconds_total", merge_seconds)
    file.write_if_due()


def note_summary(file: TextFile, summary: Mapping[str, Any]) -> None:
    """Sets the samples of a complete run."""
    for stage, row in mapping(summary, "stages").items():
        file.set("w2v_stage_seconds", get(row, "seconds"), stage=stage)
    file.set("w2v_corpus_tokens", get(summary, "corpus.tokens"))
    file.set("w2v_vocabulary_words", get(summary, "vocab.size"))
    file.set("w2v_kept_tokens_total", get(summary, "train.kept_tokens"))
    file.set("w2v_merge_seconds_total", get(summary, "train.merge_seconds"))
    for test, measure, score, coverage in evaluation_rows(summary):
        file.set("w2v_score", score, test=test, measure=measure)
        file.set("w2v_score_coverage", coverage, test=test, measure=measure)
    file.set("w2v_last_success_seconds", time.time())
    file.state("complete")


def _label(value: str) -> str:
    whole = value.encode("utf-8", "backslashreplace").decode()
    return whole.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
