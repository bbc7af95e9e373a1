"""The interface for images behind servers, scripts and (a stand-in for) vLLM, and the door to all of them."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import re
import sys
import threading
from collections import deque
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import tiny_models
import tiny_pairs

pytest.importorskip("PIL", reason="images are read by pillow")

from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.models import remote_http
from toolroll.models.base import Completion, Sampling
from toolroll.models.codec import HFCodec
from toolroll.models.open import open_image_text
from toolroll.models.options import ModelOptions
from toolroll.models.pictures import Request, Scored
from toolroll.models.pictures_scripted import UNSCRIPTED, ScriptedPictures

IMAGE = {"type": "image"}
GREEDY = Sampling(temperature=0, max_tokens=5)


def text(words):
    return {"type": "text", "text": words}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return [tiny_pairs.picture(folder / f"{colour}.png", colour) for colour in ("red", "blue")]


def ask(*content, images=(), sampling=GREEDY):
    return Request([{"role": "user", "content": list(content)}], sampling, images)


# --- a server


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.reply(200, {"data": [{"id": "seeing", "owned_by": self.server.dialect, "max_model_len": 512}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append((self.path, body))
        with self.server.counting:
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        if self.server.faults:
            self.reply(self.server.faults.popleft(), {"error": {"message": "busy, or too long"}})
        else:
            said = self.look(body["messages"])
            ids = [*map(ord, said), 0]
            choice = {
                "message": {"content": said},
                "finish_reason": "stop",
                "token_ids": ids,
                "logprobs": {"content": [{"logprob": -0.25} for _ in ids]},
            }
            self.reply(200, {"choices": [choice], "usage": {"completion_tokens": len(ids), "prompt_tokens": 3}})
        with self.server.counting:
            self.server.now -= 1

    def look(self, messages):
        """What is in the messages: their text, and the colours of their images."""
        from PIL import Image

        seen = []
        for message in messages:
            parts = message["content"]
            for part in [text(parts)] if isinstance(parts, str) else parts:
                if part["type"] == "text":
                    seen.append(part["text"])
                    continue
                kind, _, content = part["image_url"]["url"].partition(";base64,")
                assert kind == "data:image/png"
                with Image.open(io.BytesIO(base64.b64decode(content))) as image:
                    seen.append(str(image.getpixel((0, 0))))
        return "|".join(seen)

    def reply(self, status, content):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(remote_http, "BASE_S", 0.01)
    for name in remote_http.KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.daemon_threads = True
        made.dialect, made.requests, made.faults = "vllm", [], deque()
        made.counting, made.now, made.most = threading.Lock(), 0, 0
        made.url = f"http://127.0.0.1:{made.server_address[1]}"
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_a_server_sees_images_in_their_places(server, files):
    said = []
    with closing(open_image_text(base_url=server.url, notify=said.append)) as engine:
        found = engine.answer(
            [
                ask(text("left"), IMAGE, text("right"), IMAGE, images=files),
                Request([{"role": "user", "content": "what?"}], GREEDY, files[1:]),
                ask(text("no "), text("image")),
            ]
        )
        assert engine.takes_images
        assert (engine.name, engine.max_context, engine.capacity) == ("openai:seeing", 512, 16)
    assert [one.text for one in found] == ["left|(255, 0, 0)|right|(0, 0, 255)", "(0, 0, 255)|what?", "no image"]
    first = found[0]
    assert (first.finish, first.ids, first.logprobs) == (
        "eos",
        (*map(ord, first.text), 0),
        (-0.25,) * (len(first.text) + 1),
    )
    assert engine.usage.generated == sum(len(one.ids) for one in found)
    assert all(path == "/v1/chat/completions" for path, _ in server.requests)
    bodies = {len(json.dumps(body)): body for _, body in server.requests}
    shortest = bodies[min(bodies)]
    assert shortest["messages"] == [{"role": "user", "content": "no image"}]
    assert (shortest["max_tokens"], shortest["temperature"], shortest["seed"]) == (5, 0, 0)
    assert said == [f"model seeing at {server.url}/v1 (vllm), in text: no token ids, no tokenizer was named"]


def test_a_server_that_is_busy_is_asked_again_and_bad_requests_fail_alone(server, files, tmp_path):
    server.faults.extend([503, 429])
    (tmp_path / "cut.png").write_bytes(files[0].read_bytes()[:60])
    with closing(open_image_text(base_url=server.url, concurrency=3)) as engine:
        good = ask(IMAGE, images=files[:1])
        found = engine.answer(
            [
                good,
                ask(IMAGE, images=[tmp_path / "none.png"]),
                ask(IMAGE, images=[tmp_path / "cut.png"]),
                ask(text("where?"), images=files[:1]),
                *[good] * 8,
            ]
        )
        server.faults.append(400)
        (refused,) = engine.answer([good])
        with pytest.raises(UsageError, match="cannot score given answers: use --backend hf"):
            engine.score([(good, "red")])
    assert [isinstance(one, RowError) for one in found] == [False, True, True, True, *[False] * 8]
    assert [str(found[i]) for i in (1, 3)] == [
        f"{tmp_path}/none.png: No such file or directory",
        "1 images, and places for 0 in the messages",
    ]
    assert "busy, or too long" in str(refused)
    assert server.most <= 3
    assert len(server.requests) == 9 + 2 + 1


def test_answers_of_a_server_are_kept(server, files, tmp_path):
    with closing(open_image_text(base_url=server.url, cache=str(tmp_path / "cache"))) as engine:
        first = engine.answer([ask(IMAGE, images=files[:1]), ask(IMAGE, images=files[1:])])
        again = engine.answer([ask(IMAGE, images=files[1:]), ask(IMAGE, images=files[:1])])
    assert first == again[::-1]
    assert len(server.requests) == 2


# --- a script


def test_a_script_is_matched_with_text_and_images(files, tmp_path):
    script = tmp_path / "script.jsonl"
    rules = [
        {"match": "(<image>.*){2}differ", "reply": "in colour"},
        {"match": "system: be brief\nuser: <image>", "reply": "red"},
        {"match": "hopeless", "error": "no idea"},
    ]
    script.write_text("".join(json.dumps(rule) + "\n" for rule in rules))
    said = []
    engine = open_image_text(backend="scripted", model=str(script), max_context=60, notify=said.append)
    brief = {"role": "system", "content": "be brief"}
    found = engine.answer(
        [
            ask(IMAGE, text(" and "), IMAGE, text(" differ?"), images=files, sampling=Sampling(stop=("col",))),
            Request([brief, {"role": "user", "content": "what?"}], Sampling(), files[:1]),
            ask(text("hopeless")),
            ask(IMAGE, images=[tmp_path / "none.png"]),
            ask(text("a <image>")),
            ask(IMAGE, IMAGE, images=files[:1]),
            ask(text("long " * 12)),
            ask(IMAGE, text("?"), images=files[:1]),
        ]
    )
    assert found[0] == Completion("in col", tuple(b"in col"), (0.0,) * 6, "stop", "col")
    assert found[1].text == "red"
    assert [str(one).split(": ")[-1] for one in found[2:6]] == [
        "no idea",
        "no such file",
        "a message has <image> in its text, which stands for an image in this model's prompts",
        "1 images, and places for 2 in the messages",
    ]
    assert "too many" in str(found[6])
    assert "matches this text" in str(found[7])
    assert [len(request.images) for _, request in engine.requests] == [2, 1, 0, 1]
    assert said == [f"model scripted by {script}"]
    assert engine.usage.generated == 6 + 4


def test_a_script_scores_what_it_would_say(files):
    engine = ScriptedPictures(lambda asked: RowError("mute") if "mute" in asked else "red")
    picture = ask(IMAGE, images=files[:1])
    found = engine.score([(picture, "red"), (picture, "rat"), (picture, [*b"red", 256]), (ask(text("mute")), "red")])
    assert found[0] == Scored(tuple(b"red"), (0.0, 0.0, 0.0))
    assert found[1].logprobs == (0.0, UNSCRIPTED, UNSCRIPTED)
    assert found[2].logprobs == (0.0,) * 4
    assert str(found[3]) == "mute"
    assert str(engine.score([(picture, "")])[0]) == "the answer is empty"
    assert engine.answer([picture])[0].text == "red"


# --- transformers, from a folder


@pytest.mark.parametrize("family", tiny_models.FROM_FOLDERS)
def test_image_text_models_are_opened_from_a_folder(tmp_path, files, family):
    folder = tiny_models.write_image_text(tmp_path, family)
    said = []
    options = ModelOptions(folder, device="cpu", max_tokens=300, batch_size=2)
    with closing(options.open_image_text(said.append)) as engine:
        requests = [ask(IMAGE, text("what?"), images=files[:1]), ask(text("hi")), ask(IMAGE, IMAGE, images=files)]
        found = engine.answer(requests)
        scored = engine.score([(request, one.ids) for request, one in zip(requests, found, strict=True)])
        assert engine.takes_images
        assert (engine.capacity, engine.max_context) == (2, 300)
        assert re.fullmatch("[0-9a-f]{16}", engine.weights_id)
    for one, other in zip(found, scored, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert re.fullmatch(f"model {folder}; transformers on cpu, float32, 1 threads", said[0])
    with pytest.raises(UsageError, match="a tokenizer of its own"):
        open_image_text(model=folder, device="cpu", tokenizer="embedded")


def test_ends_are_those_of_the_generation_settings(tmp_path):
    from transformers import GenerationConfig

    from toolroll.models.device import Device
    from toolroll.models.vision import load_image_text

    folder = tiny_models.write_image_text(tmp_path, "llava")
    GenerationConfig(eos_token_id=[1, 77]).save_pretrained(folder)
    loaded = load_image_text(folder, Device("cpu", "float32", 1, "cpu"))
    assert loaded.codec.eos_ids == {1, 77}


def test_a_text_model_is_opened_and_says_so(tmp_path, files):
    folder = str(tiny_pairs.write_text_model(tmp_path))
    said = []
    with closing(open_image_text(model=folder, device="cpu", notify=said.append)) as engine:
        first, refused = engine.answer([ask(text("hi")), ask(IMAGE, images=files[:1])])
        assert not engine.takes_images
    assert len(first.ids) == 5
    assert "the model takes none" in str(refused)
    assert said[0].endswith("; it takes no images")


def test_the_beginning_of_text_goes_before_a_template_without_one(tmp_path):
    """As transformers does when a processor makes a chat into tokens."""
    from tokenizers.processors import TemplateProcessing

    from toolroll.models.vision import chat_text

    _, processor = tiny_models.image_model("llava")
    words = processor.tokenizer
    messages = [{"role": "user", "content": [text("hi")]}]
    plain = chat_text(processor, messages)
    words.bos_token = "<start>"
    assert chat_text(processor, messages) == plain  # this tokenizer begins no text with it
    begin = ("<start>", words.convert_tokens_to_ids("<start>"))
    words.backend_tokenizer.post_processor = TemplateProcessing(single="<start> $A", special_tokens=[begin])
    assert chat_text(processor, messages) == "<start>" + plain
    made = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert list(HFCodec(words).encode("<start>" + plain)) == made["input_ids"][0]
    processor.chat_template = "<start>" + tiny_pairs.TEMPLATE
    assert chat_text(processor, messages) == "<start>" + plain


def test_a_processor_without_a_template_gets_the_contents():
    from toolroll.models.vision import chat_text

    _, processor = tiny_models.image_model("llava")
    processor.chat_template = None
    messages = [
        {"role": "user", "content": [IMAGE, IMAGE, text("a"), text("b")]},
        {"role": "x", "content": [text("c")]},
    ]
    assert chat_text(processor, messages) == "<image><image>\nab\nc"


# --- what is opened


@pytest.mark.parametrize(("options", "name"), [({}, "sprite"), ({"model": "embedded"}, "embedded")])
def test_an_embedded_model_is_named_with_what_it_is_good_for(monkeypatch, options, name):
    from toolroll.models import load, vision

    def refuse(*_, **__):
        raise ToolrollError("not now")

    monkeypatch.setattr(vision, "takes_images", lambda model, *_, **__: model == "sprite")
    monkeypatch.setattr(vision, "load_image_text", refuse)
    monkeypatch.setattr(load, "load_causal_lm", refuse)
    said = []
    with pytest.raises(ToolrollError, match="not now"):
        ModelOptions("embedded", device="cpu").open_image_text(said.append, **options)
    assert f"model {name}: " in said[0]
    assert "good for" in said[0]
    assert "; not for " in said[0]


def test_contradictions_are_those_of_text():
    with pytest.raises(UsageError, match="needs the address"):
        open_image_text(backend="openai")
    with pytest.raises(UsageError, match="asks no server"):
        open_image_text(backend="hf", base_url="http://h:1")


# --- vLLM, or something that has its methods


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vllm is installed")
def test_without_vllm_the_way_out_is_named(tmp_path):
    folder = tiny_models.write_image_text(tmp_path, "llava")
    with pytest.raises(ToolrollError, match=r"toolroll\[vllm\].*--backend openai --base-url"):
        open_image_text(backend="vllm", model=folder)


class StandIn:
    """The methods of vLLM's engine that are called, for a model that writes 100, 101, and the end."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.asked, self.queue = [], []
        self.model_config = SimpleNamespace(max_model_len=200)
        self.vllm_config = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=2))
        self.most = 0

    def get_tokenizer(self):
        return self.tokenizer

    def add_request(self, name, prompt, params):
        self.asked.append((prompt, params))
        if len(prompt.get("multi_modal_data", {}).get("image", ())) > 2:
            raise ValueError("at most 2 images")
        self.queue.append((name, prompt, params))
        self.most = max(self.most, len(self.queue))

    def step(self):
        if not self.queue:
            return []
        name, prompt, params = self.queue.pop(0)
        filled = [i for one in prompt["prompt_token_ids"] for i in [one] * (16 if one == 2 else 1)]
        ids = (100, 101, 1)[: params.max_tokens]
        finish = "stop" if len(ids) == 3 else "length"
        logprobs = [{i: SimpleNamespace(logprob=-float(i))} for i in ids]
        written = SimpleNamespace(token_ids=ids, finish_reason=finish, stop_reason=None, logprobs=logprobs)
        read = [None, *({i: SimpleNamespace(logprob=-float(i) / 8)} for i in filled[1:])]
        return [
            SimpleNamespace(
                request_id=name,
                finished=True,
                outputs=[written],
                prompt_token_ids=filled,
                prompt_logprobs=read if hasattr(params, "prompt_logprobs") else None,
                num_cached_tokens=0,
            )
        ]


