"""Tokens a second of rag-rollout beside a loop in lockstep that reads the whole context again each turn.

    python bench/rollout.py [--questions 16] [--json FILE]

Both run the embedded model in float32 on the same questions, with the same retriever, prompt, caps and greedy
decoding. The peer works as Search-R1's training loop does: in each turn it decodes the texts so far, tokenizes them,
pads them on the left, generates for all that are still going, cuts after the first stop string, searches for all of
them at once, and appends the passages. It has stop criteria of transformers, which Search-R1's loop does not: without
them it would write every turn to its cap. Tokens counted are those the model wrote and that stand in a trajectory. One
untimed warm-up each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import orjson
import torch

from toolroll.models.base import Sampling
from toolroll.models.device import choose_device
from toolroll.models.episodes import drive
from toolroll.models.load import load_causal_lm
from toolroll.models.text import HFEngine
from toolroll.rag.bm25 import Bm25Retriever, build_bm25
from toolroll.rag.corpus import read_corpus, render
from toolroll.rag.protocol import PROTOCOLS, find_action
from toolroll.rag.rollout import Limits, Rollout, search_all

DATA = Path(__file__).parents[1] / "lib/toolroll/data/hotpotqa"
PROTOCOL = PROTOCOLS["hiprag"]
LIMITS = Limits(max_searches=3, topk=2, turn_tokens=96, context_tokens=200)


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One record for each of the two."""
    lines = (DATA / "questions.jsonl").read_bytes().splitlines()[: arguments.questions]
    device = choose_device("cpu")
    engine = HFEngine(load_causal_lm("embedded", device), batch=len(lines))
    peer = load_causal_lm("embedded", device)
    codec = peer.codec
    prompts = [_prompt(codec, orjson.loads(line)["question"]) for line in lines]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        build_bm25(read_corpus(DATA / "corpus.jsonl.gz"), Path(folder) / "index")
        retriever = Bm25Retriever(Path(folder) / "index")
        for name, run in (
            ("rag-rollout (hf)", lambda texts: ours(engine, retriever, texts)),
            ("lockstep, reads again", lambda texts: lockstep(peer, retriever, texts)),
        ):
            run(prompts[:2])
            started = time.perf_counter()
            tokens = run(prompts)
            seconds = time.perf_counter() - started
            rows.append({"engine": name, "tokens": tokens, "s": seconds, "tokens/s": tokens / seconds})
        retriever.close()
    for row in rows:
        row["toolroll is times"] = round(rows[0]["tokens/s"] / row["tokens/s"], 2)
    return rows


def _prompt(codec: Any, question: str) -> str:
    text: str = codec.chat([{"role": "user", "content": PROTOCOL.prompt(question)}])
    return text


def ours(engine: Any, retriever: Any, prompts: list[str]) -> int:
    """Run the rollouts as the command does; the tokens the model wrote."""
    rollouts = [Rollout(PROTOCOL, engine.codec, LIMITS, Sampling(temperature=0), prompt=prompt) for prompt in prompts]
    episodes = ((number, rollout.episode()) for number, rollout in enumerate(rollouts))
    results = drive(engine, episodes, calls=search_all(retriever, LIMITS.topk))
    return sum(sum(row["loss_mask"]) for _, row in results)


def lockstep(peer: Any, retriever: Any, prompts: list[str]) -> int:
    """The same trajectories turn by turn, all at once; the tokens the model wrote."""
    codec, model = peer.codec, peer.model
    texts = [prompt + PROTOCOL.prefill for prompt in prompts]
    going = list(range(len(texts)))
    written = 0
    for turn in range(LIMITS.max_searches + 1):
        replies = generate(model, codec.tokenizer, [texts[i] for i in going])
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
        if not going or turn == LIMITS.max_searches:
            break
        hits = dict(zip(queries, retriever.search(list(queries.values()), LIMITS.topk), strict=True))
        for i in hits:
            shown = render(hits[i], budget=LIMITS.context_tokens, count=lambda text: len(codec.encode(text)))
            texts[i] += PROTOCOL.wrap(shown.text)
    return written


@torch.inference_mode()
def generate(model: Any, tokenizer: Any, texts: list[str]) -> list[tuple[str, int]]:
    """New text and its number of tokens for each text, cut after the first stop string."""
    tokenizer.padding_side = "left"
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    out = model.generate(
        **batch,
        max_new_tokens=LIMITS.turn_tokens,
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
    common.run("Tokens a second of rollouts.", measure, ("--questions", {"type": int, "default": 16}))
