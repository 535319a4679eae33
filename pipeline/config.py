"""A run's configuration: one YAML file is one complete run, with one section per stage; every key is checked before work starts.

`load_config(path, overrides)` returns a frozen `RunConfig` or raises one `ConfigError` that lists every wrong key. Names follow
gensim where gensim has a name. Unknown keys are errors (with the nearest known key), because a misspelt `negatve: 20` that is
silently ignored costs a night of training.
"""

from __future__ import annotations

import hashlib
import os
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, PrivateAttr, ValidationError

from pipeline.errors import ConfigError, InputError, printable, without_credentials
from pipeline.options.other_names import hint, suggest
from pipeline.options.paths import anchored, at_home, explain_moved, portable, refuse_variables
from pipeline.options.problems import meant, wrong_value
from pipeline.safety.files import read_bounded
from pipeline.safety.seals import canonical_json
from pipeline.safety.values import why_unwritable
from pipeline.safety.yaml_values import MAX_BYTES, BadYamlError, parse_yaml
from pipeline.sections import (
    Cluster as Cluster,
)
from pipeline.sections import (
    Corpus as Corpus,
)
from pipeline.sections import (
    Evaluate as Evaluate,
)
from pipeline.sections import (
    Gates as Gates,
)
from pipeline.sections import (
    Publish as Publish,
)
from pipeline.sections import (
    Refresh as Refresh,
)
from pipeline.sections import (
    Run as Run,
)
from pipeline.sections import (
    Section as Section,
)
from pipeline.sections import (
    Shards as Shards,
)
from pipeline.sections import (
    Storage as Storage,
)
from pipeline.sections import (
    Tls as Tls,
)
from pipeline.sections import (
    Tokenize as Tokenize,
)
from pipeline.sections import (
    Tracking as Tracking,
)
from pipeline.sections import (
    Train as Train,
)
from pipeline.sections import (
    Vocab as Vocab,
)
from pipeline.storage.addresses import Address, is_address, parse_address
from pipeline.storage.copies import copy_folder

_SHOWN, _PROBLEMS_SHOWN, _DEEPEST_KEY = 80, 20, 8
"""Limits: characters of a wrong value in a message, problems listed in one message, parts of the longest key."""


