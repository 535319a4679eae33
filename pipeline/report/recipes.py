"""How to use finished vectors, as commands ready to copy: the command line, Python, gensim, HTTP.

A word of the corpus that appears in a command is quoted for the shell or Python, so that copying it runs nothing.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from pipeline.errors import printable
from pipeline.report.results import Summary, get, mapping

LONGEST_LINE = 600


def recipes(summary: Summary, config: str = "CONFIG") -> list[tuple[str, list[str]]]:
    """(title, lines) of each way; empty if there are no vectors."""
    if not get(summary, "vectors.path"):
        return []
    return [(title, [printable(line, LONGEST_LINE) for line in lines]) for title, lines in _ways(summary, config)]


def _ways(summary: Summary, config: str) -> Iterator[tuple[str, list[str]]]:
    folder, name = str(get(summary, "vectors.path")), get(summary, "config.publish.register")
    word = str(next(iter(mapping(summary, "neighbours")), "word"))
    lines = (f"query similar {config} {shlex.quote(word)}", f"export {config} DIR -f word2vec-bin", f"ui {config}")
    yield "On the command line", [f"w2v {line}" for line in lines]
    load = f"vectors = WordVectors.load({folder!r})"
    yield "In Python", ["from w2v_core.vectors import WordVectors", load, f"vectors.most_similar({word!r})"]
    if files := get(summary, "exports.word2vec-bin"):
        load = f"KeyedVectors.load_word2vec_format({str(files[0])!r}, binary=True)"
        yield "In gensim", ["from gensim.models import KeyedVectors", load]
    if name:
        body = json.dumps({"inputs": [word], "params": {"ask": "similar", "topn": 5}})
        ask = f"curl localhost:5000/invocations -H 'Content-Type: application/json' -d {shlex.quote(body)}"
        yield "Over HTTP", [f"mlflow models serve -m models:/{name}@champion --env-manager local", ask]
