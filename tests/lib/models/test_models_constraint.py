"""Whatever a constrained model draws is well formed, its limits hold, and the masks agree with a plain reading."""

import random
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toolroll.errors import ToolrollError
from toolroll.models.base import Generate, Sampling
from toolroll.models.constraint import Grammar
from toolroll.models.scripted import END, ByteCodec
from toolroll.models.text import HFEngine

PREFILL = "\n<think>\n<step>\n    <reasoning>"
CONTEXT = "\n    <context>Doc 1(Title: x < y) passage</context>\n    <conclusion>"
FREE = r"[^<]*?[^<\s][^<]*?"
STEP = (
    rf"<step>\n    <reasoning>{FREE}</reasoning>\n"
    rf"(?:    <search>{FREE}</search>\n    <context>Doc 1\(Title: x < y\) passage</context>\n)?"
    rf"    <conclusion>{FREE}</conclusion>\n</step>\n"
)
WHOLE = re.compile(rf"\n<think>\n(?:{STEP})+</think>\n<answer>{FREE}</answer>", re.DOTALL)
WORDS = (
    b"</", b"</reason", b"ing>", b"ing>\n   ", b">\n", b"\n    <", b"    ", b"<conclusion>", b" <search>Who",
    b"search>", b"</conclusion>\n</step>\n<", b"step>\n    <reasoning> so", b"step>", b"/think", b"think>\n<answer>",
    b"<answer>42", b"</answer>", b"</answer>\n", b"</search>", b"</search>\n    <", b" the", b"\xc2\xa0",
    b"\xe3\x80\x80", b"\xe3\x80", b"a < b", b"x</reasoning>\n    <conclusion>y", b"  ", b"?</",
)  # fmt: skip


class Words(ByteCodec):
    """Bytes, an end of text, and tokens that span tags and fields."""

    def pieces(self):
        return [*super().pieces(), *WORDS]

    def decode(self, ids):
        pieces = self.pieces()
        return b"".join(pieces[i] or b"" for i in ids if i < len(pieces)).decode(errors="replace")


GRAMMAR = Grammar(Words())


def write(constraint, choose, most=3000):
    """The whole text `choose(permitted ids)` writes under `constraint`, with the context injected after searches."""
    codec, text, ids = Words(), PREFILL, []
    while not constraint.finished:
        assert len(ids) < most
        permitted = constraint.allowed().nonzero()[:, 0].tolist()
        ids.append(choose(permitted))
        constraint.advance(ids[-1])
        text = PREFILL + codec.decode(ids) if CONTEXT not in text else text + codec.decode(ids[-1:])
        if text.endswith("</search>"):
            constraint.inject(CONTEXT)
            text += CONTEXT
    return text, ids


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 3), st.integers(1, 5), st.integers(1, 30))
def test_random_choices_are_well_formed_and_within_limits(seed, searches, steps, tokens):
    draw = random.Random(seed)
    constraint = GRAMMAR.start(searches=searches, max_steps=steps, field_tokens=tokens)
    text, _ = write(constraint, lambda permitted: draw.choice(permitted))
    assert WHOLE.fullmatch(text), text
    assert text.count("<search>") <= searches
    assert text.count("<step>") <= steps
    assert constraint.allowed().nonzero()[:, 0].tolist() == [END]


def test_limits_are_reached_not_just_kept():
    greedy_for_steps = GRAMMAR.start(searches=2, max_steps=4, field_tokens=3)
    wanted = [WORDS.index(word) + 257 for word in (b"step>\n    <reasoning> so", b"search>", b"</search>")]

    def choose(permitted):
        return next((token for token in (*wanted, 115, *b"</", ord("s")) if token in permitted), permitted[0])

    text, _ = write(greedy_for_steps, choose)
    assert WHOLE.fullmatch(text), text
    assert (text.count("<step>"), text.count("<search>")) == (4, 2)


def reading(text):
    """Whether `text` may begin a reply under the form, read character by character with a regular expression."""
    free = {name: rf"[^<]*[^<\s][^<]*</{name}>" for name in ("reasoning", "conclusion", "search", "answer")}
    search = rf"{free['reasoning']}\n    <search>{free['search']}"
    step = rf"{free['reasoning']}\n    <conclusion>{free['conclusion']}\n</step>\n"
    whole = rf"(?:{step}<step>\n    <reasoning>)*(?:{search}|{step}</think>\n<answer>{free['answer']})"
    endings = ("", "x", *_endings())
    return any(re.fullmatch(whole, text + ending, re.DOTALL) for ending in endings)


def _endings():
    search = "x</reasoning>\n    <search>q</search>"
    answer = "x</answer>"
    conclude = "x</conclusion>\n</step>\n</think>\n<answer>" + answer
    stepped = "</conclusion>\n</step>\n<step>\n    <reasoning>" + search
    chosen = "x</reasoning>\n    <conclusion>" + conclude
    for full in (
        chosen,
        chosen[1:],
        search,
        search[1:],
        "x</search>",
        "</search>",
        conclude,
        conclude[1:],
        stepped,
        "x" + stepped,
        answer,
    ):
        yield from (full[i:] for i in range(len(full)))


