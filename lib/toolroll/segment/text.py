"""Prompts as vectors.

`Lexicon` is the packaged table: a vector for each of some 20,000 pieces of English words, distilled from
all-MiniLM-L6-v2 by models/pmp_lexicon.py. `HFText` is any text encoder of transformers: of a CLIP, or a sentence
encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from toolroll.errors import RowError, ToolrollError, first_line
from toolroll.models.hub import seek_hub
from toolroll.models.load import fingerprint, loading, quiet, shipped
from toolroll.segment.prompts import Prompts, shortened

if TYPE_CHECKING:
    pass

LEXICON = "lexicon"  #: the name of the packaged table


class TextEncoder(Protocol):
    """What makes vectors of length C out of texts. `weights_id` tells its weights from others."""

    name: str
    width: int
    weights_id: str

    def texts(self, texts: Sequence[str]) -> Tensor:
        """A vector of length 1 for each text, [n, C]. RowError for one of which it knows nothing."""
        ...

    def words(self, text: str) -> Tensor:
        """A vector of length 1 for each token of a text, [L, C]."""
        ...


class Lexicon:
    """A table of word pieces; a text is the sum of its pieces, the rarer the heavier."""

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        try:
            held = load_file(folder / "vectors.safetensors")
            self._vectors = held["vectors"].float() * held["scales"].float().unsqueeze(1)
            words = (folder / "tokenizer.json").read_text()
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise ToolrollError(f"no table of words: {first_line(error)}", place=str(folder)) from error
        try:
            self._tokenizer = Tokenizer.from_str(words)
        except Exception as error:  # tokenizers has no kind of its own
            raise ToolrollError(f"its tokenizer cannot be read: {first_line(error)}", place=str(folder)) from error
        self.name = LEXICON
        self.width = int(self._vectors.shape[1])
        self.weights_id = fingerprint(folder / "vectors.safetensors")
        self._unknown = self._tokenizer.token_to_id("[UNK]")

    def _ids(self, text: str) -> list[int]:
        ids = [one for one in self._tokenizer.encode(text, add_special_tokens=False).ids if one != self._unknown]
        if not ids:
            raise RowError(
                f"no word of the prompt {shortened(text)!r} is in the lexicon; --text-encoder takes a text encoder"
            )
        return ids

    def texts(self, texts: Sequence[str]) -> Tensor:
        """A vector of length 1 for each text, [n, C]."""
        return normalize(torch.stack([self._vectors[self._ids(text)].sum(0) for text in texts]), dim=-1)

    def words(self, text: str) -> Tensor:
        """A vector of length 1 for each piece of a text, [L, C]."""
        return normalize(self._vectors[self._ids(text)], dim=-1)


class HFText:
    """A text encoder of transformers: the text half of a CLIP or SigLIP, or the mean of a sentence encoder's tokens."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        from transformers import AutoModel, AutoTokenizer

        if not Path(name).is_dir():
            seek_hub()
        with loading("a text encoder", name), quiet():
            self._words = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            loaded = AutoModel.from_pretrained(name, dtype=torch.float32, trust_remote_code=False)
            self._model = loaded.eval().to(device)
        self._device = device
        self._clip = hasattr(self._model, "get_text_features")
        self.name = name
        folder = Path(name)
        files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        self.weights_id = "".join(map(fingerprint, files))[:16] or str(self._model.config._commit_hash)
        self._length = int(getattr(getattr(self._model.config, "text_config", self._model.config),
                                   "max_position_embeddings", 77))  # fmt: skip
        self.width = int(self.texts(["a"]).shape[1])

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def texts(self, texts: Sequence[str]) -> Tensor:
        """A vector of length 1 for each text, [n, C]."""
        found = []
        for start in range(0, len(texts), 64):
            given = self._read(list(texts[start : start + 64]))
            if self._clip:
                made = self._model.get_text_features(**given)
                made = made if isinstance(made, Tensor) else made.pooler_output
            else:
                made = _mean(self._model(**given).last_hidden_state, given["attention_mask"])
            found.append(normalize(made.float(), dim=-1).cpu())
        return torch.cat(found)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def words(self, text: str) -> Tensor:
        """A vector of length 1 for each token of a text but those of the frame, [L, C]."""
        given = self._read([text])
        model = self._model.text_model if self._clip else self._model
        hidden = model(**given).last_hidden_state[0]
        if self._clip and hasattr(self._model, "text_projection"):
            hidden = self._model.text_projection(hidden)
        inner = hidden[1:-1] if len(hidden) > 2 else hidden
        return normalize(inner.float(), dim=-1).cpu()

    def _read(self, texts: list[str]) -> dict[str, Tensor]:
        made = self._words(texts, padding=True, return_tensors="pt")
        if made["input_ids"].shape[1] > self._length:
            longest = max(texts, key=len)
            raise RowError(
                f"the prompt {shortened(longest)!r} has more than the {self._length} tokens that {self.name} reads"
            )
        return {name: part.to(self._device) for name, part in made.items() if name in ("input_ids", "attention_mask")}


