"""Train on docstrings, those of the modules that this program has imported, and show neighbours. Takes two seconds.

python examples/train_from_python.py
"""

import inspect
import string
import sys
import tempfile

from pipeline import train

words = str.maketrans(string.punctuation, " " * len(string.punctuation))
docstrings = [inspect.getdoc(found) or "" for module in list(sys.modules.values()) for found in vars(module).values()]
sentences = [line.lower().translate(words).split() for text in docstrings for line in text.split("\n\n")]

with tempfile.TemporaryDirectory() as folder:
    model = train(
        sentences,
        workdir=f"{folder}/run",
        vector_size=64,
        epochs=10,
        min_count=3,
        callbacks=[lambda done: print(f"epoch {done.epoch + 1}: loss {done.loss:.3f}")],
    )
    print(model)
    for word in ("file", "string"):
        print(word, "→", ", ".join(found for found, _ in model.most_similar(word, topn=5)))
