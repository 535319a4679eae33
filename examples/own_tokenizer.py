"""Train with your own tokenizer: camelCase names are split into their words.

In a program, tokenize the text yourself and pass the sentences to `train`. For `w2v run`, a tokenizer is a factory that the
configuration names, `tokenize: {tokenizer: "own_tokenizer:factory"}`, and that every worker can import.

    python examples/own_tokenizer.py FILE.py…
"""

import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline import train

PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def tokens_of(line: str) -> list[str]:
    """The parts of every name in the line, lower-cased: getHTTPResponse → get http response."""
    return [part.lower() for part in PART.findall(line)]


def factory() -> Callable[[list[str]], list[list[str]]]:
    """A function from lines to the words of each line, for `tokenize.tokenizer`."""
    return lambda lines: [tokens_of(line) for line in lines]


def sentences(paths: list[str]) -> Iterator[list[str]]:
    for path in paths:
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            if found := tokens_of(line):
                yield found


if __name__ == "__main__":  # so that workers can import this file for its factory
    if not sys.argv[1:]:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        model = train(sentences(sys.argv[1:]), workdir=f"{folder}/run", vector_size=50, epochs=20, min_count=2)
        print(model)
        print("self →", ", ".join(found for found, _ in model.most_similar("self", topn=5)))
