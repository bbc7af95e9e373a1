"""Retrievers: BM25 against its definition, index folders, replay, cache, dense vectors."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import toolroll
from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.io.cache import Cache
from toolroll.rag.bm25 import Bm25Retriever, Bm25Settings, build_bm25, tokenizer
from toolroll.rag.corpus import read_corpus, to_passage
from toolroll.rag.dense import DenseRetriever, Encoder, build_dense
from toolroll.rag.index import Corpus, top_k
from toolroll.rag.retrieve import CachedRetriever, open_retriever

DATA = Path(toolroll.__file__).parent / "data" / "hotpotqa"


@pytest.fixture(scope="session")
def passages():
    return list(read_corpus(DATA / "corpus.jsonl.gz"))


@pytest.fixture(scope="session")
def questions():
    return [json.loads(line) for line in (DATA / "questions.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def index(passages, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bm25") / "index"
    build_bm25(passages, folder)
    return folder


@pytest.fixture
def bm25(index):
    with closing(open_retriever(f"bm25:{index}")) as retriever:
        yield retriever


def tiny(*texts):
    return [to_passage({"id": number, "title": "", "text": text}) for number, text in enumerate(texts)]


def ids(hits):
    return [hit["id"] for hit in hits]


def bm25_scores(texts, query, settings):
    """BM25 as its equation says, in float64, one passage and one word at a time."""
    words = tokenizer(settings)
    docs = [words(text) for text in texts]
    counts = [Counter(doc) for doc in docs]
    average = sum(map(len, docs)) / len(docs)
    scores = np.zeros(len(docs))
    for word in words(query):
        df = sum(word in count for count in counts)
        idf = math.log(1 + (len(docs) - df + 0.5) / (df + 0.5))
        for number, (doc, count) in enumerate(zip(docs, counts, strict=True)):
            tf = count[word]
            norm = settings.k1 * (1 - settings.b + settings.b * len(doc) / average)
            scores[number] += idf * tf / (tf + norm)
    return scores


@pytest.mark.parametrize("settings", [Bm25Settings(), Bm25Settings(k1=0.9, b=0.4, stopwords=(), pattern=r"\w+")])
def test_bm25_scores_are_the_definition(passages, questions, tmp_path, settings):
    some = passages[:300]
    build_bm25(some, tmp_path / "i", settings=settings)
    texts = [f"{passage['title']}\n{passage['text']}" for passage in some]
    with closing(Bm25Retriever(tmp_path / "i")) as retriever:
        for question in [*(row["question"] for row in questions[:15]), "irish irish home rule"]:
            expected = bm25_scores(texts, question, settings)
            (hits,) = retriever.search([question], len(some))
            assert {hit["id"] for hit in hits} == {some[i]["id"] for i in np.flatnonzero(expected)}
            scores = dict(zip((passage["id"] for passage in some), expected, strict=True))
            assert [hit["score"] for hit in hits] == pytest.approx(
                [scores[hit["id"]] for hit in hits], rel=1e-5, abs=1e-5
            )
            assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)


def test_bm25_worked_by_hand(tmp_path):
    build_bm25(tiny("red red fish", "blue fish", "green tree house"), tmp_path / "i")
    with closing(Bm25Retriever(tmp_path / "i")) as retriever:
        (hits,) = retriever.search(["Red fish!"], 3)
    red, fish = math.log(1 + 2.5 / 1.5), math.log(1 + 1.5 / 2.5)
    long, short = 1.5 * (0.25 + 0.75 * 3 / (8 / 3)), 1.5 * (0.25 + 0.75 * 2 / (8 / 3))
    assert ids(hits) == ["0", "1"]
    assert hits[0]["score"] == pytest.approx(red * 2 / (2 + long) + fish / (1 + long), abs=1e-5)
    assert hits[1]["score"] == pytest.approx(fish / (1 + short), abs=1e-5)


def test_bm25_finds_answers(bm25, questions):
    """HotpotQA: the answer stands in one of the best 10 of 4,016 passages for three of four answerable questions."""
    asked = [row for row in questions if row["answer_in_corpus"]]
    found = bm25.search([row["question"] for row in asked], 10)
    right = [
        any(
            answer.lower() in f"{hit['title']} {hit['text']}".lower()
            for hit in hits
            for answer in row["golden_answers"]
        )
        for row, hits in zip(asked, found, strict=True)
    ]
    assert 0.65 < sum(right) / len(right) < 0.85


def test_ties_come_in_the_order_of_the_corpus(tmp_path):
    build_bm25(tiny(*["same words here"] * 500, "other text", *["same words here"] * 500), tmp_path / "i")
    with closing(Bm25Retriever(tmp_path / "i")) as retriever:
        for k in (1, 3, 499, 600):
            assert ids(retriever.search(["same words"], k)[0]) == [str(n) for n in [*range(500), *range(501, 1001)]][:k]


def test_searches_that_find_little_or_nothing(bm25, passages):
    empty = ["", "   ", "the of and", "xqzzyx", "?!", "\u3042"]
    assert bm25.search(empty, 3) == [[]] * 6
    assert bm25.search([], 3) == []
    assert 0 < len(bm25.search(["Irish Home Rule"], 10**6)[0]) < len(passages)


def test_hits_are_the_passages(bm25, passages):
    hit = bm25.search(["Irish Home Rule movement"], 1)[0][0]
    assert {key: hit[key] for key in ("id", "title", "text")} == passages[0]
    assert list(hit) == ["id", "title", "text", "score"]
    assert hit["score"] == round(hit["score"], 6) > 0


def test_threads_and_batches_change_nothing(bm25, questions):
    asked = [row["question"] for row in questions[:80]]
    together = bm25.search(asked, 5)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda query: bm25.search([query], 5)[0], asked)) == together


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_passages_give_the_same_bytes_in_another_process(index, tmp_path):
    code = (
        "import sys; from pathlib import Path; from toolroll.rag.bm25 import build_bm25;"
        "from toolroll.rag.corpus import read_corpus; build_bm25(read_corpus(Path(sys.argv[1])), Path(sys.argv[2]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(toolroll.__file__).parents[1])}
    command = [sys.executable, "-c", code, str(DATA / "corpus.jsonl.gz"), str(tmp_path / "i")]
    subprocess.run(command, check=True, env=environment)
    assert tree(tmp_path / "i") == tree(index)


def test_index_folder_layout(index):
    assert set(tree(index)) == {
        "manifest.json", "corpus.jsonl", "offsets.npy", "bm25/data.csc.index.npy", "bm25/indices.csc.index.npy",
        "bm25/indptr.csc.index.npy", "bm25/vocab.index.json", "bm25/params.index.json",
    }  # fmt: skip
    manifest = json.loads((index / "manifest.json").read_bytes())
    assert (manifest["kind"], manifest["corpus"]["count"]) == ("bm25", 4016)
    assert manifest["settings"]["stopwords"][:2] == ["a", "an"]


def test_queries_are_read_as_the_passages_were(tmp_path):
    build_bm25(
        tiny("Vitamin C", "Vitamin D"), tmp_path / "i", settings=Bm25Settings(pattern=r"\w+", stopwords=("vitamin",))
    )
    with closing(Bm25Retriever(tmp_path / "i")) as retriever:
        assert ids(retriever.search(["the vitamin C"], 3)[0]) == ["0"]
        assert retriever.search(["vitamin"], 3) == [[]]


def test_a_failed_build_leaves_nothing(tmp_path):
    def broken():
        yield from tiny("some words")
        raise RowError("bad row", place="c.jsonl:2")

    with pytest.raises(RowError):
        build_bm25(broken(), tmp_path / "i")
    for nothing in ([], tiny("", "the of", "!")):
        with pytest.raises(ToolrollError, match="no pass"):
            build_bm25(nothing, tmp_path / "i")
    assert list(tmp_path.iterdir()) == []


def test_an_index_is_replaced_only_when_asked(tmp_path):
    build_bm25(tiny("old words"), tmp_path / "i")
    with pytest.raises(ToolrollError, match="exists already"):
        build_bm25(tiny("new words"), tmp_path / "i")
    with pytest.raises(ToolrollError, match="nothing to index"):
        build_bm25([], tmp_path / "i", replace=True)
    assert Corpus(tmp_path / "i")[0]["text"] == "old words"
    build_bm25(tiny("new words"), tmp_path / "i", replace=True)
    with closing(Corpus(tmp_path / "i")) as corpus:
        assert corpus[0]["text"] == "new words"
    assert [path.name for path in tmp_path.iterdir()] == ["i"]


def test_the_old_index_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    build_bm25(tiny("old words"), tmp_path / "i")
    rename = Path.rename

    def refuse(path, target):
        if path.name.endswith(".tmp"):
            raise OSError(5, "Input/output error", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ToolrollError, match="Input/output error"):
        build_bm25(tiny("new words"), tmp_path / "i", replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["i"]
    with closing(Corpus(tmp_path / "i")) as corpus:
        assert corpus[0]["text"] == "old words"


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "i").mkdir()
    (tmp_path / "i" / "thesis.tex").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for target in ("i", "file"):
        with pytest.raises(ToolrollError, match=str(tmp_path / target)):
            build_bm25(tiny("words"), tmp_path / target, replace=True)
    assert (tmp_path / "i" / "thesis.tex").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    build_bm25(tiny("words"), tmp_path / "empty")
    assert len(Corpus(tmp_path / "empty")) == 1


def damage(name, data):
    def apply(folder):
        path = folder / name
        path.unlink() if data is None else path.write_bytes(data(path.read_bytes()))

    return apply


@pytest.mark.parametrize(
    "spoil",
    [
        damage("manifest.json", None),
        damage("manifest.json", lambda data: data[:50]),
        damage("manifest.json", lambda _: b"[]"),
        damage("manifest.json", lambda data: data.replace(b'"version": 1', b'"version": 2')),
        damage("manifest.json", lambda data: data.replace(b'"bm25"', b'"dense"')),
        damage("manifest.json", lambda data: data.replace(b'"k1"', b'"k7"')),
        damage("corpus.jsonl", lambda data: data[:-1]),
        damage("corpus.jsonl", lambda _: b""),
        damage("corpus.jsonl", None),
        damage("offsets.npy", lambda data: data[:20]),
        damage("offsets.npy", None),
        damage("bm25/data.csc.index.npy", lambda data: data[:130]),
        damage("bm25/indptr.csc.index.npy", None),
        damage("bm25/vocab.index.json", lambda data: data[:-5]),
        damage("bm25/params.index.json", lambda _: b"{"),
    ],
)
def test_a_damaged_index_is_one_line_with_its_place(tmp_path, spoil):
    build_bm25(tiny("some words", "more words"), tmp_path / "i")
    spoil(tmp_path / "i")
    with pytest.raises(ToolrollError) as caught:
        open_retriever(f"bm25:{tmp_path / 'i'}")
    assert str(caught.value).startswith(str(tmp_path / "i"))
    assert "\n" not in str(caught.value)


def test_stemming_is_an_option(tmp_path):
    stemmer = pytest.importorskip("Stemmer")
    assert stemmer
    build_bm25(tiny("running dogs"), tmp_path / "i", settings=Bm25Settings(stemmer="english"))
    with closing(Bm25Retriever(tmp_path / "i")) as retriever:
        assert ids(retriever.search(["a dog runs"], 1)[0]) == ["0"]


def test_a_stemmer_that_is_not_there():
    with pytest.raises(UsageError, match="PyStemmer"):
        tokenizer(Bm25Settings(stemmer="klingon"))


@given(
    scores=st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.5]), max_size=700),
    k=st.integers(1, 800),
    above=st.sampled_from([-math.inf, 0.0, 1.0]),
)
def test_top_k_is_a_stable_sort(scores, k, above):
    expected = sorted((i for i, score in enumerate(scores) if score > above), key=lambda i: (-scores[i], i))[:k]
    assert top_k(np.array(scores, np.float32), k, above=above).tolist() == expected


@pytest.mark.parametrize("k", [1, 2, 7, 50, 999, 1999, 2000])
def test_top_k_of_scores_that_all_differ(k):
    for seed in range(20):
        scores = np.random.default_rng(seed).permutation(2000).astype(np.float32)
        assert scores[top_k(scores, k)].tolist() == list(range(1999, 1999 - k, -1))


# Specifications, replay, cache


def test_none_and_unknown_specifications():
    with closing(open_retriever("none")) as nothing:
        assert nothing.search(["a", "b"], 3) == [[], []]
    for spec in ("", "bm26:x", "bm25:", "bm25", "http:", "ftp://host", "none:x"):
        with pytest.raises(UsageError, match="not a retriever"):
            open_retriever(spec)
    for spec in ("http:host:8000", "http://", "http:http://host:port", "flashrag:ftp://host"):
        with pytest.raises(UsageError):
            open_retriever(spec)


def test_nothing_heavy_is_imported_by_the_interface():
    code = (
        "import sys, toolroll.rag.retrieve as r; r.open_retriever('none');"
        "print(sorted({'numpy', 'torch', 'bm25s', 'httpx2', 'transformers', 'faiss'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(toolroll.__file__).parents[1])}
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert run.stdout == "[]\n"


def test_replay_gives_what_was_recorded(bm25, tmp_path):
    queries = ["Irish Home Rule", "xqzzyx"]
    found = bm25.search(queries, 3)
    lines = [json.dumps({"query": query, "hits": hits}) for query, hits in zip(queries, found, strict=True)]
    (tmp_path / "r.jsonl").write_text("\n".join(lines) + "\n\n")
    with closing(open_retriever(f"replay:{tmp_path / 'r.jsonl'}")) as replay:
        assert replay.search(queries, 3) == found
        assert replay.search(queries[:1], 1) == [found[0][:1]]
        with pytest.raises(RowError, match=r"r\.jsonl: no hits recorded for the query 'new'"):
            replay.search(["new"], 3)


@pytest.mark.parametrize(
    "line", ["{", '{"query": "q"}', '{"query": 1, "hits": []}', '{"query": "q", "hits": [1]}', "[]"]
)
def test_a_bad_recording_names_its_line(tmp_path, line):
    (tmp_path / "r.jsonl").write_text('{"query": "a", "hits": []}\n' + line)
    with pytest.raises(ToolrollError, match=r"r\.jsonl:2: "):
        open_retriever(f"replay:{tmp_path / 'r.jsonl'}")
    with pytest.raises(ToolrollError, match=r"missing\.jsonl: No such file"):
        open_retriever(f"replay:{tmp_path / 'missing.jsonl'}")


class Counting:
    """Passes on to another retriever and keeps what was asked."""

    def __init__(self, inner):
        self.inner, self.name, self.identity, self.asked = inner, inner.name, inner.identity, []

    def search(self, queries, topk):
        self.asked.append(list(queries))
        return self.inner.search(queries, topk)

    def close(self):
        self.inner.close()


def test_the_cache_asks_only_what_is_new(bm25, tmp_path):
    with Cache(tmp_path / "c") as cache:
        counting = Counting(bm25)
        cached = CachedRetriever(counting, cache)
        plain = bm25.search(["paris", "rome"], 2)
        first = cached.search(["paris", "rome", "paris", "xqzzyx"], 2)
        again = cached.search(["rome", "paris", "xqzzyx", "berlin"], 2)
        assert counting.asked == [["paris", "rome", "xqzzyx"], ["berlin"]]
        cached.search(["paris"], 3)
        assert counting.asked[2:] == [["paris"]]
    assert first[0] == [{**hit, "cached": False} for hit in plain[0]] == first[2]
    assert again[0] == [{**hit, "cached": True} for hit in plain[1]]
    assert (first[3], again[2]) == ([], [])
    assert {hit["cached"] for hit in again[3]} == {False}


def test_the_cache_never_mixes_indexes(tmp_path):
    for name, settings in (("a", Bm25Settings()), ("b", Bm25Settings(k1=1.0))):
        build_bm25(tiny("red fish", "red tree"), tmp_path / name, settings=settings)
    build_bm25(tiny("red fish", "red house"), tmp_path / "c")
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    identities = []
    for name in ("a", "b", "c", "copy"):
        with closing(Bm25Retriever(tmp_path / name)) as retriever:
            identities.append(retriever.identity)
    assert len(set(identities)) == 3
    assert identities[0] == identities[3]


# Dense vectors, with a tiny random encoder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("encoder"), seed=0)


def make_encoder(folder, seed):
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,:\"'()-"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=128, **sizes)).save_pretrained(folder)
    return folder


DENSE = {"query_prefix": "query: ", "passage_prefix": "passage: ", "max_tokens": 64}


@pytest.fixture(scope="session")
def dense_index(encoder, passages, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense") / "index"
    build_dense([*passages[:40], *passages[:5]], folder, model=str(encoder), **DENSE)
    return folder


def test_vectors_are_the_mean_over_tokens_without_padding(encoder):
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = ["a short one", "a much longer text, so that the short one is padded", "x" * 400]
    vectors = Encoder(str(encoder), max_tokens=64)(texts)
    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    for text, vector in zip(texts, vectors, strict=True):
        tokens = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        with torch.no_grad():
            mean = model(**tokens).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)


def test_dense_search_is_the_dot_product(dense_index, encoder, passages):
    corpus = [*passages[:40], *passages[:5]]
    queries = ["Irish Home Rule", "  ", "Who plays ice hockey?"]
    encode = Encoder(str(encoder), max_tokens=64)
    vectors = np.fromfile(dense_index / "vectors.f32", dtype="<f4").reshape(45, 16)
    np.testing.assert_allclose(
        vectors[7], encode([f'passage: "{corpus[7]["title"]}"\n{corpus[7]["text"]}'])[0], atol=1e-5
    )
    with closing(open_retriever(f"dense:{dense_index}")) as retriever:
        found = retriever.search(queries, 50)
    assert found[1] == []
    for query, hits in ((queries[0], found[0]), (queries[2], found[2])):
        scores = dict(zip((passage["id"] for passage in corpus), vectors @ encode([f"query: {query}"])[0], strict=True))
        assert sorted(ids(hits)) == sorted(passage["id"] for passage in corpus)
        assert [hit["score"] for hit in hits] == pytest.approx([scores[hit["id"]] for hit in hits], abs=2e-6)
        assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)


def test_dense_search_by_blocks_is_the_same(dense_index, monkeypatch):
    with closing(DenseRetriever(dense_index)) as retriever:
        whole = retriever.search(["Irish Home Rule", "ice hockey"], 7)
        monkeypatch.setattr("toolroll.rag.dense._ROWS", 4)
        assert retriever.search(["Irish Home Rule", "ice hockey"], 7) == whole


def test_dense_build_is_repeatable(dense_index, encoder, passages, tmp_path):
    build_dense([*passages[:40], *passages[:5]], tmp_path / "i", model=str(encoder), **DENSE)
    assert tree(tmp_path / "i") == tree(dense_index)


def test_another_encoder_under_the_same_name_is_refused(passages, tmp_path):
    (tmp_path / "e").mkdir()
    build_dense(passages[:3], tmp_path / "i", model=str(make_encoder(tmp_path / "e", seed=1)))
    make_encoder(tmp_path / "e", seed=2)
    with pytest.raises(ToolrollError, match="another encoder"):
        open_retriever(f"dense:{tmp_path / 'i'}")
    shutil.rmtree(tmp_path / "e")
    with pytest.raises(ToolrollError, match="cannot be loaded"):
        open_retriever(f"dense:{tmp_path / 'i'}")


def test_damaged_vectors(dense_index, tmp_path):
    shutil.copytree(dense_index, tmp_path / "i")
    (tmp_path / "i" / "vectors.f32").write_bytes(b"\0" * 100)
    with pytest.raises(ToolrollError, match=r"vectors\.f32: the index is damaged"):
        open_retriever(f"dense:{tmp_path / 'i'}")
    with pytest.raises(ToolrollError, match="kind dense"):
        open_retriever(f"bm25:{tmp_path / 'i'}")


def test_faiss_missing_names_the_extra(dense_index, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UsageError, match=r"toolroll\[faiss\]"):
        open_retriever(f"faiss:{dense_index}")


def test_faiss_finds_what_the_product_finds(dense_index, encoder, passages, tmp_path):
    pytest.importorskip("faiss")
    build_dense([*passages[:40], *passages[:5]], tmp_path / "i", model=str(encoder), faiss="Flat", **DENSE)
    queries = ["Irish Home Rule", "", "ice hockey"]
    with (
        closing(open_retriever(f"dense:{dense_index}")) as plain,
        closing(open_retriever(f"faiss:{tmp_path / 'i'}")) as fast,
    ):
        expected, found = plain.search(queries, 50), fast.search(queries, 50)
    for hits, other in zip(expected, found, strict=True):
        assert sorted(ids(hits)) == sorted(ids(other))
        assert [hit["score"] for hit in hits] == pytest.approx([hit["score"] for hit in other], abs=3e-6)
    with pytest.raises(ToolrollError, match="without FAISS"):
        open_retriever(f"faiss:{dense_index}")
