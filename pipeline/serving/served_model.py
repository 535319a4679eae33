"""The registered model as MLflow loads it; `pipeline.serving` documents its requests and responses.

MLflow stores this file beside the vectors ("models from code") with a copy of `w2v_core`, which needs only NumPy: loading runs
readable code instead of a pickle, and the answers are those of `WordVectors`.
"""

from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from w2v_core.vectors import WordVectors

ASKS = ("similar", "vector", "analogy")
MOST_ANSWERS = 1000


class ServedVectors(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]  # untyped base class
    """Answers questions about words, after comparing every byte with its checksum; the matrix stays on disk until its rows are
    needed."""

    def load_context(self, context) -> None:  # type: ignore[no-untyped-def]  # MLflow's own signature
        self.vectors = WordVectors.load(context.artifacts["vectors"], verify=True)

    def predict(self, context, model_input: list[str], params: dict[str, Any] | None = None):  # type: ignore[no-untyped-def]
        asked: dict[str, Any] = {"ask": "similar", "topn": 10, "restrict_vocab": 0} | (params or {})
        ask, topn, limit = asked["ask"], int(asked["topn"]), int(asked["restrict_vocab"])
        if ask not in ASKS:
            raise _wrong(f"params.ask: expected one of {', '.join(ASKS)}, found {ask!r}")
        if not 1 <= topn <= MOST_ANSWERS or limit < 0:
            raise _wrong(f"params: expected topn from 1 to {MOST_ANSWERS} and restrict_vocab from 0, found {topn} and {limit}")
        if ask == "vector":
            return [self._vector(word) for word in model_input]
        if ask == "similar":
            return [self._similar(word, topn, limit or None) for word in model_input]
        return [self._analogy(question, topn, limit or None) for question in model_input]

    def _vector(self, word: str) -> dict[str, Any]:
        try:
            return {"word": word, "known": True, "vector": self.vectors[word].astype(float).tolist()}
        except KeyError as error:
            return {"word": word, "known": False, "vector": [], "message": str(error)}

    def _similar(self, word: str, topn: int, limit: int | None) -> dict[str, Any]:
        try:
            found = self.vectors.most_similar(word, topn=topn, restrict_vocab=limit)
        except KeyError as error:
            return {"word": word, "known": False, "similar": [], "message": str(error)}
        return {"word": word, "known": True, "similar": _ranking(found)}

    def _analogy(self, question: str, topn: int, limit: int | None) -> dict[str, Any]:
        words = question.split()
        if len(words) != 3:
            raise _wrong(f"an analogy is three words, A B C (A is to B as C is to …); found {question!r}")
        try:
            a, b, c = words
            found = self.vectors.analogy(a, b, c, topn=topn, restrict_vocab=limit)
        except KeyError as error:
            return {"question": question, "known": False, "answers": [], "message": str(error)}
        return {"question": question, "known": True, "answers": _ranking(found)}


def _ranking(found: Any) -> list[dict[str, Any]]:
    return [{"word": word, "score": round(float(score), 6)} for word, score in found]


def _wrong(message: str) -> MlflowException:
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


mlflow.models.set_model(ServedVectors())
