"""gensim's models, imported by the first test that needs them: it takes seconds, and every process of pytest collects all."""

from __future__ import annotations

from typing import Any


def models() -> Any:
    import gensim.models

    return gensim.models
