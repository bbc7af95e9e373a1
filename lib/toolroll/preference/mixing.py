"""Two distributions of the next token as one.

With l_c the logits of the branch that sees the image, l_u of the one that does not, T the temperature:

    logit    softmax(((1 - h) l_c + h l_u) / T)
    prob     (1 - h) softmax(l_c / T) + h softmax(l_u / T)
    switch   l_u with probability h, else l_c; by token, word or sentence

`logit` with h < 0 is contrastive decoding, (1 + a) l_c - a l_u with a = -h: VCD (arXiv:2311.16922), with its cut: no
token with l_c < log b + max l_c. With h = 1 - g it is the classifier-free guidance of transformers. The cut works
before, temperature, top-k and top-p after mixing. Which of these the paper means is not known.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from toolroll.errors import UsageError
from toolroll.preference.strength import LEAST, MOST, uniform

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["logit", "prob", "switch", "switch-word", "switch-sentence"]
_SENTENCE_END = re.compile(r"(?:[.!?…][\"'”’)\]]*\s?|\n|[。！？][”’」』）]*)$")


@dataclass(frozen=True, slots=True)
class Mixing:
    """How distributions are mixed. `cut` b in [0, 1]: the share of the best probability below which no token is taken.

    It counts where h < 0; 0 cuts nothing.
    """

    kind: Kind = "logit"
    cut: float = 0.1

    def check(self, low: float, high: float, place: str = "--h") -> None:
        """UsageError where h may be what this kind cannot use."""
        least = LEAST if self.kind == "logit" else 0.0
        if not least <= low <= high <= MOST:
            below = "" if self.kind == "logit" else f" with --mix {self.kind}"
            raise UsageError(f"h from {low:g} to {high:g} is not within {least:g} .. {MOST:g}{below}", place=place)


def mixed(
    seen: Tensor,  # [B, V]
    unseen: Tensor,  # [B, V]
    h: Tensor,  # [B, 1]
    temperature: Tensor,  # [B, 1], above 0
    mixing: Mixing,
) -> Tensor:  # [B, V]
    """Logits of which softmax(. / temperature) is the mixture, of kind "logit" or "prob".

    >>> import torch
    >>> lc, lu, one = torch.tensor([[2.0, 1, 0, -1]]), torch.tensor([[0.0, 1, 2, -1]]), torch.ones(1, 1)
    >>> mixed(lc, lu, one / 2, one, Mixing("logit")).tolist()
    [[1.0, 1.0, 1.0, -1.0]]
    >>> mixed(lc, lu, -one / 2, one, Mixing("logit")).tolist()
    [[3.0, 1.0, -1.0, -inf]]
    """
    import torch

    if mixing.kind == "prob":
        parts = [(seen / temperature).log_softmax(-1), (unseen / temperature).log_softmax(-1)]
        made = torch.logaddexp(parts[0] + torch.log1p(-h), parts[1] + h.log()) * temperature
    else:
        made = torch.lerp(seen, unseen, h)
    if mixing.kind == "prob" or not bool(made.isfinite().all()):
        if mixing.kind == "logit":  # a token that a branch rules out stays ruled out
            made = made.masked_fill((seen == -math.inf) | (unseen == -math.inf), -math.inf)
        made = torch.where(h == 0, seen, torch.where(h == 1, unseen, made))
    if mixing.cut > 0 and bool((h < 0).any()):
        unlikely = seen < seen.amax(-1, keepdim=True) + math.log(mixing.cut)
        made = made.masked_fill(unlikely & (h < 0), -math.inf)
    return made


@dataclass(frozen=True, slots=True)
class Coin:
    """Which branch speaks in a "switch" kind: of answer `seed`, as toss `number` fell.

    >>> coin = Coin(seed=3, h=0.5)
    >>> [coin.next(i).unseen for i in range(6)].count(True)
    2
    """

    seed: int
    h: float
    number: int = 0

    @property
    def unseen(self) -> bool:
        """Whether the branch speaks that does not see the image."""
        return uniform(self.seed, self.number) < self.h

    def next(self, tosses: int = 1) -> Coin:
        """The coin after so many more tosses."""
        return replace(self, number=self.number + tosses)


def ends_sentence(text: str) -> bool:
    """Whether a text is at the end of a sentence, or of a line.

    >>> ends_sentence('He said "no."'), ends_sentence("3 cubes, "), ends_sentence("")
    (True, False, True)
    """
    return not text.strip() or _SENTENCE_END.search(text) is not None


def begins_word(before: str, piece: str) -> bool:
    """Whether `piece`, written behind `before`, begins a word: there is white space between them, or nothing before.

    >>> begins_word("a red", " cube"), begins_word("a red cu", "be"), begins_word("", "A"), begins_word("a ", "cube")
    (True, False, True, True)
    """
    return not before or before[-1].isspace() or piece[:1].isspace()
