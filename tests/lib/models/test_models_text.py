"""The engine against transformers' own generate and against reading everything anew for every token."""

import random

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolroll.errors import RowError, ToolrollError
from toolroll.models.base import Generate, Sampling
from toolroll.models.device import Device
from toolroll.models.load import Loaded
from toolroll.models.scripted import ByteCodec
from toolroll.models.text import HFEngine

CLOSE = 1e-4  # nats


def greedy(count, **more):
    return Sampling(temperature=0.0, max_tokens=count, **more)


def prompts(*lengths, seed=0):
    draw = random.Random(seed)
    return [tuple(draw.randrange(256) for _ in range(length)) for length in lengths]


def run(engine, requests):
    """Completions of {key: request}, until all are there."""
    for key, request in requests.items():
        engine.submit(key, request)
    done = {}
    while len(done) < len(requests):
        for key, result in engine.poll():
            assert key not in done
            done[key] = result
    return done


def asks(ids_of, sampling):
    return {i: Generate("", ids, sampling) for i, ids in enumerate(ids_of)}


def check(tiny, completion, before):
    """The completion is what the plain model writes after `before`, with its log-probs."""
    ids, logprobs = tiny.continuation(before, len(completion.ids))
    assert completion.ids == ids
    assert completion.logprobs == pytest.approx(logprobs, abs=CLOSE)


def test_ragged_batch_equals_plain_recomputation(family):
    texts = prompts(3, 40, 17, 1, 28, 9, 33, 22)
    done = run(HFEngine(family.loaded), asks(texts, greedy(20)))
    for i, ids in enumerate(texts):
        check(family, done[i], ids)
        assert done[i].finish == "length"


def test_equals_generate_of_transformers(family):
    ids = prompts(23)[0]
    (completion,) = run(HFEngine(family.loaded), asks([ids], greedy(24))).values()
    family.plain.generation_config.eos_token_id = None
    wanted = family.plain.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, 23), max_new_tokens=24, do_sample=False
    )
    assert completion.ids == tuple(wanted[0, 23:].tolist())


def test_batch_of_one_of_eight_and_staggered_arrivals_agree(family):
    texts = prompts(12, 30, 5, 21, 18, 27, 3, 14, seed=1)
    requests = asks(texts, greedy(15))
    alone = {}
    for key, request in requests.items():
        alone |= run(HFEngine(family.loaded, batch=1), {key: request})
    together = run(HFEngine(family.loaded, batch=8), requests)
    engine, staggered = HFEngine(family.loaded, batch=3, chunk=8), {}
    waiting = list(requests.items())
    while len(staggered) < len(requests):
        if waiting:
            engine.submit(*waiting.pop(0))
        for key, result in engine.poll():
            staggered[key] = result
            engine.release(key)
    for key in requests:
        assert alone[key].ids == together[key].ids == staggered[key].ids
        assert alone[key].logprobs == pytest.approx(together[key].logprobs, abs=CLOSE)
        assert alone[key].logprobs == pytest.approx(staggered[key].logprobs, abs=CLOSE)


def test_later_turns_read_only_what_was_appended(family):
    engine = HFEngine(family.loaded, batch=4)
    texts = {i: list(ids) for i, ids in enumerate(prompts(20, 7, 31, 12))}
    appended = 0
    for turn in range(3):
        new = prompts(5, 11, 2, 26, seed=turn) if turn else [tuple(ids) for ids in texts.values()]
        for i in texts:
            texts[i] = texts[i] + list(new[i]) if turn else texts[i]
            appended += len(new[i])
        done = run(engine, asks(new, greedy(6 + turn)))
        for i in texts:
            check(family, done[i], texts[i])
            texts[i] += done[i].ids
    assert engine.usage.prefilled == appended
    assert engine.usage.generated == 4 * (6 + 7 + 8)


def test_samples_of_one_prompt_read_it_once(tiny):
    model = tiny("llama-gqa")
    engine = HFEngine(model.loaded)
    ids = prompts(50)[0]
    done = run(engine, asks([ids] * 6, greedy(10)))
    for completion in done.values():
        check(model, completion, ids)
    assert engine.usage.prefilled == 50 + 5  # each further one reads the last token, whose logits it needs
    assert engine.usage.reused == 5 * 49


