"""How sure a policy was of the queries it wrote, token by token: what beta-GRPO (arXiv:2505.17281) pays for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from toolroll.errors import RowError
from toolroll.rag.protocol import PROTOCOLS

__all__ = ["load_pieces", "query_logprobs"]


def query_logprobs(
    row: Mapping[str, Any], pieces: Sequence[bytes | None], dialect: str = "hiprag"
) -> list[list[float]]:
    """For each query the log-probabilities [nats] of the tokens that hold some of its text.

    row: a trajectory with `response_ids`, `loss_mask` (1 = the model's own token) and `logprobs`, all of one length.
    pieces: the bytes of each token id, None for special ones. A query is the first one of a turn, and a turn is what
    the model wrote between injected passages. Tokens that hold only tags or white space around it do not count.

    Raises RowError for a row that was stored without them.

    >>> text = b"<search>who</search>"
    >>> row = {"response_ids": [0, 1, 2], "loss_mask": [1, 1, 1], "logprobs": [-1.0, -0.5, -2.0]}
    >>> query_logprobs(row, [b"<search>", b"who", b"</search>"])
    [[-0.5]]
    """
    ids, mask, logprobs = (row.get(name) for name in ("response_ids", "loss_mask", "logprobs"))
    if ids is None or mask is None or logprobs is None:
        raise RowError("no response_ids, loss_mask and logprobs in this row (rag-rollout gives them)")
    if not len(ids) == len(mask) == len(logprobs):
        raise RowError(f"{len(ids)} response_ids, {len(mask)} in loss_mask and {len(logprobs)} logprobs")
    if any(not 0 <= token < len(pieces) for token in ids):
        raise RowError("a token id this tokenizer does not have: is it the one of the model that wrote this?")
    if dialect not in PROTOCOLS:
        raise RowError(f"unknown dialect {dialect!r}; known: {', '.join(PROTOCOLS)}")
    pattern = PROTOCOLS[dialect].query
    query = re.compile(pattern.pattern.encode(), pattern.flags & ~re.UNICODE)
    found = []
    for begin, end in _turns(mask):
        words = [pieces[token] or b"" for token in ids[begin:end]]
        match = query.search(b"".join(words))
        if match is not None:
            found.append([logprobs[begin + i] for i in _within(words, *_stripped(match))])
    return found


def _turns(mask: Sequence[int]) -> Iterator[tuple[int, int]]:
    """[begin, end) of each stretch of the model's own tokens."""
    at = 0
    for own, stretch in groupby(mask):
        begin, at = at, at + len(list(stretch))
        if own:
            yield begin, at


def _stripped(match: re.Match[bytes]) -> tuple[int, int]:
    text = match[1]
    start = match.start(1) + len(text) - len(text.lstrip())
    return start, start + len(text.strip())


def _within(words: Sequence[bytes], start: int, end: int) -> Iterator[int]:
    at = 0
    for i, word in enumerate(words):
        if at < end and at + len(word) > start:
            yield i
        at += len(word)


def load_pieces(tokenizer: str, *, trust_remote_code: bool = False) -> list[bytes | None]:
    """The bytes of each token id of a tokenizer (a folder or a hub id)."""
    from transformers import AutoTokenizer

    from toolroll.models.codec import HFCodec
    from toolroll.models.load import loading

    with loading("a tokenizer", tokenizer):
        return HFCodec(AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=trust_remote_code)).pieces()
