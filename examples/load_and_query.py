"""Load finished vectors, from a run or from any program's file, and query them.

python examples/load_and_query.py configs/demo.yaml string
python examples/load_and_query.py vectors.bin king
"""

import sys

from pipeline import load

source, *words = sys.argv[1:] or sys.exit(__doc__)
model = load(source)
print(f"{len(model):,} words × {model.vector_size}")
for word in words:
    if word not in model:
        print(f"{word}: not in the vocabulary")
        continue
    print(word, "→", ", ".join(f"{found} {cosine:.2f}" for found, cosine in model.most_similar(word, topn=5)))
