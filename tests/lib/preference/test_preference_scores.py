"""Sentences, windows, and scores of tiny random encoders against what transformers computes by itself."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import tiny_clip_models
import tiny_pairs
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("PIL", reason="images are read by pillow")

from toolroll.errors import RowError, ToolrollError  # noqa: E402
from toolroll.io.cache import Cache  # noqa: E402
from toolroll.models.device import Device  # noqa: E402
from toolroll.preference.encoders import open_encoder  # noqa: E402
from toolroll.preference.scores import Job, Scorer  # noqa: E402
from toolroll.preference.sentences import sentences, windows  # noqa: E402

CPU = Device("cpu", "float32", 1, "cpu")
LENGTHS = {"clip": 77, "siglip": 64}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A cube. A ball! Is it red?", ["A cube.", "A ball!", "Is it red?"]),
        ("It is 3.5 m long. Next.", ["It is 3.5 m long.", "Next."]),
        ("Mr. Smith met J. R. Doe at 5 p.m. He left.", ["Mr. Smith met J. R. Doe at 5 p.m.", "He left."]),
        ("Fruit, e.g. apples, i.e. food. Good.", ["Fruit, e.g. apples, i.e. food.", "Good."]),
        ('He said "Stop!" and left. "Go." She went.', ['He said "Stop!" and left.', '"Go."', "She went."]),
        ("Well... it is. Well... It is.", ["Well... it is.", "Well...", "It is."]),
        ("# Title\n- one cube\n2. two balls\n\n* three", ["Title", "one cube", "two balls", "three"]),
        ("一只猫在睡觉。两只狗！真的吗？", ["一只猫在睡觉。", "两只狗！", "真的吗？"]),
        ("A dog runs. Ok. !!! 77.", ["A dog runs. Ok."]),
        ("a cube. there is a ball.", ["a cube.", "there is a ball."]),
        ("", []),
        ("... 7 😀", []),
    ],
)
def test_sentences(text, expected):
    assert sentences(text) == expected


def test_long_texts_are_split_at_once():
    assert len(sentences("A cube stands here. " * 5000)) == 5000
    assert len(sentences("word " * 10_000)) == 1
    assert len(sentences("word." * 10_000)) == 1


@given(st.text("ab ,.;。，and", max_size=120), st.integers(1, 9))
def test_windows_hold_all_that_a_sentence_has(text, limit):
    encode = lambda part: [ord(letter) for letter in part if not letter.isspace()]  # noqa: E731
    found = windows(text, encode, limit)
    assert [one for ids in found for one in ids] == encode(text)
    assert all(0 < len(ids) <= limit for ids in found)


def test_windows_end_at_clauses():
    encode = str.split
    assert windows("one two, three four; five six and seven", encode, 4) == [
        ["one", "two,", "three", "four;"],
        ["five", "six", "and", "seven"],
    ]
    assert windows("a b c d e f g", encode, 3) == [["a", "b"], ["c", "d"], ["e", "f", "g"]]


@pytest.fixture(scope="module", params=["clip", "siglip"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, tiny_clip_models.write(folder / "model", request.param, LENGTHS[request.param])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    colours = [(200, 20, 20), (20, 20, 200), (10, 200, 10)]
    (folder / "not.png").write_bytes(b"no image")
    return [tiny_pairs.picture(folder / f"{i}.png", colour) for i, colour in enumerate(colours)]


def as_transformers_does(kind, folder, text, path):
    """100 times the cosine of one short text and one image."""
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    words, pictures = AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    padding = {"padding": True} if kind == "clip" else {"padding": "max_length", "return_attention_mask": False}
    inputs = {
        **words([text], return_tensors="pt", **padding),
        **pictures(images=[Image.open(path)], return_tensors="pt"),
    }
    with torch.no_grad():
        out = AutoModel.from_pretrained(folder)(**inputs)
    return 100 * float(out.text_embeds[0] @ out.image_embeds[0])


def test_a_sentence_has_the_cosine_that_transformers_has(model, pictures):
    kind, folder = model
    scorer = Scorer(open_encoder(folder, CPU))
    texts = ["A red square.", "A 🐶 dog, 狗.", "x" * (LENGTHS[kind] - 2)]
    found = scorer.score([Job([path], texts) for path in pictures])
    for path, scores in zip(pictures, found, strict=True):
        for text, one in zip(texts, scores, strict=True):
            assert one.score == pytest.approx(as_transformers_does(kind, folder, text, path), abs=1e-3)
            assert one.sentences[0].windows == 1


def test_what_is_longer_than_the_encoder_reads_is_read_to_its_end(model, pictures):
    kind, folder = model
    encoder = open_encoder(folder, CPU)
    assert encoder.limit == LENGTHS[kind] - (2 if kind == "clip" else 1)
    scorer = Scorer(encoder)
    long = " ".join(["word"] * 300)
    (one, other) = scorer.score([Job(pictures[:1], [f"{long} cat", f"{long} dog"])])[0]
    assert one.score != pytest.approx(other.score, abs=1e-4)
    ids = encoder.encode(f"{long} cat")
    assert one.sentences[0].windows == -(-len(ids) // encoder.limit)
    assert one.sentences[0].tokens == len(ids)
    parts = windows(f"{long} cat", encoder.encode, encoder.limit)
    cosines = encoder.texts(parts) @ encoder.images([_opened(pictures[0])])[0]
    lengths = torch.tensor([len(part) for part in parts]).float()
    assert one.score == pytest.approx(100 * float((cosines * lengths).sum() / lengths.sum()), abs=1e-3)


def _opened(path):
    from PIL import Image

    return Image.open(path).convert("RGB")


def test_batches_change_nothing_and_the_best_of_several_images_counts(model, pictures):
    encoder = open_encoder(model[1], CPU)
    jobs = [Job([path], ["A cube.", "A much longer sentence about cubes. And a ball."]) for path in pictures]
    jobs.append(Job(pictures, ["A cube."]))
    many, few = Scorer(encoder).score(jobs), Scorer(encoder, batch=1).score(jobs)
    for one, other in zip(many, few, strict=True):
        assert [text.score for text in one] == pytest.approx([text.score for text in other], abs=1e-3)
    assert many[3][0].score == max(scores[0].score for scores in many[:3])


def test_aggregates_and_clipscore(model, pictures):
    encoder = open_encoder(model[1], CPU)
    job = Job(pictures[:1], ["A cube. A green ball stands there. Nothing."])
    parts = Scorer(encoder).score([job])[0][0].sentences
    scores = [one.score for one in parts]
    for how, expected in [("mean", sum(scores) / 3), ("min", min(scores)), ("last", scores[-1])]:
        assert Scorer(encoder, aggregate=how).score([job])[0][0].score == pytest.approx(expected)
    clamped = Scorer(encoder, measure="clipscore").score([job])[0][0].sentences
    assert [one.score for one in clamped] == pytest.approx([max(score, 0) / 40 for score in scores], abs=1e-6)


def test_bad_images_and_texts_without_sentences(model, pictures):
    scorer = Scorer(open_encoder(model[1], CPU))
    gone, broken = pictures[0].with_name("gone.png"), pictures[0].with_name("not.png")
    found = scorer.score([Job([gone], ["a"]), Job([pictures[0], broken], ["a"]), Job(pictures[:1], ["", "..."])])
    assert [type(one) for one in found[:2]] == [RowError, RowError]
    assert "gone.png: No such file" in str(found[0])
    assert "not.png: not an image" in str(found[1])
    assert [one.score for one in found[2]] == [None, None]
    assert scorer.score([]) == []


def test_vectors_that_are_no_numbers_are_no_score(pictures):
    nan = torch.full((1, 2), torch.nan)
    encoder = SimpleNamespace(
        name="x",
        weights_id="0",
        limit=9,
        encode=str.encode,
        texts=lambda w: nan.expand(len(w), 2),
        images=lambda i: nan,
    )
    (found,) = Scorer(encoder).score([Job(pictures[:1], ["a cube"])])
    assert "not a number" in str(found)


def test_the_cache_knows_images_by_content_and_weights(model, pictures, tmp_path):
    encoder = open_encoder(model[1], CPU)
    copy = tmp_path / "copy.png"
    copy.write_bytes(pictures[0].read_bytes())
    cache = Cache(tmp_path / "vectors")
    first = Scorer(encoder, cache=cache).score([Job([path], ["A cube."]) for path in (*pictures, copy)])
    assert len(cache) == 3

    def refuse(_):
        raise AssertionError("the vectors are known")

    known = SimpleNamespace(**{name: getattr(encoder, name) for name in ("limit", "encode", "texts", "weights_id")})
    known.images = refuse
    again = Scorer(known, cache=cache).score([Job([path], ["A cube."]) for path in (*pictures, copy)])
    assert again == first
    known.weights_id = "another"
    with pytest.raises(AssertionError):
        Scorer(known, cache=cache).score([Job(pictures[:1], ["A cube."])])


def test_what_is_no_encoder(tmp_path):
    from pathlib import Path

    llama = str(Path(__file__).parents[2] / "data/tiny-llama")
    for name, why in [
        (llama, "cannot be loaded as an encoder"),
        (str(tmp_path), "no config.json"),
        ("open_clip:ViT-B-32", "pip install open_clip_torch"),
    ]:
        with pytest.raises(ToolrollError, match=why):
            open_encoder(name, CPU)


class _OpenClip:
    """What the package open_clip has of a model."""

    def to(self, _):
        return self

    eval = to

    def to_self(self):
        return self

    def encode_text(self, ids):
        self.ids = ids
        return ids[:, :4].float() + 1

    def encode_image(self, pixels):
        return pixels.flatten(1)[:, :4] + 1


def test_open_clip_gets_whole_windows_with_their_ends(monkeypatch, pictures):
    inner = _OpenClip()
    inner.eval = lambda: inner
    words = SimpleNamespace(
        sot_token_id=1, eot_token_id=2, context_length=8, encode=lambda text: [9] * len(text.split())
    )
    module = SimpleNamespace(
        create_model_and_transforms=lambda kind, pretrained: (inner, None, lambda image: torch.zeros(3, 2, 2)),
        get_tokenizer=lambda kind: words,
        __spec__=SimpleNamespace(name="open_clip"),
    )
    monkeypatch.setitem(sys.modules, "open_clip", module)
    encoder = open_encoder("open_clip:ViT-B-32/tag", CPU)
    assert (encoder.name, encoder.limit) == ("ViT-B-32/tag", 6)
    (found,) = Scorer(encoder).score([Job(pictures[:1], ["one two three four five six seven."])])
    assert found[0].sentences[0].windows == 2
    assert sorted(inner.ids.tolist()) == [[1, 9, 9, 9, 2, 0, 0, 0], [1, 9, 9, 9, 9, 2, 0, 0]]


def test_a_folder_with_a_processor_is_read_too(tmp_path, pictures):
    """Where tokenizer and images are described together, as CLIPProcessor saves them."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, CLIPProcessor

    apart = tiny_clip_models.write(tmp_path / "apart")
    words, images = AutoTokenizer.from_pretrained(apart), AutoImageProcessor.from_pretrained(apart)
    CLIPProcessor(image_processor=images, tokenizer=words).save_pretrained(tmp_path / "whole")
    AutoModel.from_pretrained(apart).save_pretrained(tmp_path / "whole")
    job = Job(pictures[:1], ["A red square. And a cube."])
    one, other = (Scorer(open_encoder(str(folder), CPU)).score([job]) for folder in (apart, tmp_path / "whole"))
    assert one == other
