"""Pairs of answers as token ids, and the log-probabilities of the answers.

The form is TRL's: `prompt`, `chosen` and `rejected` are text or messages. An answer's tokens are what is left of prompt
and answer together once the prompt's tokens, with the beginning of the assistant's turn, are taken off: with messages
the chat template decides how an answer ends, of text the end-of-text token does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from toolroll.errors import RowError, ToolrollError
from toolroll.models.images import folder_of, image_names, with_places
from toolroll.models.vision import image_mark, processed, side_by_side
from toolroll.train.batch import fill, pad
from toolroll.train.losses import token_logprobs

OnLong = Literal["fail", "skip", "cut"]
Score = Callable[[Sequence["Encoded"]], tuple[Tensor, Tensor]]


class TooLong(RowError):
    """A pair of more tokens than are wanted."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A pair as token ids. `text` is the prompt as the processor of an image-text model takes it, with `images`.

    `shortened` tells that the end of the prompt is not in it: tokens changed where the answer joined it.
    """

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    images: tuple[Path, ...] = ()
    text: str = ""
    weight: float = 1.0
    shortened: bool = False

    @property
    def longest(self) -> int:
        """Tokens of the prompt with the longer answer."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


class Encoder:
    """Turns pairs into token ids, by a tokenizer, or by the `processor` of an image-text model.

    A pair may have `max_tokens` tokens, the prompt with the longer answer; `on_long` "cut" shortens the answers of a
    pair without images to that, else TooLong is raised. Image tokens are never cut.
    """

    def __init__(
        self, tokenizer: Any, *, processor: Any = None, max_tokens: int | None = None, on_long: OnLong = "fail"
    ) -> None:
        self.tokenizer = tokenizer
        self.processor = processor
        self.max_tokens = max_tokens
        self.on_long = on_long

    @classmethod
    def of(cls, words: Any, *, max_tokens: int | None = None, on_long: OnLong = "fail") -> Encoder:
        """An encoder by `words`: a tokenizer, or a processor that holds one."""
        inner = getattr(words, "tokenizer", None)
        if inner is None:
            return cls(words, max_tokens=max_tokens, on_long=on_long)
        return cls(inner, processor=words, max_tokens=max_tokens, on_long=on_long)

    def __call__(
        self,
        prompt: Any,
        chosen: Any,
        rejected: Any,
        *,
        images: Sequence[str] = (),
        folder: Path | None = None,
        weight: float | None = None,
    ) -> Encoded:
        """A pair as token ids; `images` are paths, relative ones in `folder`. RowError for what is no such pair."""
        texts = isinstance(prompt, str)
        for name, value in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)):
            _check(name, value, text=texts)
        paths = tuple((folder or Path()) / name for name in images)
        if paths and self.processor is None:
            raise RowError("the pair has images, and the model takes none")
        if not (paths or texts):
            with_places([*prompt, *chosen, *rejected], 0)  # refuses a place that no image fills
        if paths:
            found = self._with_images(prompt, chosen, rejected, paths)
        elif texts:
            end = self._end()
            found = self._joined(*(self.tokenizer(text)["input_ids"] for text in _texts(prompt, chosen, rejected, end)))
        else:
            found = self._joined(
                self._template(prompt, opened=True), self._template(prompt + chosen), self._template(prompt + rejected)
            )
        image_id = getattr(self.processor, "image_token_id", None)
        if image_id in (*found.chosen, *found.rejected, *(() if paths else found.prompt)):
            raise RowError(f"{image_mark(self.processor)} in a text, which stands for an image in this model's prompts")
        return self._fitting(replace(found, weight=1.0 if weight is None else weight))

    def _joined(self, prompt: list[int], with_chosen: list[int], with_rejected: list[int]) -> Encoded:
        shared = min(common_prefix(prompt, with_chosen), common_prefix(prompt, with_rejected))
        chosen, rejected = with_chosen[shared:], with_rejected[shared:]
        if shared == 0:
            raise RowError("the prompt is empty, or is not how the prompt with an answer begins")
        for name, answer in (("chosen", chosen), ("rejected", rejected)):
            if not answer:
                raise RowError(f"`{name}` has no token of its own behind the prompt")
        return Encoded(list(prompt[:shared]), list(chosen), list(rejected), shortened=shared < len(prompt))

    def _with_images(self, prompt: Any, chosen: Any, rejected: Any, paths: tuple[Path, ...]) -> Encoded:
        if isinstance(prompt, str):
            text, end = prompt, self._end()
            answers = [answer if answer.endswith(end) else answer + end for answer in (chosen, rejected)]
        else:
            prompt = with_places(prompt, len(paths))
            opened = self._template(prompt, opened=True, tokenize=False)
            whole = [self._template(prompt + with_places(answer, 0), tokenize=False) for answer in (chosen, rejected)]
            shared = min(common_prefix(opened, text) for text in whole)
            text, answers = opened[:shared], [text[shared:] for text in whole]
        ids, _ = processed(self.processor, text, paths)
        behind = [self.tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
        found = self._joined(ids, ids + behind[0], ids + behind[1])
        return replace(found, images=paths, text=text)

    def _template(self, messages: list[Any], *, opened: bool = False, tokenize: bool = True) -> Any:
        from jinja2 import TemplateError

        words = self.processor if self.processor is not None and not tokenize else self.tokenizer
        if self.processor is not None:
            messages = with_places(messages, None)
        if not getattr(words, "chat_template", None):
            raise ToolrollError("the pair has messages, and the model has no chat template")
        settings: dict[str, Any] = {"return_dict": True} if tokenize else {}
        try:
            made = words.apply_chat_template(messages, add_generation_prompt=opened, tokenize=tokenize, **settings)
        except (TemplateError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise RowError(f"the chat template does not take the messages: {error}") from error
        return made["input_ids"] if tokenize else made

    def _end(self) -> str:
        end = self.tokenizer.eos_token
        if end is None:
            raise ToolrollError("the model's tokenizer has no end-of-text token, which ends an answer that is text")
        return str(end)

    def _fitting(self, pair: Encoded) -> Encoded:
        if self.max_tokens is None or pair.longest <= self.max_tokens:
            return pair
        room = self.max_tokens - len(pair.prompt)
        if self.on_long != "cut" or room < 1 or pair.images:
            why = f"{pair.longest} tokens, more than --max-tokens {self.max_tokens}"
            if self.on_long == "cut":
                why += "; a pair with images is never cut" if pair.images else "; the prompt alone fills that"
            raise TooLong(why)
        return replace(pair, chosen=pair.chosen[:room], rejected=pair.rejected[:room])


def encode_row(encoder: Encoder, row: Any, images: Path | None) -> Encoded:
    """The pair of a row (`io.rows.Row`); its images are in the folder `images`, or in that of its file."""
    seen = row.view
    return encoder(
        seen.prompt,
        seen.chosen,
        seen.rejected,
        images=image_names(seen),
        folder=images or folder_of(row.place),
        weight=seen.weight,
    )


def common_prefix(left: Sequence[Any], right: Sequence[Any]) -> int:
    """How many elements two sequences begin with alike.

    >>> common_prefix([1, 2, 3], [1, 2, 4, 5])
    2
    """
    for place, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return place
    return min(len(left), len(right))


def _check(name: str, value: Any, *, text: bool) -> None:
    if text and isinstance(value, str):
        if not value and name != "prompt":
            raise RowError(f"`{name}` is empty")
        return
    if text or not isinstance(value, list):
        raise RowError(f"`{name}` is neither text nor messages, or not the same of the two as `prompt`")
    if not value:
        raise RowError(f"`{name}` is empty")
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise RowError(f"`{name}` has a message without a role")
        content = message.get("content")
        if not isinstance(content, str | list) or any(not isinstance(part, dict) for part in _parts(content)):
            raise RowError(f"`{name}` has a message without content")
    if name != "prompt" and not any(message["content"] for message in value):
        raise RowError(f"`{name}` is empty")


def _parts(content: str | list[Any]) -> Iterable[Any]:
    return content if isinstance(content, list) else ()


def _texts(prompt: str, chosen: str, rejected: str, end: str) -> Iterable[str]:
    yield prompt
    for answer in (chosen, rejected):
        yield prompt + answer + ("" if answer.endswith(end) else end)


# --- log-probabilities


def parts(pairs: Sequence[Encoded], micro_tokens: int) -> list[list[int]]:
    """Indices of pairs in groups of at most `micro_tokens` tokens, padding included; with and without images apart."""
    groups = []
    for images in (False, True):
        own = [index for index, pair in enumerate(pairs) if bool(pair.images) == images]
        lengths = [2 * pairs[index].longest for index in own]
        groups += [[own[place] for place in group] for group in fill(lengths, micro_tokens)]
    return groups


def answer_logprobs(model: Any, scorer: Any, processor: Any, pairs: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
    """Sums of the log-probabilities, in nats, of B pairs' chosen and rejected answers: [B] and [B].

    Either none of the pairs has images or all have. `scorer` gives the log-probabilities of padded text.
    """
    batch = pad(
        [pair.prompt for pair in pairs] * 2,
        [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)],
        [[1] * len(pair.chosen) for pair in pairs] + [[1] * len(pair.rejected) for pair in pairs],
        next(model.parameters()).device,
    )
    if not pairs[0].images:
        logp, _ = scorer(batch, want_entropy=False)
    else:
        features = [processed(processor, pair.text, pair.images)[1] for pair in pairs]
        longest = batch.ids.shape[1]
        images = {name: value.to(batch.ids.device) for name, value in side_by_side(features * 2, longest).items()}
        lengths = torch.tensor(
            [len(p.prompt) + len(p.chosen) for p in pairs] + [len(p.prompt) + len(p.rejected) for p in pairs]
        )
        seen = (torch.arange(longest) < lengths.unsqueeze(-1)).long().to(batch.ids.device)
        logits = model(input_ids=batch.ids, attention_mask=seen, use_cache=False, **images).logits
        logits = logits.reshape(-1, logits.shape[-1]).index_select(0, batch.before)
        logp = batch.spread(token_logprobs(logits, batch.targets[batch.mask.bool()]))
    chosen, rejected = logp.sum(-1).chunk(2)
    return chosen, rejected


def measured(
    current: tuple[Tensor, Tensor], reference: tuple[Tensor, Tensor], lengths: Tensor, loss: Literal["sigmoid", "ipo"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `dpo_loss` wants, of sums over tokens [B] and `lengths` [2, B] of the answers. "ipo": means."""
    if loss == "ipo":
        current = (current[0] / lengths[0], current[1] / lengths[1])
        reference = (reference[0] / lengths[0], reference[1] / lengths[1])
    return (*current, *reference)


class PairScorer:
    """A frozen model that gives the log-probabilities of pairs' answers."""

    def __init__(self, model: Any, encoder: Encoder) -> None:
        from toolroll.train.head import Scorer

        self.model = model
        self.encoder = encoder
        self._scorer = Scorer(model)

    @classmethod
    def load(
        cls,
        name: str,
        device: str = "auto",
        dtype: str = "auto",
        *,
        max_tokens: int | None = None,
        on_long: OnLong = "fail",
        notify: Callable[[str], None] = lambda _: None,
    ) -> PairScorer:
        """Load the model `name`, as for `models.load.load_causal_lm`, or an image-text model. `notify` hears of it."""
        from toolroll.models.device import choose_device
        from toolroll.models.load import load_causal_lm
        from toolroll.models.vision import load_image_text, takes_images

        choice = choose_device(device, dtype)
        loaded = (load_image_text if takes_images(name, notify) else load_causal_lm)(name, choice, notify=notify)
        notify(f"model {loaded.name} ({loaded.weights_id}) on {choice.text}")
        words = loaded.codec.tokenizer if loaded.processor is None else loaded.processor
        return cls(loaded.model, Encoder.of(words, max_tokens=max_tokens, on_long=on_long))

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def __call__(self, pairs: Sequence[Encoded], micro_tokens: int) -> list[tuple[float, float]]:
        """Sums of the log-probabilities, in nats, of each pair's chosen and rejected answer."""
        found: dict[int, tuple[float, float]] = {}
        for group in parts(pairs, micro_tokens):
            some = [pairs[i] for i in group]
            chosen, rejected = answer_logprobs(self.model, self._scorer, self.encoder.processor, some)
            found |= dict(zip(group, zip(chosen.tolist(), rejected.tolist(), strict=True), strict=True))
        return [found[i] for i in range(len(pairs))]
