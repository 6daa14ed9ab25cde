"""Real text as token data with topics: the second data set of the ordering study."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from headspec.errors import InputError
from headspec.results import save
from headspec.training.corpus_documents import (
    Document,
    installed_documents,
    installed_versions,
    read_documents,
)
from headspec.training.corpus_embeddings import (
    EmbeddingMethod,
    embed_passages,
    resolve_embedding,
)
from headspec.training.corpus_result import RESULT, TOKENIZER, Corpus, open_corpus
from headspec.training.corpus_text import cut_passages, keep_new, shingles
from headspec.training.corpus_tokenizer import pack_passages, train_tokenizer
from headspec.training.corpus_topics import find_topics
from headspec.training.token_data import read_manifest
from headspec.training.token_folder import holds_same, write_token_data

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def build_corpus(
    folder: str | Path,
    *,
    documents: str | Path | Iterable[str | Path | Document] | None = None,
    n_topics: int = 8,
    vocab_size: int = 16_000,
    seq_len: int = 512,
    passage_words: int = 120,
    validation_share: float = 0.1,
    embedding: EmbeddingMethod = "auto",
    embedding_model: str | None = None,
    n_null: int = 50,
    seed: int = 0,
    progress: bool = False,
) -> Corpus:
    """Turn documents into token sequences with a topic for every token.

    Documents are cut into passages of whole sentences and repetitions are dropped; passages are
    embedded and clustered (`find_topics`); documents are divided into train and validation; a
    byte-level BPE tokenizer is trained on the train passages; in each split passages are put in
    random order, each ended by token 0, and cut into sequences. A sequence so holds about
    seq_len / (1.4 passage_words) passages of different topics. The folder appears whole or
    not at all; the same arguments and documents give the same data, at once the second time.

    Args:
        folder: new, empty, or holding the same corpus.
        documents: files or folders (`read_documents`), `Document`s (such as those of
            `dataset_documents`), or None: docstrings of installed packages
            (`installed_documents`), which needs no network.
        n_topics: clusters of passages.
        vocab_size: of the tokenizer, at most.
        seq_len: tokens a sequence.
        passage_words: longest passage; those under a sixth of it are dropped.
        validation_share: share of the text whose documents are held out.
        embedding: "auto" takes a sentence transformer where one can be had and TF-IDF
            otherwise; the choice is kept in `Corpus.embedding`.
        embedding_model: another sentence transformer than all-MiniLM-L6-v2.
        n_null: null draws for the quality of topics.
        seed: of everything.
        progress: show a bar while embedding.

    Returns:
        The corpus; its `train` and `validation` are token data as micro-languages give them.

    Raises:
        InputError: for fewer than two documents, too little text for a sequence in each split,
            or a folder that holds something else.

    What its topics do not show: ground truth. They are what one algorithm makes of one
    embedding; `Corpus.topics` says how stable and how separate they are. Splitting by
    document does not keep out text that documents share; `Corpus.overlap` measures it.

    Example:
        >>> import tempfile
        >>> texts = [Document(f"{i}", f"The {w} {i} is near. " * 9) for i, w in
        ...          enumerate(["cat", "dog", "sun", "moon"] * 5)]
        >>> corpus = build_corpus(tempfile.mkdtemp(), documents=texts, n_topics=2, vocab_size=300,
        ...                       seq_len=8, passage_words=30, embedding="tfidf", n_null=2)
        >>> corpus.train.n_topics, corpus.embedding
        (2, 'tfidf')
    """
    if not 0 < validation_share < 1:
        raise InputError(
            expected="a validation share between 0 and 1", got=str(validation_share), fix="Try 0.1."
        )
    folder = Path(folder)
    there = read_manifest(folder)
    if there and embedding == "auto" and embedding_model is None:
        chosen = there["settings"].get("embedding", "tfidf")  # what "auto" was when it was made
    else:
        chosen = resolve_embedding(embedding, embedding_model)
    read, origin = _find_documents(documents)
    settings = {
        "source": "corpus",
        **origin,
        "embedding": chosen,
        "largest_vocabulary": vocab_size,
        "passage_words": passage_words,
        "validation_share": validation_share,
        "n_null": n_null,
        "seed": seed,
    }
    if not holds_same(folder, settings, n_topics=n_topics, seq_len=seq_len):
        _write_corpus(
            folder, read(), settings, n_topics=n_topics, seq_len=seq_len, progress=progress
        )
    return open_corpus(folder)


def _find_documents(
    documents: str | Path | Iterable[str | Path | Document] | None,
) -> tuple[Callable[[], list[Document]], dict[str, Any]]:
    """How to read the documents, and what they are known by."""
    if documents is None:  # known by versions, so that they need not be read to be recognised
        versions = {f"version_{name}": number for name, number in installed_versions().items()}
        return installed_documents, {"documents": "installed packages", **versions}
    if isinstance(documents, str | Path):
        documents = [documents]
    found: list[Document] = []
    for one in documents:
        found += [one] if isinstance(one, Document) else read_documents(one)
    total = hashlib.sha256()
    for document in found:
        total.update(f"{document.name}\0{document.source}\0{document.text}\0".encode())
    return lambda: found, {"documents": "given", "documents_sha256": total.hexdigest()}


def _write_corpus(
    folder: Path,
    documents: Sequence[Document],
    settings: dict[str, Any],
    *,
    n_topics: int,
    seq_len: int,
    progress: bool,
) -> None:
    seed, words = settings["seed"], settings["passage_words"]
    cut = [cut_passages(one.text, words=words, least=max(1, words // 6)) for one in documents]
    owner = np.repeat(np.arange(len(cut)), [len(passages) for passages in cut])
    passages = [passage for of_document in cut for passage in of_document]
    kept = keep_new(passages)
    repeated = len(passages) - len(kept)
    passages, owner = [passages[i] for i in kept], owner[kept]
    held_out = _held_out(passages, owner, share=settings["validation_share"], seed=seed)
    vectors = embed_passages(
        passages, embedding=settings["embedding"], seed=seed, progress=progress
    )
    topics = find_topics(
        vectors,
        passages,
        n_topics=n_topics,
        sources=[documents[i].source for i in owner],
        n_null=settings["n_null"],
        seed=seed,
    )
    texts = {
        "train": [p for p, out in zip(passages, held_out, strict=True) if not out],
        "validation": [p for p, out in zip(passages, held_out, strict=True) if out],
    }
    tokenizer = train_tokenizer(texts["train"], vocab_size=settings["largest_vocabulary"])
    train = pack_passages(
        texts["train"], topics.labels[~held_out], tokenizer, seq_len=seq_len, seed=seed
    )
    validation = pack_passages(
        texts["validation"], topics.labels[held_out], tokenizer, seq_len=seq_len, seed=seed + 1
    )
    if min(len(train.tokens), len(validation.tokens)) == 0:
        raise _too_little(f"{len(train.tokens)} and {len(validation.tokens)} of {seq_len} tokens")
    corpus = Corpus(
        folder="",
        n_documents=len(np.unique(owner)),
        n_passages=len(passages),
        n_repeated=repeated,
        n_validation_documents=len(np.unique(owner[held_out])),
        embedding=settings["embedding"],
        topics=topics,
        vocab_size=len(tokenizer),
        seq_len=seq_len,
        n_train=len(train.tokens),
        n_validation=len(validation.tokens),
        tokens_per_word=_tokens_per_word(texts["validation"], tokenizer),
        unigram_loss=_unigram_loss(train.tokens, validation.tokens, len(tokenizer)),
        overlap=_overlap(texts["train"], texts["validation"]),
        seed=seed,
    )

    def beside(temporary: Path) -> None:
        tokenizer.save_pretrained(temporary / TOKENIZER)
        save(corpus, temporary / RESULT)

    write_token_data(
        folder,
        train=train,
        validation=validation,
        vocab_size=len(tokenizer),
        n_topics=n_topics,
        settings=settings,
        facts=lambda: {"unigram_loss": corpus.unigram_loss, "tokenizer": TOKENIZER},
        beside=beside,
    )


def _held_out(
    passages: Sequence[str], owner: np.ndarray, *, share: float, seed: int
) -> Bool[np.ndarray, " passage"]:
    """Passages of documents drawn for validation until these hold the share of all words."""
    words = np.bincount(owner, weights=[len(passage.split()) for passage in passages])
    present = np.flatnonzero(words)
    if len(present) < 2:
        raise _too_little(f"{len(present)} documents")
    order = np.random.default_rng(seed).permutation(present)
    wanted = np.searchsorted(np.cumsum(words[order]), share * words.sum()) + 1
    return np.isin(owner, order[: min(wanted, len(order) - 1)])


def _too_little(got: str) -> InputError:
    return InputError(
        expected="two documents or more, and text for a sequence in each split",
        got=got,
        fix="Give more text, a shorter seq_len or a larger validation_share.",
    )


def _tokens_per_word(passages: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> float:
    encoded = tokenizer(list(passages), add_special_tokens=False)["input_ids"]
    return sum(map(len, encoded)) / sum(len(passage.split()) for passage in passages)


def _unigram_loss(train: np.ndarray, validation: np.ndarray, vocab_size: int) -> float:
    counts = np.bincount(train.ravel(), minlength=vocab_size) + 1.0
    return float(-np.log(counts / counts.sum())[validation].mean())


def _overlap(train: Sequence[str], validation: Sequence[str]) -> float:
    seen = set().union(*map(shingles, train))
    runs = [run for passage in validation for run in shingles(passage)]
    return sum(run in seen for run in runs) / len(runs)
