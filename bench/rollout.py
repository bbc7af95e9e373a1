"""Tokens a second of rag-rollout beside a loop in lockstep that reads the whole context again each turn.

    python bench/rollout.py [--questions 8] [--turn-tokens 96] [--searches 3] [--rows 400] [--json FILE]

Both run the embedded model in float32 on the same questions, with the same retriever, prompt, caps and greedy
decoding. The peer works as Search-R1's training loop does: in each turn it decodes the texts so far, tokenizes them,
pads them on the left, generates for all that are still going, cuts after the first stop string, searches for all of
them at once, and appends the passages. It has stop criteria of transformers, which Search-R1's loop does not: without
them it would write every turn to its cap. Tokens counted are those the model wrote and that stand in a trajectory. One
untimed warm-up each.

"All but the model" is the CPU time that the command takes for a rollout when a script answers at once, start-up left
out: rows, prompts, two turns, a search, the writing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import orjson
import torch
from common import Line

from toolroll.models.base import Sampling
from toolroll.models.device import choose_device
from toolroll.models.episodes import drive
from toolroll.models.load import load_causal_lm
from toolroll.models.text import HFEngine
from toolroll.rag.bm25 import Bm25Retriever, build_bm25
from toolroll.rag.corpus import read_corpus, render
from toolroll.rag.protocol import PROTOCOLS, find_action
from toolroll.rag.rollout import Limits, Rollout, search_all

PROTOCOL = PROTOCOLS["hiprag"]
STEP = "<step><reasoning>Who?</reasoning><search>{query}</search>"
ANSWER = "<conclusion>So.</conclusion></step></think><answer>yes</answer>"


def measure(arguments: argparse.Namespace) -> list[Line]:
    """A line for the tokens, and one for all but the model."""
    lines = (common.HOTPOTQA / "questions.jsonl").read_bytes().splitlines()[: arguments.questions]
    limits = Limits(arguments.searches, topk=2, turn_tokens=arguments.turn_tokens, context_tokens=200)
    device = choose_device("cpu")
    engine = HFEngine(load_causal_lm("embedded", device), batch=len(lines))
    peer = load_causal_lm("embedded", device)
    prompts = [_prompt(peer.codec, orjson.loads(line)["question"]) for line in lines]
    rate: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        build_bm25(read_corpus(common.HOTPOTQA / "corpus.jsonl.gz"), index)
        retriever = Bm25Retriever(index)
        for name, run in (
            ("lockstep, reads again", lambda texts: lockstep(peer, retriever, texts, limits)),
            ("rag-rollout (hf)", lambda texts: ours(engine, retriever, texts, limits)),
        ):
            run(prompts[:1])
            began, began_cpu = time.perf_counter(), time.process_time()
            tokens = run(prompts)
            rate[name] = tokens / (time.perf_counter() - began)
            cpu_s = time.process_time() - began_cpu
        retriever.close()
        rest_s = scripted(Path(folder), index, arguments.rows)
    (peer_name, theirs), (name, tokens_a_second) = rate.items()
    return [
        Line(name, "tokens/s", tokens_a_second, peer_name, theirs),
        Line("all but the model", "CPU ms/rollout", 1e3 * rest_s, name, 1e3 * cpu_s / len(prompts)),
    ]


def scripted(folder: Path, index: Path, count: int) -> float:
    """CPU seconds of a rollout of the command whose model is a script."""
    script = folder / "script.jsonl"
    replies = {"</context>": ANSWER, "": STEP.format(query="Where was she born?")}
    script.write_text("".join(json.dumps({"match": match, "reply": text}) + "\n" for match, text in replies.items()))
    used = {}
    for rows in (1, count):
        questions = folder / f"{rows}.jsonl"
        asked = ({"id": f"q{i}", "question": f"Where was number {i} born?"} for i in range(rows))
        questions.write_text("".join(json.dumps(row) + "\n" for row in asked))
        argv = ["rag-rollout", "--backend", "scripted", "--model", script, "--retriever", f"bm25:{index}", questions]
        used[rows] = common.cost([common.BIN / argv[0], *argv[1:]], runs=2).cpu_s
    return (used[count] - used[1]) / (count - 1)


def _prompt(codec: Any, question: str) -> str:
    text: str = codec.chat([{"role": "user", "content": PROTOCOL.prompt(question)}])
    return text


def ours(engine: Any, retriever: Any, prompts: list[str], limits: Limits) -> int:
    """Run the rollouts as the command does; the tokens the model wrote."""
    rollouts = [Rollout(PROTOCOL, engine.codec, limits, Sampling(temperature=0), prompt=prompt) for prompt in prompts]
    episodes = ((number, rollout.episode()) for number, rollout in enumerate(rollouts))
    results = drive(engine, episodes, calls=search_all(retriever, limits.topk))
    return sum(sum(row["loss_mask"]) for _, row in results)


def lockstep(peer: Any, retriever: Any, prompts: list[str], limits: Limits) -> int:
    """The same trajectories turn by turn, all at once; the tokens the model wrote."""
    codec, model = peer.codec, peer.model
    texts = [prompt + PROTOCOL.prefill for prompt in prompts]
    going = list(range(len(texts)))
    written = 0
    for turn in range(limits.max_searches + 1):
        replies = generate(model, codec.tokenizer, [texts[i] for i in going], limits.turn_tokens)
        queries: dict[int, str] = {}
        for i, (text, tokens) in zip(going, replies, strict=True):
            written += tokens
            texts[i] += text
            action = find_action(PROTOCOL, text)
            if action is None:
                texts[i] += PROTOCOL.notice
            elif action[0] == "search":
                queries[i] = action[1]
            if action is not None and action[0] == "answer":
                queries.pop(i, None)
                texts[i] += "\0"
        going = [i for i in going if not texts[i].endswith("\0")]
        if not going or turn == limits.max_searches:
            break
        hits = dict(zip(queries, retriever.search(list(queries.values()), limits.topk), strict=True))
        for i in hits:
            shown = render(hits[i], budget=limits.context_tokens, count=lambda text: len(codec.encode(text)))
            texts[i] += PROTOCOL.wrap(shown.text)
    return written


@torch.inference_mode()
def generate(model: Any, tokenizer: Any, texts: list[str], most: int) -> list[tuple[str, int]]:
    """New text and its number of tokens for each text, cut after the first stop string."""
    tokenizer.padding_side = "left"
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    out = model.generate(
        **batch,
        max_new_tokens=most,
        do_sample=False,
        stop_strings=list(PROTOCOL.stops),
        tokenizer=tokenizer,
    )
    replies = []
    for ids in out[:, batch["input_ids"].shape[1] :].tolist():
        text = tokenizer.decode(ids, skip_special_tokens=True)
        ends = [text.find(stop) + len(stop) for stop in PROTOCOL.stops if stop in text]
        if ends:
            text = text[: min(ends)]
        replies.append((text, len(tokenizer.encode(text, add_special_tokens=False))))
    return replies


if __name__ == "__main__":
    common.run(__doc__, measure, questions=8, turn_tokens=96, searches=3, rows=400)