def test_what_vllm_is_asked(monkeypatch, tmp_path, files):
    """Not vLLM itself: the requests made of ours, and our answers made of its."""
    from toolroll.models import vllm as back

    folder = tiny_models.write_image_text(tmp_path, "llava")
    fake = SimpleNamespace(
        exceptions=SimpleNamespace(VLLMError=OSError),
        sampling_params=SimpleNamespace(RequestOutputKind=SimpleNamespace(FINAL_ONLY=2)),
        SamplingParams=SimpleNamespace,
    )
    made = []

    def engine_of(_, *, model, **settings):
        from transformers import AutoTokenizer

        made.append((StandIn(AutoTokenizer.from_pretrained(model)), settings))
        return made[0][0]

    monkeypatch.setattr(back, "imported", lambda: fake)
    monkeypatch.setattr(back, "_engine", engine_of)
    engine = open_image_text(backend="vllm", model=folder, max_context=200)
    inner, settings = made[0]
    assert settings["max_model_len"] == 200
    good = ask(text("a"), IMAGE, text("b"), IMAGE, images=files, sampling=Sampling(max_tokens=9, seed=4))
    bad = [
        ask(IMAGE, images=[tmp_path / "none.png"]),
        ask(IMAGE, IMAGE, IMAGE, images=[*files, files[0]]),
        ask(text("long " * 50)),
    ]
    found = engine.answer([good, *bad, *[ask(text("hi"))] * 6])
    assert found[0] == Completion(engine.codec.decode([100, 101]), (100, 101, 1), (-100.0, -101.0, -1.0), "eos")
    assert [type(one) for one in found[1:4]] == [RowError] * 3
    assert "at most 2 images" in str(found[2])
    assert len(found) == 10
    assert inner.most <= 4
    prompt, params = inner.asked[0]
    words = engine.codec.decode([i for i in prompt["prompt_token_ids"] if i != 2])
    assert prompt["prompt_token_ids"].count(2) == 2  # a token an image; vLLM makes more of it
    assert words.startswith("ab")
    assert [image.getpixel((0, 0)) for image in prompt["multi_modal_data"]["image"]] == [(255, 0, 0), (0, 0, 255)]
    assert (params.seed, params.max_tokens) == (4, 9)

    answer = (40, 50, 60)
    scored, refused, gone = engine.score(
        [(good, answer), (ask(text("hi"), sampling=Sampling(0.5)), "a"), (bad[0], "a")]
    )
    assert scored == Scored(answer, (-5.0, -6.25, -7.5))
    assert "at temperature 1 only" in str(refused)
    assert "none.png" in str(gone)


def test_importing_the_door_loads_nothing_heavy():
    import subprocess

    heavy = ("torch", "transformers", "vllm", "httpx2", "numpy", "PIL", "asyncio")
    code = (
        "import sys, toolroll.models.open, toolroll.models.pictures, toolroll.models.pictures_scripted, "
        f"toolroll.models.images; print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
