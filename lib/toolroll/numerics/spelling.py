"""Tokens as text that people can read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["Speller", "speller"]

Speller = Callable[[Sequence[int]], str]


def speller(name: str, notify: Callable[[str], None] = lambda _: None) -> Speller:
    """A function from token ids to their text, special tokens included, by the tokenizer `name`.

    `name` is a folder, a hub id or "embedded". Bytes that are no UTF-8 read as U+FFFD, an id without a token as <id>.
    """
    from transformers import AutoTokenizer

    from toolroll.models.codec import HFCodec
    from toolroll.models.load import find_model, loading, quiet

    with loading("a tokenizer", name), quiet():
        tokenizer = AutoTokenizer.from_pretrained(find_model(name, notify), trust_remote_code=False)
    pieces = HFCodec(tokenizer).pieces()
    special = {index: str(token) for token, index in tokenizer.get_vocab().items() if pieces[index] is None}

    def spell(token: int) -> bytes:
        piece = pieces[token] if 0 <= token < len(pieces) else None
        return special.get(token, f"<{token}>").encode() if piece is None else piece

    return lambda tokens: b"".join(map(spell, tokens)).decode(errors="replace")
