"""Does a predicted answer match a gold one? Four rules, from lenient to strict.

    cem        cover exact match: a gold answer is a substring of the prediction (arXiv:2510.07794, section 4.1)
    cem-word   the same on whole words, and a gold answer of nothing but articles and punctuation matches nothing
    em         exact match, as Search-R1 and SQuAD have it
    f1         word overlap, as SQuAD has it; the only rule with values between 0 and 1

`cem` is kept as published with all its generosity: "no" is found in "I do not know", "yes" in "yesterday", and a
gold answer "the" or "?" in any prediction that is not empty. Use `cem-word` where that matters.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

__all__ = ["RULES", "cem", "cem_word", "em", "f1", "score"]

Golds = str | Sequence[str]

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_TO_SPACE = str.maketrans(dict.fromkeys(string.punctuation, " "))
_TO_NOTHING = str.maketrans(dict.fromkeys(string.punctuation))


def _spaced(text: str) -> str:
    """Lower case, no articles, punctuation to spaces, single spaces: in this order ("U.S.A." loses its "a" too)."""
    return " ".join(_ARTICLE.sub(" ", text.lower()).translate(_TO_SPACE).split())


def _words(text: str) -> list[str]:
    """Words in lower case, without punctuation (deleted, so "U.S.A." is "usa"), then without articles."""
    return _ARTICLE.sub(" ", text.lower().translate(_TO_NOTHING)).split()


def _each(golds: Golds) -> Sequence[str]:
    return (golds,) if isinstance(golds, str) else golds


def cem(prediction: str | None, golds: Golds) -> bool:
    """Cover exact match: some normalised gold answer is a substring of the normalised prediction.

    prediction: the answer; None or "" never matches. golds: one or more accepted answers.
    Substrings need no word boundary. Source: arXiv:2510.07794, section 4.1, in the released code's normalisation.

    >>> cem("It is Paris.", "paris"), cem("Parisian", ["Paris"]), cem("U.S.A.", "USA")
    (True, True, False)
    """
    if not prediction:
        return False
    text = _spaced(prediction)
    return any(_spaced(gold) in text for gold in _each(golds))


def cem_word(prediction: str | None, golds: Golds) -> bool:
    """Cover exact match on whole words; a gold answer that normalises to nothing matches nothing.

    >>> cem_word("It is Paris.", "paris"), cem_word("Parisian", "Paris"), cem_word("anything", "the")
    (True, False, False)
    """
    if not prediction:
        return False
    text = f" {_spaced(prediction)} "
    return any(f" {gold} " in text for gold in map(_spaced, _each(golds)) if gold)


def em(prediction: str | None, golds: Golds) -> bool:
    """Exact match after normalisation that deletes punctuation (arXiv:2503.09516, section 4, the released code's).

    >>> em("The U.S.A.", "usa"), em("It is Paris", "Paris")
    (True, False)
    """
    if not prediction:
        return False
    words = _words(prediction)
    return any(_words(gold) == words for gold in _each(golds))


def f1(prediction: str | None, golds: Golds) -> float:
    """Best F1, in [0, 1], of the prediction's words against those of a gold answer, counted with repeats.

    F1 = 2c / (p + g), with c words in common of p predicted and g gold ones; 0 if nothing is in common.
    Source: arXiv:2503.05592, section 3 (R1-Searcher's answer reward), the measure of SQuAD.

    >>> f1("the cat sat", "cat sat down"), f1("", "x")
    (0.8, 0.0)
    """
    words = Counter(_words(prediction or ""))
    return max((_overlap(words, Counter(_words(gold))) for gold in _each(golds)), default=0.0)


def _overlap(words: Counter[str], gold: Counter[str]) -> float:
    common = (words & gold).total()
    return 2 * common / (words.total() + gold.total()) if common else 0.0


RULES: dict[str, Callable[[str | None, Golds], float]] = {"cem": cem, "cem-word": cem_word, "em": em, "f1": f1}


def score(prediction: str | None, golds: Golds, rule: str = "cem") -> float:
    """How well a prediction matches, in [0, 1], by the rule of that name in `RULES`.

    Raises KeyError for a rule that does not exist.

    >>> score("It is Paris.", ["Paris"]), score("It is Paris.", ["Paris"], "em")
    (1.0, 0.0)
    """
    return float(RULES[rule](prediction, golds))
