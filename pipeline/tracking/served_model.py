"""The registered model, as MLflow loads it: words in, vectors out. Self-contained: it needs numpy, not this package.

    curl -d '{"inputs": ["king", "queen"]}' -H 'Content-Type: application/json' localhost:5000/invocations

MLflow stores this file beside the vectors ("models from code"), so that loading runs readable code and no pickle.
"""

import mlflow
import numpy as np


class ServedVectors(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]  # untyped base class
    """Looks words up in a .npy matrix that stays on disk until its rows are asked for."""

    def load_context(self, context) -> None:  # type: ignore[no-untyped-def]  # MLflow's own signature
        self.vectors = np.load(context.artifacts["vectors"], mmap_mode="r", allow_pickle=False)
        with open(context.artifacts["words"], "rb") as file:
            # A newline inside a word is kept as the byte FF, a lone surrogate as three bytes: see WordVectors.save.
            lines = (line[:-1].replace(b"\xff", b"\n") for line in file)
            words = [line.decode("utf-8", "surrogatepass") for line in lines]
        if len(words) != len(self.vectors):
            raise ValueError(f"expected a word for each of {len(self.vectors)} vectors, found {len(words)}")
        self.word_ids = {word: word_id for word_id, word in enumerate(words)}

    def predict(self, model_input: list[str]) -> list[list[float]]:
        """The vector of each word; an empty list for a word that is not in the vocabulary."""
        found = [self.word_ids.get(word) for word in model_input]
        return [[] if word_id is None else self.vectors[word_id].astype(float).tolist() for word_id in found]


mlflow.models.set_model(ServedVectors())
