"""Pairs as token ids, with and without images, and the log-probabilities of their answers."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("PIL", reason="images are read by pillow")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # whatever third parties warn of while they are imported
    import transformers  # noqa: F401

import tiny_pairs  # noqa: E402

from toolroll.errors import RowError, ToolrollError  # noqa: E402
from toolroll.models.images import folder_of  # noqa: E402
from toolroll.train import losses, pairs  # noqa: E402

ASK = [{"role": "user", "content": "What?"}]
YES = [{"role": "assistant", "content": "Red."}]
NO = [{"role": "assistant", "content": "Blue, or so."}]


@pytest.fixture(scope="module")
def words():
    return tiny_pairs.tokenizer()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("images")
    tiny_pairs.picture(made / "red.png", (250, 0, 0))
    tiny_pairs.picture(made / "blue.png", (0, 0, 250), size=(9, 31))
    (made / "not.png").write_bytes(b"not an image")
    return made


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return pairs.PairScorer.load(str(tiny_pairs.write_image_model(tmp_path_factory.mktemp("llava"))), "cpu")


def test_text_ends_with_the_end_of_text_once(words):
    pair = pairs.Encoder(words)("ab", "c", "de<eos>")
    assert words.decode(pair.prompt) == "ab"
    assert [words.decode(answer) for answer in (pair.chosen, pair.rejected)] == ["c<eos>", "de<eos>"]
    assert not pair.shortened


def test_messages_end_as_the_template_has_it(words):
    pair = pairs.Encoder(words)(ASK, YES, NO, weight=0.5)
    assert words.decode(pair.prompt) == "<|user|>What?<eos><|assistant|>"
    assert words.decode(pair.chosen) == "Red.<eos>"
    assert pair.weight == 0.5


def test_the_answer_begins_where_the_tokens_change(words):
    other = tiny_pairs.tokenizer()
    other.chat_template = words.chat_template.replace(
        "{% if add_generation_prompt %}<|assistant|>", "{% if add_generation_prompt %}<|assistant|> "
    )
    pair = pairs.Encoder(other)(ASK, YES, NO)
    assert pair.shortened
    assert other.decode(pair.prompt) == "<|user|>What?<eos><|assistant|>"
    assert other.decode(pair.chosen) == "Red.<eos>"


@pytest.mark.parametrize(
    ("pair", "why"),
    [
        (("x", "", "b"), "`chosen` is empty"),
        (("x", "a", []), "`rejected` is neither text nor messages"),
        ((ASK, "a", NO), "`chosen` is neither text nor messages"),
        ((ASK, YES, []), "`rejected` is empty"),
        ((ASK, [{"role": "assistant", "content": ""}], NO), "`chosen` is empty"),
        ((ASK, [{"content": "x"}], NO), "`chosen` has a message without a role"),
        ((ASK, [{"role": "assistant", "content": ["x"]}], NO), "`chosen` has a message without content"),
        ((5, "a", "b"), "`prompt` is neither text nor messages"),
        (("", "a", "b"), "the prompt is empty"),
    ],
)
def test_what_is_no_pair_is_refused(words, pair, why):
    with pytest.raises(RowError, match=why):
        pairs.Encoder(words)(*pair)


def test_a_model_without_a_chat_template_cannot_take_messages():
    plain = tiny_pairs.tokenizer()
    plain.chat_template = None
    with pytest.raises(ToolrollError, match="no chat template"):
        pairs.Encoder(plain)(ASK, YES, NO)


def test_long_pairs_fail_or_are_cut_at_the_end_of_the_answer(words):
    with pytest.raises(pairs.TooLong, match="9 tokens, more than --max-tokens 6"):
        pairs.Encoder(words, max_tokens=6)("abcd", "e", "fghi")
    cut = pairs.Encoder(words, max_tokens=6, on_long="cut")("abcd", "e", "fghi")
    assert [words.decode(ids) for ids in (cut.prompt, cut.chosen, cut.rejected)] == ["abcd", "e<eos>", "fg"]
    with pytest.raises(pairs.TooLong, match="the prompt alone fills that"):
        pairs.Encoder(words, max_tokens=4, on_long="cut")("abcd", "e", "fghi")


def test_images_stand_in_the_prompt_and_are_never_cut(judge, folder):
    pair = judge.encoder(ASK, YES, NO, images=["red.png"], folder=folder)
    assert pair.text == "<|user|><image>What?<eos><|assistant|>"
    assert pair.prompt.count(judge.encoder.processor.image_token_id) == 16
    assert judge.encoder.tokenizer.decode(pair.rejected) == "Blue, or so.<eos>"
    long = pairs.Encoder.of(judge.encoder.processor, max_tokens=20, on_long="cut")
    with pytest.raises(pairs.TooLong, match="a pair with images is never cut"):
        long(ASK, YES, NO, images=["red.png"], folder=folder)


@pytest.mark.parametrize(
    ("prompt", "images", "why"),
    [
        (ASK, ["gone.png"], r"gone\.png: No such file or directory"),
        (ASK, ["not.png"], r"not\.png: not an image"),
        ([{"role": "user", "content": [{"type": "image"}]}], ["red.png", "red.png"], "2 images, and places for 1"),
        (ASK + YES + [{"role": "user", "content": [{"type": "image"}] * 2}], ["red.png"], "1 images, and places for 2"),
        ([{"role": "user", "content": [{"type": "image"}]}], [], "0 images, and places for 1"),
        ([{"role": "user", "content": "<image> What?"}], [], "<image> in a text"),
    ],
)
def test_images_that_do_not_fit_are_refused(judge, folder, prompt, images, why):
    with pytest.raises(RowError, match=why):
        judge.encoder(prompt, YES, NO, images=images, folder=folder)


def test_no_place_and_no_mark_is_left_without_an_image(judge, words, folder):
    """Neither in messages nor in text, by a model with images or by one without; an answer has no place for any."""
    place = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    for encoder in (judge.encoder, pairs.Encoder(words)):
        with pytest.raises(RowError, match="0 images, and places for 1"):
            encoder(place, YES, NO)
    with pytest.raises(RowError, match="<image> in a text"):
        judge.encoder("<image>?", "a", "b")
    marked = [{"role": "assistant", "content": "An <image>."}]
    for answers in ((marked, NO), (YES, marked)):
        with pytest.raises(RowError, match="<image> in a text"):
            judge.encoder(place, *answers, images=["red.png"], folder=folder)
    assert pairs.Encoder(words)("<image>?", "a", "b").prompt


def test_a_text_prompt_needs_a_place_for_its_image(judge, folder):
    assert judge.encoder("<image>?", "a", "b", images=["red.png"], folder=folder).prompt.count(2) == 16
    with pytest.raises(RowError, match=r"does not take the prompt and its 1 images|no place for its images"):
        judge.encoder("?", "a", "b", images=["red.png"], folder=folder)


def test_a_text_model_takes_no_images(words, folder):
    with pytest.raises(RowError, match="the model takes none"):
        pairs.Encoder(words)(ASK, YES, NO, images=["red.png"], folder=folder)


def test_log_probabilities_are_those_of_each_sequence_alone(judge, folder):
    """Text and images in one file, padded side by side, against the model on one sequence at a time."""
    encode = judge.encoder
    some = [
        encode(ASK, YES, NO, images=["red.png"], folder=folder),
        encode(ASK, YES, NO),
        encode(ASK, NO, YES, images=["blue.png"], folder=folder),
        encode("x", "a long answer", "b"),
    ]
    found = judge(some, micro_tokens=4096)
    assert found[0][0] != pytest.approx(found[2][1], abs=0.01)  # the same answer to another image
    for pair, sums in zip(some, found, strict=True):
        assert sums == pytest.approx([alone(judge, pair, answer) for answer in (pair.chosen, pair.rejected)], abs=1e-4)
    assert judge(some, micro_tokens=1) == [pytest.approx(sums, abs=1e-4) for sums in found]


@torch.no_grad()
def alone(judge, pair, answer) -> float:
    images = {}
    if pair.images:
        from PIL import Image

        pictures = [Image.open(path) for path in pair.images]
        images["pixel_values"] = judge.encoder.processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
    logits = judge.model(input_ids=torch.tensor([pair.prompt + answer]), **images).logits[:, len(pair.prompt) - 1 : -1]
    return float(losses.token_logprobs(logits, torch.tensor([answer])).sum())


def test_paths_are_relative_to_the_rows_file():
    assert folder_of("some/where/pairs.jsonl:3") == Path("some/where")
    assert folder_of("/pairs:3.jsonl:3") == Path("/")