def test_a_common_instruction_is_read_once_and_remembered(family):
    engine = HFEngine(family.loaded, batch=4)
    instruction = prompts(60)[0]
    questions = prompts(9, 14, 6, 11, 8, seed=3)
    texts = [instruction + question for question in questions]
    done = run(engine, asks(texts[:4], greedy(8)))
    assert engine.usage.prefilled == 60 + 9 + 14 + 6 + 11
    for i in range(4):
        check(family, done[i], texts[i])
        engine.release(i)
    (late,) = run(engine, {"late": Generate("", texts[4], greedy(8))}).values()
    check(family, late, texts[4])
    assert engine.usage.prefilled == 60 + 9 + 14 + 6 + 11 + 8


def test_a_prompt_read_in_part_is_a_prefix_only_that_far(family):
    engine = HFEngine(family.loaded, chunk=8)
    ids = prompts(20)[0]
    engine.submit("first", Generate("", ids, greedy(4)))
    engine.poll()
    done = {}
    engine.submit("second", Generate("", ids, greedy(4)))
    while len(done) < 2:
        done |= dict(engine.poll())
    assert engine.usage.reused == 8
    check(family, done["first"], ids)
    check(family, done["second"], ids)


def test_long_prompts_are_read_in_pieces_while_others_write(tiny):
    model = tiny("mistral")
    engine = HFEngine(model.loaded, chunk=7)
    short, long = prompts(4, 90)
    engine.submit("short", Generate("", short, greedy(6)))
    engine.poll()
    engine.submit("long", Generate("", long, greedy(6)))
    done = []
    while len(done) < 2:
        done += engine.poll()
    assert [key for key, _ in done] == ["short", "long"]
    check(model, done[0][1], short)
    check(model, done[1][1], long)


def test_sequences_that_wait_keep_what_they_read_when_rows_are_exchanged(family):
    engine = HFEngine(family.loaded, batch=4)
    texts = prompts(9, 26, 14, 33)
    for i, ids in enumerate(texts):
        engine.submit(i, Generate("", ids, greedy(1 if i < 3 else 12)))  # the last one is left alone, and moves
    done = {}
    while len(done) < 4:
        done |= dict(engine.poll())
    again = prompts(4, 3, 6, 5, seed=8)
    second = run(engine, asks(again, greedy(6)))
    for i, ids in enumerate(texts):
        check(family, done[i], ids)
        check(family, second[i], ids + done[i].ids + again[i])
    assert engine.usage.prefilled == sum(map(len, texts + again))


def test_sequences_that_lost_their_row_are_read_again(tiny):
    model = tiny("llama-gqa")
    engine = HFEngine(model.loaded, batch=2)  # two rows for six sequences of two turns
    texts = prompts(20, 25, 9, 13, 31, 17)
    first = run(engine, asks(texts, greedy(5)))
    again = prompts(4, 6, 3, 8, 5, 7, seed=5)
    second = run(engine, asks(again, greedy(5)))
    for i, ids in enumerate(texts):
        check(model, first[i], ids)
        check(model, second[i], ids + first[i].ids + again[i])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_schedule_equals_plain_recomputation(tiny, data):
    model = tiny(data.draw(st.sampled_from(["llama-gqa", "qwen2-mixed"])))
    engine = HFEngine(model.loaded, batch=data.draw(st.integers(1, 4)), chunk=data.draw(st.sampled_from([5, 64])))
    texts, writing, done = {}, set(), 0
    for step in range(data.draw(st.integers(1, 14))):
        act = data.draw(st.sampled_from(["submit", "poll", "poll", "release"]))
        key = data.draw(st.integers(0, 4))
        if act == "submit" and key not in writing:
            new = tuple(data.draw(st.lists(st.sampled_from([65, 66]), min_size=1, max_size=40)))
            texts[key] = texts.get(key, ()) + new
            writing.add(key)
            engine.submit(key, Generate("", new, greedy(1 + step % 4)))
        elif act == "release" and key in texts and key not in writing:
            engine.release(key)
            del texts[key]
        done += _collect(model, engine, texts, writing)
    while writing:
        done += _collect(model, engine, texts, writing)
    assert engine.poll() == []


