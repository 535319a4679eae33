"""Settings as keyword arguments: `vector_size=100` for `train.vector_size`, or whole sections as mappings."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config import RunConfig, known_keys, load_config, parse_config
from pipeline.errors import ConfigError
from pipeline.options.other_names import hint, suggest


def configuration(inputs: Sequence[str], settings: Mapping[str, Any]) -> RunConfig:
    """The validated configuration of these inputs and settings. MLflow is not used unless a setting of `tracking` is given.
    Raises ConfigError."""
    given = in_sections(settings)
    if "inputs" in given.get("corpus", {}):
        raise ConfigError("corpus.inputs: sentences and paths are the first argument; give all of them there")
    given["corpus"] = given.get("corpus", {}) | {"inputs": list(inputs)}
    given["tracking"] = {"enabled": "tracking" in given} | given.get("tracking", {})
    config = parse_config(given, source="train(…)")
    if config.place:
        return config
    # The current folder may change while it trains.
    return config.model_copy(update={"run": config.run.model_copy(update={"workdir": str(config.workdir)})})


def overriding(path: str, settings: Mapping[str, Any]) -> RunConfig:
    """The configuration in a file, with these settings instead of its own. Raises ConfigError, InputError."""
    given = in_sections(settings).items()
    overrides = [f"{section}.{key}={json.dumps(value)}" for section, values in given for key, value in values.items()]
    return load_config(path, overrides)


def in_sections(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings as section → key → value. Raises ConfigError."""
    tree: dict[str, dict[str, Any]] = {}
    # `refresh` repeats names of `train`, and only `w2v refresh` reads it.
    known = [key for key in known_keys() if not key.startswith("refresh")]
    for name, value in settings.items():
        if name in known and value is None:
            continue
        if name in known and isinstance(value, Mapping):
            tree[name] = tree.get(name, {}) | dict(value)
            continue
        if name in known:
            raise ConfigError(
                f"{name}: expected settings, such as {name}={{{_first_key(name, known)!r}: …}}, found {value!r:.60}"
            )
        section, _, key = _key_of(name, known).partition(".")
        if callable(value):
            way_out = "; name one, 'package.module:factory', or split the text yourself: train(map(split, lines))"
            raise ConfigError(
                f"{name}: expected a value that can be written in a file, found {value!r:.60}"
                + (way_out if key == "tokenizer" else "")
            )
        tree.setdefault(section, {})[key] = os.fspath(value) if isinstance(value, os.PathLike) else value
    return tree


def _first_key(section: str, known: Sequence[str]) -> str:
    return next(key.partition(".")[2] for key in known if key.startswith(f"{section}."))


def _key_of(name: str, known: Sequence[str]) -> str:
    """The `section.key` of a setting given by its last name."""
    found = [key for key in known if key == name or key.rpartition(".")[2] == name]
    found = [key for key in found if "." in key]
    if len(found) == 1:
        return found[0]
    if found:
        sections = " or ".join(f"{key.partition('.')[0]}={{{name!r}: …}}" for key in found)
        raise ConfigError(f"{name}: several sections have a setting of this name; write {sections}")
    if name == "refresh":
        raise ConfigError("refresh: only `w2v refresh` reads these settings; write them in its configuration file")
    near = suggest(name, known)
    if near == "corpus.inputs":
        raise ConfigError(f"{name}: unknown setting; sentences and paths are the first argument")
    raise ConfigError(f"{name}: unknown setting" + (f"; {hint(_without_section(near))}" if near else ""))


def _without_section(near: str) -> str:
    """The suggestion without sections that are not needed here, since no other section has a setting of that name."""
    return re.sub(r"\b(?:corpus|vocab|shards|train|run)\.(\w+)", r"\1", near)