@pytest.mark.parametrize(
    "written",
    [
        "", " \n", "a", "a</", "a</reasoning>", "a</reasoning>\n   ", "a</reasoning>\n    <",
        "a</reasoning>\n    <search>", "a</reasoning>\n    <search> q",
        "a</reasoning>\n    <conclusion>o</conclusion>\n</step>\n<",
        "a</reasoning>\n    <conclusion>o</conclusion>\n</step>\n</think>\n<answer>", "\u00a0", "\u3000\u3000",
    ],
)  # fmt: skip
def test_masks_agree_with_a_plain_reading(written):
    constraint = GRAMMAR.start(searches=1)
    constraint.inject(written)
    mask = constraint.allowed()
    for token, piece in enumerate(Words().pieces()):
        if piece is None or not piece.isascii():
            continue
        assert bool(mask[token]) == reading(written + piece.decode()), (written, piece)


def test_white_space_of_any_kind_does_not_fill_a_field():
    close, letter = ord("<"), 257 + WORDS.index(b"\xe3\x80")
    for text, filled in [("\u00a0", False), ("\u3000 \u2003", False), ("あ", True), ("\u00a1", True), ("é", True)]:
        constraint = GRAMMAR.start(searches=1)
        constraint.inject(text)
        assert bool(constraint.allowed()[close]) == filled, text
    constraint = GRAMMAR.start(searches=1)
    constraint.advance(letter)  # two thirds of an ideographic space, or of a letter
    assert not constraint.allowed()[close]
    constraint.advance(0x80)
    assert not constraint.allowed()[close]
    constraint.advance(0x81)
    assert constraint.allowed()[close]


def test_a_full_field_can_only_be_closed():
    constraint = GRAMMAR.start(searches=1, field_tokens=2)
    for token in b"ab":
        constraint.advance(token)
    allowed = {Words().pieces()[i] for i in constraint.allowed().nonzero()[:, 0].tolist()}
    assert allowed == {b"<", b"</", b"</reason"}
    for token in b"</reasoning":
        constraint.advance(token)
    assert constraint.forced > 0


def test_a_full_field_of_white_space_gets_one_more_token():
    constraint = GRAMMAR.start(searches=1, field_tokens=2)
    for token in b"  ":
        constraint.advance(token)
    allowed = {Words().pieces()[i] for i in constraint.allowed().nonzero()[:, 0].tolist()}
    assert b"x" in allowed
    assert b" the" in allowed
    assert not allowed & {b" ", b"<", b"\n", b"  ", b"\xe3\x80"}


def test_nothing_may_follow_a_search_or_the_answer_but_the_end():
    constraint = GRAMMAR.start(searches=1)
    constraint.inject("a</reasoning>\n    <search>q</search>")
    assert constraint.allowed().nonzero()[:, 0].tolist() == [END]
    assert constraint.searches_left == 0
    constraint.inject(CONTEXT)
    assert not constraint.allowed()[END]
    constraint.inject("o</conclusion>\n</step>\n<step>\n    <reasoning>r</reasoning>\n    <")
    assert constraint.steps == 2
    assert {Words().pieces()[i] for i in constraint.allowed().nonzero()[:, 0].tolist()} == {b"c"}


def test_text_the_form_has_no_place_for_changes_nothing():
    constraint = GRAMMAR.start(searches=1)
    constraint.inject("abc</rea")
    before = constraint.allowed()
    constraint.inject("\nThat was neither.\n")
    assert torch.equal(constraint.allowed(), before)


def test_special_tokens_are_never_permitted_inside():
    mask = GRAMMAR.start(searches=1).allowed()
    assert len(mask) == 257 + len(WORDS)
    assert not mask[END]


def test_a_vocabulary_that_cannot_spell_the_tags_is_refused():
    class Short(ByteCodec):
        def pieces(self):
            return [None if i == ord("<") else piece for i, piece in enumerate(super().pieces())]

    with pytest.raises(ToolrollError, match="no token of the model spells '<'"):
        Grammar(Short())


@pytest.mark.parametrize("seed", range(4))
def test_a_random_model_writes_well_formed_text(tiny, seed):
    model = tiny("llama-gqa", seed=seed, codec=Words())
    engine = HFEngine(model.loaded)
    grammar = Grammar(engine.codec)
    constraints = {i: grammar.start(searches=2, max_steps=3, field_tokens=12) for i in range(4)}
    texts = dict.fromkeys(constraints, PREFILL)
    pending = dict.fromkeys(constraints, PREFILL)
    for turn in range(4):
        for i, text in pending.items():
            sampling = Sampling(seed=100 * i + turn, stop=("</search>", "</answer>"), max_tokens=400)
            engine.submit(i, Generate(text, None, sampling, constraints[i]))
        waiting, pending = set(pending), {}
        while waiting:
            for i, done in engine.poll():
                waiting.remove(i)
                texts[i] += done.text
                if done.stop == "</search>":
                    constraints[i].inject(CONTEXT)
                    texts[i] += CONTEXT
                    pending[i] = CONTEXT
    assert not pending
    for i, text in texts.items():
        assert WHOLE.fullmatch(text), text
        assert constraints[i].forced > 0
    assert len(set(texts.values())) == 4


def test_constrained_logprobs_are_the_models_own(tiny):
    model = tiny("llama-gqa", codec=Words())
    engine = HFEngine(model.loaded)
    constraint = Grammar(engine.codec).start(searches=0, max_steps=1, field_tokens=3)
    ids = engine.codec.encode(PREFILL)
    engine.submit(0, Generate("", ids, Sampling(seed=3, max_tokens=60), constraint))
    done = []
    while not done:
        done = engine.poll()
    completion = done[0][1]
    assert completion.logprobs == pytest.approx(model.logprobs(ids + completion.ids, len(ids)), abs=1e-4)
