"""A Hugging Face tokenizer as a `Codec`, and the bytes each of its tokens stands for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from toolroll.errors import RowError, ToolrollError
from toolroll.models.base import Message

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class HFCodec:
    """Text to token ids and back with a transformers tokenizer; `eos_ids` are the ids that end a text."""

    def __init__(self, tokenizer: Any, eos_ids: Iterable[int] = ()) -> None:
        self.tokenizer = tokenizer
        own = tokenizer.eos_token_id
        self.eos_ids = frozenset(eos_ids) | (frozenset() if own is None else frozenset((own,)))

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of `text`, no special tokens added."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, special tokens left out; bytes that are no UTF-8 read as U+FFFD."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def chat(self, messages: Sequence[Message]) -> str:
        """The prompt text for `messages`, ending where the assistant's turn begins.

        A tokenizer without a chat template gets the contents, one after the other, a line each. RowError for messages
        that the template refuses: a role it does not know, two answers in a row.
        """
        if not self.tokenizer.chat_template:
            return "\n".join(message["content"] for message in messages)
        from jinja2 import TemplateError

        try:
            return str(self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False))
        except TemplateError as error:
            raise RowError(f"the chat template refuses these messages: {error}") from error

    def pieces(self) -> list[bytes | None]:
        """The bytes each token id adds to a text; None for special tokens and ids without a token.

        Raises ToolrollError for a tokenizer whose tokens do not stand for fixed bytes.
        """
        spell = _spelling(self.tokenizer)
        special = set(self.tokenizer.all_special_ids)
        added = self.tokenizer.added_tokens_decoder
        tokens: dict[str, int] = self.tokenizer.get_vocab()
        found: list[bytes | None] = [None] * (1 + max(tokens.values()))
        for token, index in tokens.items():
            if index in added:
                hidden = added[index].special or index in special
                found[index] = None if hidden else added[index].content.encode()
            elif index not in special:
                found[index] = spell(token)
        return found


def _spelling(tokenizer: Any) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = "" if backend is None else json.dumps(json.loads(backend.to_str())["decoder"])
    if '"ByteLevel"' in decoder:
        table = {symbol: byte for byte, symbol in enumerate(_byte_symbols())}
        return lambda token: bytes(table[symbol] for symbol in token)
    if "\\u2581" in decoder:
        return _spell_sentencepiece
    raise ToolrollError("the tokens of this tokenizer do not stand for fixed bytes", place=tokenizer.name_or_path)


def _spell_sentencepiece(token: str) -> bytes:
    if match := _BYTE_TOKEN.fullmatch(token):
        return bytes((int(match[1], 16),))
    return token.replace("\u2581", " ").encode()


def _byte_symbols() -> list[str]:
    """The printable character that byte-level BPE writes for each byte, 0 to 255."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    symbols, spare = [], 0x100
    for byte in range(256):
        symbols.append(chr(byte if byte in plain else spare))
        spare += byte not in plain
    return symbols
