"""Samples on one engine: prompts, transcripts, seeds, order, failures and the following of a policy."""

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from toolroll.errors import RowError, ToolrollError
from toolroll.io.rows import Row
from toolroll.models import rollouts as module
from toolroll.models.answers import Answer, Prompter, fill, read_template
from toolroll.models.base import Completion, Sampling
from toolroll.models.codec import HFCodec
from toolroll.models.episodes import drive
from toolroll.models.options import ModelOptions, PolicyOptions, PromptOptions
from toolroll.models.policy import PolicyVersion
from toolroll.models.rollouts import Rollouts, Sample, Transcript
from toolroll.models.scripted import END, ByteCodec, ScriptedEngine
from toolroll.run.log import Log
from toolroll.run.rows import Rows
from toolroll.run.seeds import record_seed


def row(index, **fields):
    import msgspec

    raw = {"id": f"q{index}", **fields}
    seen = SimpleNamespace(**{"prompt": None, "messages": None, "draw": None, **raw})
    return Row(msgspec.json.encode(raw), seen, index, "in.jsonl", index + 1)


def rows_of(items, done=lambda _key: False):
    return Rows(iter(items), lambda: True, done, lambda _row: None)


class Engine(ScriptedEngine):
    """A scripted engine whose weights can be exchanged: replies name the weights."""

    def __init__(self, reply=lambda text: text[-1], **settings):
        super().__init__(lambda text: f"{self.weights_id} {reply(text)}", **settings)
        self.weights_id = "old"
        self.loaded = []

    def reload(self, path):
        self.weights_id = path.name
        self.loaded.append(path.name)


@pytest.fixture
def make(monkeypatch, tmp_path):
    """Rollouts on `engine`, whose policy's current version is `make.version`."""

    def build(engine, samples=1, follow=False, stop=None):
        monkeypatch.setattr(ModelOptions, "open", lambda *_args, **_settings: engine)
        monkeypatch.setattr(
            module, "current_policy", lambda _folder: PolicyVersion(tmp_path / build.version, build.version)
        )
        policy = PolicyOptions(tmp_path if follow else None, follow)
        return Rollouts(
            ModelOptions("scripted"),
            policy,
            samples=samples,
            seed=1,
            log=Log("t"),
            stop=stop or threading.Event().is_set(),
        )

    build.version = "old"
    return build


def begin_on(engine, seeds=None):
    def begin(row, _number, seed):
        if seeds is not None:
            seeds.append(seed)
        answer = Answer(engine.codec, Sampling(seed=seed))
        return Sample(answer.episode(row.view.prompt), answer.fields, {"first": 1})

    return begin


def test_samples_come_in_order_with_seeds_that_ids_samples_and_draws_give(make):
    engine, seeds = Engine(capacity=2), []
    given = [row(0, prompt="a"), row(1, prompt="b", draw=0), row(2, id="q1", prompt="b", draw=5)]
    made = [out.encode() for out in make(engine, samples=2).run(rows_of(given), begin_on(engine, seeds))]
    import msgspec

    made = [msgspec.json.decode(line) for line in made]
    assert [(out["id"], out["sample"], out["response"]) for out in made] == [
        (f"q{i}", n, f"old {letter}") for i, letter in ((0, "a"), (1, "b"), (1, "b")) for n in (0, 1)
    ]
    expected = [record_seed(1, "q0", n) for n in (0, 1)]
    expected += [record_seed(1, "q1", n, draw) for draw in (0, 5) for n in (0, 1)]
    assert [out["seed"] for out in made] == expected == seeds
    assert len(set(seeds)) == 6
    assert list(made[0])[2:8] == ["first", "sample", "prompt_id", "model", "policy_version", "seed"]


def test_a_sample_that_was_written_before_is_not_made_again(make):
    engine = Engine()
    written = [(b'"q0"', b"1")]
    given = rows_of([row(0, prompt="a")], done=lambda key: key in written)
    made = list(make(engine, samples=3).run(given, begin_on(engine)))
    assert [out.fields() | out._added for out in made if out._added["sample"] == 1] == []
    assert [out._added["sample"] for out in made] == [0, 2]


def test_a_sample_that_cannot_begin_fails_alone(make):
    engine = Engine()
    answers = begin_on(engine)

    def begin(row, number, seed):
        if row.view.prompt == "b":
            raise RowError("nothing to ask")
        return answers(row, number, seed)

    made = list(make(engine).run(rows_of([row(i, prompt=letter) for i, letter in enumerate("abc")]), begin))
    assert [out.error and out.error["why"] for out in made] == [None, "nothing to ask", None]
    assert made[1]._added["sample"] == 0


def test_a_new_version_is_loaded_when_the_samples_under_way_have_ended(make):
    engine = Engine(capacity=2)
    rollouts = make(engine, samples=2, follow=True)

    def given():
        for i in range(6):
            if i == 3:
                make.version = "new"
            yield row(i, prompt=str(i))

    made = [out._added for out in rollouts.run(rows_of(given()), begin_on(engine))]
    assert engine.loaded == ["new"]
    assert [out["response"] for out in made] == [f"{'old' if i < 3 else 'new'} {i}" for i in range(6) for _ in range(2)]
    assert [out["policy_version"] for out in made] == ["old"] * 6 + ["new"] * 6


def test_without_follow_the_first_version_stays(make):
    engine = Engine()
    rollouts = make(engine)
    make.version = "new"
    list(rollouts.run(rows_of([row(0, prompt="a")]), begin_on(engine)))
    assert engine.loaded == []