def _collect(model, engine, texts, writing):
    finished = engine.poll()
    for key, completion in finished:
        check(model, completion, texts[key])
        texts[key] += completion.ids
        writing.remove(key)
    return len(finished)


def test_a_seed_draws_the_same_whatever_shares_the_batch(tiny):
    loaded = tiny("llama-gqa").loaded
    texts = prompts(12, 30, 5, 21, 18, 27)
    requests = {
        i: Generate("", ids, Sampling(seed=i, max_tokens=25, temperature=(0.7, 1.0)[i % 2], top_p=(0.9, 1.0)[i // 3]))
        for i, ids in enumerate(texts)
    }
    together = run(HFEngine(loaded), requests)
    backwards = run(HFEngine(loaded, batch=2), dict(reversed(requests.items())))
    for key, request in requests.items():
        (alone,) = run(HFEngine(loaded), {key: request}).values()
        assert alone.ids == together[key].ids == backwards[key].ids
    other = run(HFEngine(loaded), {0: Generate("", texts[0], Sampling(seed=99, max_tokens=25))})
    assert other[0].ids != together[0].ids


def test_logprobs_are_those_of_the_tempered_model_before_any_cut(tiny):
    model = tiny("llama-gqa")
    ids = prompts(15)[0]
    sampling = Sampling(seed=4, temperature=0.6, top_p=0.7, top_k=20, max_tokens=30)
    (completion,) = run(HFEngine(model.loaded), asks([ids], sampling)).values()
    wanted = model.logprobs(ids + completion.ids, len(ids), temperature=0.6)
    assert completion.logprobs == pytest.approx(wanted, abs=CLOSE)


def test_end_of_text_ends_a_completion(tiny):
    model = tiny("llama-gqa")
    ids = prompts(10)[0]
    written, _ = model.continuation(ids, 30)
    end = written[4]
    codec = ByteCodec()
    codec.eos_ids = frozenset({end})
    engine = HFEngine(tiny("llama-gqa", codec=codec).loaded)
    (completion,) = run(engine, asks([ids], greedy(30))).values()
    assert completion.finish == "eos"
    assert completion.ids == written[: written.index(end) + 1]
    assert len(completion.logprobs) == len(completion.ids)
    assert completion.text == codec.decode(completion.ids[:-1])


def test_a_stop_string_ends_a_completion_with_the_token_that_completes_it(tiny):
    model = tiny("llama-gqa")
    ids, codec = prompts(10)[0], ByteCodec()
    written, _ = model.continuation(ids, 40)
    at = next(i for i in range(8, 38) if all(32 < byte < 127 for byte in written[i : i + 2]))
    stop = bytes(written[at : at + 2]).decode()
    (completion,) = run(HFEngine(model.loaded), asks([ids], greedy(40, stop=("never so", stop)))).values()
    first = codec.decode(written).index(stop)
    assert (completion.finish, completion.stop) == ("stop", stop)
    assert completion.text == codec.decode(written)[: first + 2]


@pytest.mark.parametrize(("prompt", "limit", "count"), [(10, 14, 4), (10, 10, 0), (12, 10, 0)])
def test_the_context_ends_a_completion(tiny, prompt, limit, count):
    engine = HFEngine(tiny("llama-gqa").loaded, max_context=limit)
    (completion,) = run(engine, asks(prompts(prompt), greedy(30))).values()
    assert completion.finish == "length"
    assert len(completion.ids) == len(completion.logprobs) == count


def test_max_context_is_at_most_what_the_model_was_trained_for(tiny):
    assert HFEngine(tiny("llama-gqa").loaded).max_context == 512
    assert HFEngine(tiny("llama-gqa").loaded, max_context=10_000).max_context == 512


def test_a_bad_request_fails_alone(tiny):
    model = tiny("llama-gqa")
    good = prompts(6)[0]
    done = run(
        HFEngine(model.loaded),
        {
            "good": Generate("", good, greedy(5)),
            "id": Generate("", (5, 300), greedy(5)),
            "empty": Generate("", (), greedy(5)),
        },
    )
    check(model, done["good"], good)
    assert isinstance(done["id"], RowError)
    assert "0..299" in str(done["id"])
    assert isinstance(done["empty"], RowError)


def test_output_that_is_no_number_fails_its_row(tiny):
    loaded = tiny("llama-gqa").loaded
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[7] = float("nan")
    done = run(HFEngine(loaded), asks([(5, 6, 8), (5, 7, 8)], greedy(3)))
    assert isinstance(done[1], RowError)
    assert len(done[0].ids) == 3 or isinstance(done[0], RowError)


def test_a_sequence_that_writes_takes_no_second_request(tiny):
    engine = HFEngine(tiny("llama-gqa").loaded)
    engine.submit("a", Generate("", (1, 2), greedy(5)))
    with pytest.raises(ToolrollError, match="a: this sequence is still being written"):
        engine.submit("a", Generate("", (3,), greedy(5)))


def test_text_is_encoded_when_no_ids_are_given(tiny):
    model = tiny("llama-gqa")
    (completion,) = run(HFEngine(model.loaded), {0: Generate("hello", None, greedy(5))}).values()
    check(model, completion, b"hello")


def test_chat_answers_in_order_and_lets_others_go_on(tiny):
    model = tiny("llama-gqa")
    engine = HFEngine(model.loaded, batch=2)
    engine.submit("other", Generate("", (1, 2, 3), greedy(3)))
    conversations = [[{"role": "user", "content": text}] for text in ("one", "two", "three")]
    answers = engine.chat([(messages, greedy(7)) for messages in conversations])
    for messages, answer in zip(conversations, answers, strict=True):
        check(model, answer, engine.codec.encode(engine.codec.chat(messages)))
    ((key, other),) = engine.poll()
    assert key == "other"
    check(model, other, (1, 2, 3))


def test_released_while_writing(tiny):
    model = tiny("llama-gqa")
    engine = HFEngine(model.loaded)
    texts = prompts(5, 8)
    for i, ids in enumerate(texts):
        engine.submit(i, Generate("", ids, greedy(6)))
    engine.poll()
    engine.release(0)
    done = []
    while not done:
        done = engine.poll()
    assert [key for key, _ in done] == [1]
    check(model, done[0][1], texts[1])


def test_reload_changes_the_weights_and_forgets_what_was_read(tiny, tmp_path, monkeypatch):
    first, second = tiny("llama-gqa", seed=0), tiny("llama-gqa", seed=1)
    other = Loaded(second.loaded.model, second.loaded.codec, "tiny", "1" * 16, second.loaded.device)
    monkeypatch.setattr("toolroll.models.text.load_causal_lm", lambda path, device: other)
    engine = HFEngine(first.loaded)
    ids, more = prompts(20, 5)
    (before,) = run(engine, asks([ids], greedy(6))).values()
    check(first, before, ids)
    engine.submit("writing", Generate("", ids, greedy(2)))
    with pytest.raises(ToolrollError, match="old weights"):
        engine.reload(tmp_path)
    engine.release("writing")
    engine.reload(tmp_path)
    assert engine.weights_id == "1" * 16
    (after,) = run(engine, asks([more], greedy(6))).values()
    check(second, after, ids + before.ids + more)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (lambda c: transformers.Gemma2Config(**c, head_dim=16, num_key_value_heads=2), "soft-capped"),
        (lambda c: transformers.Lfm2Config(**c, num_key_value_heads=2, layer_types=["conv", "full_attention"]), "conv"),
        (lambda c: transformers.MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=1), "attention"),
    ],
)
def test_models_it_cannot_run_are_refused(config, why):
    sizes = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "pad_token_id": 0}
    model = transformers.AutoModelForCausalLM.from_config(config(sizes))
    loaded = Loaded(model, ByteCodec(), "odd", "0" * 16, Device("cpu", "float32", 1, "cpu"))
    with pytest.raises(ToolrollError, match=why) as caught:
        HFEngine(loaded)
    assert caught.value.place == "odd"