class RunConfig(Section):
    run: Run = Run()
    corpus: Corpus
    tokenize: Tokenize = Tokenize()
    vocab: Vocab = Vocab()
    shards: Shards = Shards()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    publish: Publish = Publish()
    refresh: Refresh = Refresh()
    tracking: Tracking = Tracking()
    cluster: Cluster = Cluster()
    storage: Storage = Storage()
    _folder: Path | None = PrivateAttr(None)
    """Folder of the file it was read from."""

    @property
    def folder(self) -> Path | None:
        """The folder of the file it was read from."""
        return self._folder

    @property
    def place(self) -> Address | None:
        """The workdir's address in a bucket; None if it is a folder."""
        workdir = self.run.workdir
        return parse_address(workdir, "run.workdir") if workdir and is_address(workdir) else None

    @property
    def workdir(self) -> Path:
        """The workdir; for one in a bucket, this machine's copy of it."""
        if self.place:
            return copy_folder(self.place, self.storage)
        default = (self._folder or Path()) / "runs" / self.run.name
        return Path(os.path.abspath(self.run.workdir or default))

    def told(self) -> dict[str, Any]:
        """The settings as summaries and reports show them: without those that may hold a secret, which are where tracking goes,
        the free-form options of a cluster, and the command that is run after a refresh."""
        left_out: dict[str, Any] = {"tracking": True, "cluster": {"options"}, "refresh": {"on_finish"}}
        return self.model_dump(mode="json", by_alias=True, exclude=left_out)

    @property
    def digest(self) -> str:
        """Hash of everything that decides the results, without where it runs and how it is tracked."""
        left_out: dict[str, Any] = {
            "tracking": True,
            "cluster": True,
            "storage": True,
            "refresh": True,
            "train": {"deterministic"},
            "publish": {"to"},
        }
        fields = self.model_dump(mode="json", by_alias=True, exclude=left_out)
        fields["run"] = {"seed": self.run.seed}
        if self._folder is not None:
            fields = portable(fields, self._folder)
        if self.train.start_from is None:
            del fields["train"]["start_from"], fields["train"]["rehearse"]
        return hashlib.sha256(canonical_json(fields)).hexdigest()


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The validated configuration in YAML file `path` with `section.key=value` overrides; raises ConfigError or InputError."""
    tree, folder = read_yaml(Path(path)), Path(path).parent
    if reason := why_unwritable(os.path.abspath(path)):
        raise InputError(f"{path}: the path of the configuration {reason}")
    # Absolute, because workers that others have started have current folders of their own.
    config = parse_config(anchored(tree, Path(os.path.abspath(folder))), overrides, source=str(path))
    if config.place and config.tracking.uri is None:
        # The local copy of a workdir in a bucket is not permanent.
        uri = f"sqlite:///{os.path.abspath(folder)}/runs/mlflow.db"
        config = config.model_copy(update={"tracking": config.tracking.model_copy(update={"uri": uri})})
    config._folder = Path(os.path.abspath(folder))
    overridden = {override.partition("=")[0].strip() for override in overrides}
    explain_moved(tree, folder, config.workdir, config.run.name, overridden)
    return config


def parse_config(tree: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "configuration") -> RunConfig:
    """As load_config, from a mapping that has already been read."""
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{source}: expected sections such as `corpus:`, found {type(tree).__name__}")
    merged = {key: dict(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
    for override in overrides:
        _apply_override(merged, override)
    merged = at_home(merged)
    refuse_variables(merged)
    # An empty section (`publish:` alone) is YAML null; read it as "all defaults".
    merged = {key: {} if value is None and key in RunConfig.model_fields else value for key, value in merged.items()}
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        # A default that depends on another key is not the problem when that other key is wrong.
        found = [problem for problem in error.errors(include_url=False) if problem["type"] != "default_factory_not_called"]
        count = f"{len(found):,} problem{'s' if len(found) > 1 else ''}"
        problems = [_explain(problem) for problem in found[:_PROBLEMS_SHOWN]]
        rest = [f"and {len(found) - len(problems):,} more"] if len(found) > len(problems) else []
        raise ConfigError("\n  ".join([f"{source}: {count} in the configuration", *problems, *rest])) from None
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise ConfigError(f"{source}: cannot be read as a configuration ({type(error).__name__}: {_shown(error)})") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises InputError if it cannot be read, ConfigError if it is not a mapping."""
    try:
        text = read_bounded(path, MAX_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        way_out = "settings follow the file" if "=" in path.name else "give the path of a YAML file"
        raise InputError(f"{path}: cannot read the configuration ({reason}); {way_out}") from None
    try:
        tree = parse_yaml(text)
    except BadYamlError as error:
        raise ConfigError(f"{path}: {printable(str(error), 400)}") from None
    if not isinstance(tree, dict):
        found = {type(None): "nothing", str: "text", list: "a list"}.get(type(tree), _shown(tree))
        raise ConfigError(f"{path}: expected sections such as `corpus:`, found {found}")
    return tree


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    parts, shown = key.split("."), _shown(override)
    if not equals or not 2 <= len(parts) <= _DEEPEST_KEY or not all(parts):
        known = [name for name in known_keys() if not name.startswith("refresh")]
        near = suggest(key, known) if equals else None
        way = "for example train.epochs=3"
        if near in RunConfig.model_fields:
            way = f"for example {next(name for name in known if name.startswith(f'{near}.'))}=…"
        elif near:
            way = hint(near if " " in near else f"{near}=…")
        raise ConfigError(f"{shown}: an override is section.key=value; {way}")
    if reason := why_unwritable(value):
        raise ConfigError(f"{shown}: {reason}")
    node = tree
    for part in parts[:-1]:
        child = node.get(part)
        node[part] = dict(child) if isinstance(child, Mapping) else {}
        node = node[part]
    try:
        node[parts[-1]] = parse_yaml(value)
    except BadYamlError as error:
        plain = value.isprintable() and not set(value) & set("'\"\\")
        way = ": " + _shown(f'{key}="{value}"') if plain else ""
        raise ConfigError(f"{shown}: {printable(str(error), 200)}; quote the value if it is text{way}") from None


def _explain(problem: Mapping[str, Any]) -> str:
    """One line about one wrong key: where, what is wrong, what was found."""
    key = printable(".".join(str(part) for part in problem["loc"]))
    if problem["type"] == "extra_forbidden" and problem["loc"][-1] == "<<":
        return f"{key}: YAML's merge key is not read; write the keys out"
    if problem["type"] == "extra_forbidden":
        near = suggest(key, list(known_keys()))
        return f"{key}: unknown key" + (f"; {hint(near)}" if near else "")
    if problem["type"] == "missing":
        return f"{key}: missing; this key has no default"
    found = problem.get("input")
    if problem["type"] == "string_type" and isinstance(found, bool | int | float):
        return f"{key}: expected text (found {_shown(found)}); quote it"
    text = printable(wrong_value(problem), 300)
    shown = "" if isinstance(found, (dict, BaseModel)) or ", found " in text else f" (found {_shown(found)})"
    return f"{key}: {text}{shown}{printable(meant(problem), _SHOWN)}"


def _shown(value: object) -> str:
    """A value from outside, as YAML writes it, short and safe to print."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = _SHOWN
    return printable(short.repr(without_credentials(value) if isinstance(value, str) else value), _SHOWN + 20)


def known_keys() -> Iterator[str]:
    """Every `section` and `section.key` that exists."""
    for name, field in RunConfig.model_fields.items():
        yield name
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            for key, inner in section.model_fields.items():
                yield f"{name}.{inner.alias or key}"