def test_an_engine_that_cannot_reload_says_so(make):
    engine = Engine()
    engine.reload = None
    rollouts = make(engine, follow=True)
    make.version = "new"
    with pytest.raises(ToolrollError, match="--follow: scripted cannot load new weights"):
        list(rollouts.run(rows_of([row(0, prompt="a")]), begin_on(engine)))


def test_a_transcript_knows_who_wrote_what():
    transcript = Transcript()
    transcript.inject("ab", (1, 2))
    transcript.write(Completion("cd", (3, 4), (-0.5, -1.0), "stop"))
    assert transcript.fields([9]) == {
        "prompt_ids": [9],
        "response_ids": [1, 2, 3, 4],
        "loss_mask": [0, 0, 1, 1],
        "logprobs": [0.0, 0.0, -0.5, -1.0],
    }
    transcript.write(Completion("e", None, None, "eos"))
    assert transcript.text == "abcde"
    assert set(transcript.fields([9]).values()) == {None}


def answered(reply, *, prefill="", context=None, codec=True, **sampling):
    engine = ScriptedEngine([reply], max_context=context)
    known = ByteCodec() if codec else None
    answer = Answer(known, Sampling(**sampling), prefill=prefill, context=context)
    ((_, result),) = drive(engine, [("x", answer.episode("Q:"))])
    return answer, result


@pytest.mark.parametrize(
    ("sampling", "response", "ids", "finish"),
    [
        ({}, "A: yes. no", (*b"A: yes. no", END), "eos"),
        ({"stop": (".",)}, "A: yes.", (*b"A: yes.",), "stop"),
        ({"max_tokens": 2}, "A: y", (*b"A: y",), "token_limit"),
    ],
    ids=["eos", "stop", "token_limit"],
)
def test_an_answer_begins_with_the_prefill_which_is_not_the_models(sampling, response, ids, finish):
    _, result = answered(" yes. no", prefill="A:", **sampling)
    assert (result["prompt"], result["response"], result["finish"]) == ("Q:", response, finish)
    assert result["prompt_ids"] == (*b"Q:",)
    assert tuple(result["response_ids"]) == ids
    assert result["loss_mask"] == [0, 0] + [1] * (len(ids) - 2)
    assert result["logprobs"] == [0.0] * len(ids)


def test_an_engine_that_works_in_text_gets_the_prefill_too():
    _, result = answered(" yes", prefill="A:", codec=False)
    assert (result["response"], result["response_ids"], result["prompt_ids"]) == ("A: yes", None, None)


def test_what_was_made_before_a_failure_is_told():
    answer, error = answered(RowError("broke"), prefill="A:")
    assert str(error) == "broke"
    assert answer.fields() == {
        "prompt": "Q:",
        "response": "A:",
        "finish": "error",
        "prompt_ids": (*b"Q:",),
        "response_ids": [*b"A:"],
        "loss_mask": [0, 0],
        "logprobs": [0.0, 0.0],
    }


def test_a_prompt_that_fills_the_context_is_no_empty_answer():
    _, error = answered("yes", prefill="A:", context=4)
    assert str(error) == "the prompt has 4 tokens; the longest sequence has 4"
    assert answered("yes", prefill="A:", context=5)[1]["response"] == "A:y"


def test_a_template_takes_what_it_names_and_nothing_else():
    fields = {"a": "{b}", "b": [1, "ü"], "c": None}
    assert fill(r"{a} {b} {{a}} \boxed{ } {a.b} {", fields) == r'{b} [1,"ü"] {a} \boxed{ } {a.b} {'
    for name in ("c", "d"):
        with pytest.raises(RowError, match=f"names {{{name}}}, which"):
            fill(f"{{{name}}}", fields)


def test_a_prompt_file_that_cannot_be_read(tmp_path):
    (tmp_path / "latin").write_bytes(b"\xe9")
    with pytest.raises(ToolrollError, match="latin: not UTF-8"):
        read_template(tmp_path / "latin")
    with pytest.raises(ToolrollError, match="Is a directory"):
        read_template(tmp_path)


def test_a_prompt_file_may_be_a_pipe():
    """It is read once, however many prompters are made."""
    read, write = os.pipe()
    with open(write, "w") as pipe:
        pipe.write("Ask {id}")
    options = PromptOptions(Path(f"/dev/fd/{read}"))
    try:
        assert [options.prompter(str).messages(row(3))[0]["content"] for _ in range(2)] == ["Ask q3", "Ask q3"]
    finally:
        os.close(read)


def test_a_system_message_goes_before_messages_without_one():
    def said(message):
        return SimpleNamespace(**message)

    system, user = {"role": "system", "content": "own"}, {"role": "user", "content": "hi"}
    prompter = Prompter(lambda messages: repr(messages), system="given")
    assert prompter(row(0, prompt="hi")) == repr([{"role": "system", "content": "given"}, user])
    with_own = row(0)
    with_own.view.messages = [said(system), said(user)]
    assert prompter(with_own) == repr([system, user])


def test_messages_that_the_chat_template_refuses_fail_their_row():
    import transformers
    from tokenizers import Tokenizer, models

    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])))
    tokenizer.chat_template = "{% if messages[0].role != 'user' %}{{ raise_exception('who is this?') }}{% endif %}ok"
    codec = HFCodec(tokenizer)
    assert codec.chat([{"role": "user", "content": "hi"}]) == "ok"
    with pytest.raises(RowError, match=r"the chat template refuses these messages: who is this\?"):
        codec.chat([{"role": "elf", "content": "hi"}])