def open_text(name: str, device: str = "cpu") -> TextEncoder:
    """The encoder `lexicon`, a folder with a table, or any of transformers by folder or hub id."""
    if name == LEXICON:
        return Lexicon(shipped(LEXICON))
    if (Path(name) / "vectors.safetensors").is_file():
        return Lexicon(Path(name))
    return HFText(name, device)


@dataclass(frozen=True, slots=True)
class Text:
    """The prompts of B pictures, padded: `phrases` [B, P, C] and the class `owners` [B, P] that each belongs to, -1
    for padding; the `tokens` [B, T, C] that queries attend to and which of them are `real` [B, T]; K classes at most.
    """

    phrases: Tensor
    owners: Tensor
    tokens: Tensor
    real: Tensor
    classes: int

    def to(self, device: torch.device | str) -> Text:
        """The same on a device."""
        phrases, owners, tokens, real = (
            part.to(device) for part in (self.phrases, self.owners, self.tokens, self.real)
        )
        return Text(phrases, owners, tokens, real, self.classes)


class Reader:
    """Makes `Text` out of prompts, and remembers each phrase."""

    def __init__(self, encoder: TextEncoder, templates: Sequence[str] = ("{}",), *, words: bool = False) -> None:
        self.encoder = encoder
        self.templates = tuple(templates)
        self.by_words = words
        self._phrases: dict[str, Tensor] = {}
        self._words: dict[str, Tensor] = {}

    def phrase(self, phrase: str) -> Tensor:
        """The vector [C] of a phrase: its sentences' vectors, averaged, of length 1."""
        if phrase not in self._phrases:
            vectors = self.encoder.texts([template.replace("{}", phrase) for template in self.templates])
            self._phrases[phrase] = normalize(vectors.mean(0), dim=0)
        return self._phrases[phrase]

    def words(self, phrase: str) -> Tensor:
        """The vectors [L, C] of a phrase's tokens, without a template."""
        if phrase not in self._words:
            self._words[phrase] = self.encoder.words(phrase)
        return self._words[phrase]

    def read(self, pictures: Sequence[Prompts]) -> Text:
        """The prompts of pictures as one padded batch."""
        phrases, owners, tokens = [], [], []
        for prompts in pictures:
            flat = [(number, phrase) for number, words in enumerate(prompts) for phrase in words]
            phrases.append(torch.stack([self.phrase(phrase) for _, phrase in flat]))
            owners.append([number for number, _ in flat])
            tokens.append(torch.cat([self.words(phrase) for _, phrase in flat]) if self.by_words else phrases[-1])
        most = max(map(len, phrases))
        return Text(
            _stacked(phrases),
            torch.tensor([[*one, *[-1] * (most - len(one))] for one in owners]),
            _stacked(tokens),
            torch.tensor([[i < len(one) for i in range(max(map(len, tokens)))] for one in tokens]),
            max(map(len, pictures)),
        )


def _stacked(parts: Iterable[Tensor]) -> Tensor:
    """Parts [n, C] of different lengths as [B, N, C], zeros behind."""
    parts = list(parts)
    most = max(map(len, parts))
    return torch.stack([pad(part, (0, 0, 0, most - len(part))) for part in parts])


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)
