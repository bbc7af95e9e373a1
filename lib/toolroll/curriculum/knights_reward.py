"""Knights and Knaves: what an answer says, and what it is worth.

DUMP's reward (arXiv:2504.09710, section 4.1, by its released code), R = format + outcome, -3 <= R <= 3:

    format    1 where the response has the form that is asked for, else -1
    outcome   2 where each person is named once, and rightly; -1.5 where one is named wrongly; -2 where the answer
              cannot be read or the form is wrong

With credit for `people`, the outcome is -1.5 + 3.5 c / n for c of n people named rightly, -2 where nobody is named: the
same at both ends, and even in between. With the form "none", format is 0 and the range -2 to 2.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from toolroll.errors import RowError

Form = Literal["think-answer", "answer", "none"]
Credit = Literal["all", "people"]

RIGHT, WRONG, UNREAD = 2.0, -1.5, -2.0
_THINK = (("<think>", "no_think", "multi_think"), ("</think>", "think_unclosed", "multi_think"))
_ANSWER = (("<answer>", "no_answer", "multi_answer"), ("</answer>", "answer_unclosed", "multi_answer"))
#: Tags of a form in order, each with the codes for none and for several of it.
_TAGS: dict[Form, tuple[tuple[str, str, str], ...]] = {"think-answer": _THINK + _ANSWER, "answer": _ANSWER, "none": ()}
END_OF_TURN = "<|im_end|>"  #: may stand behind an answer, as the released code has it

#: What a claim looks like, in text that has been `_plain`: the last word of a name, then what links it to a role.
_CLAIM = re.compile(
    r"(?<!\w)(\w++)"
    r"(?:\s++(?:is|was|must\s++be)(nt|\s++not)?+\s++|\s*+(?:[:→–—(]|=>?|-++>?)\s*+)"
    r"(?:(?:actually|also|clearly|definitely|indeed|therefore|thus)\s++)?+"
    r"(?:an?\s++|the\s++)?+(knight|knave)\b(?!\s*+(?:/|or\b)\s*+(?:an?\s++)?+(?:knight|knave))"
)
_DECORATION = "*_`'\"‘’“”"
_HEARD = (None, False, True, None)


class Said(NamedTuple):
    """What an answer says: for each person true = knight, false = knave, null where it says nothing or both.

    `problem` is null where it names each person once and says nothing else of knights and knaves. Else it is
    `contradiction`, a person is called both; `missing`, a person is not named; `extra`, somebody else is, or somebody
    twice.
    """

    roles: list[bool | None]
    problem: str | None


def format_problem(response: str, form: Form = "think-answer") -> str | None:
    """What keeps a response from having the form; None where it has it.

    Of each block of the form there is exactly one opening and one closing tag, tags stand in the order of the form,
    and nothing but white space, or one `<|im_end|>`, follows the last. What stands before and between the blocks does
    not matter. Codes, the first that holds: no_think, multi_think, think_unclosed, no_answer, multi_answer,
    answer_unclosed, wrong_order, text_after_answer.

    >>> format_problem("<think>...</think> So: <answer>Ada is a knight</answer>")
    >>> format_problem("<answer>Ada is a knight</answer><think></think>")
    'wrong_order'
    """
    last = -1
    ordered = True
    for tag, none, several in _TAGS[form]:
        at = response.find(tag)
        if at < 0:
            return none
        if response.find(tag, at + 1) >= 0:
            return several
        ordered &= at > last
        last = at
    if not ordered:
        return "wrong_order"
    if form != "none" and response[last + len("</answer>") :].strip() not in ("", END_OF_TURN):
        return "text_after_answer"
    return None


def answer_text(response: str) -> str:
    """The part of a response that is its answer.

    What the last answer block holds; without one that is closed, what follows the first `<answer>`; without that, what
    follows the last `</think>`; else all of it.

    >>> answer_text("<think>hm</think><answer> Ada is a knight"), answer_text("hm</think>Ada: knight")
    (' Ada is a knight', 'Ada: knight')
    """
    closed = response.rfind("</answer>")
    opened = response.rfind("<answer>", 0, max(closed, 0))
    if opened >= 0:
        return response[opened + len("<answer>") : closed]
    _, begun, answer = response.partition("<answer>")
    return answer if begun else response.rpartition("</think>")[2]


def said(answer: str, names: Sequence[str]) -> Said:
    """What an answer says of each person.

    A claim is a name; `is`, perhaps with `not`, or a sign like `:`; perhaps a word like `indeed`; perhaps an article;
    and `knight` or `knave`: "(1) Ada is a knight", "Ada: Knave", "**Ada** is not a knight". Case, quotation marks and
    emphasis do not matter. "a knight or a knave" claims nothing. No other form is understood.

    >>> said("(1) Ada is a knight (2) Omar: KNAVE", ["Ada", "Omar"])
    Said(roles=[True, False], problem=None)
    >>> said("Ada is a knight. Ada is not a knight.", ["Ada", "Omar"])
    Said(roles=[None, None], problem='contradiction')
    """
    text = _plain(answer)
    people, spaced = _tokens(tuple(names))
    for name, token in spaced:
        text = text.replace(name, token)
    heard = [0] * len(names)  # 1: called a knave, 2: called a knight, 3: both
    for word, negation, role in _CLAIM.findall(text):
        person = people.get(word)
        if person is not None:
            heard[person] |= 1 if (role == "knight") is bool(negation) else 2
    problem = None
    if 3 in heard:
        problem = "contradiction"
    elif 0 in heard:
        problem = "missing"
    elif text.count("knight") + text.count("knave") != len(names):
        problem = "extra"
    return Said([_HEARD[sign] for sign in heard], problem)


def _plain(text: str) -> str:
    """A text without case, quotation marks and emphasis."""
    text = text.casefold()
    for mark in _DECORATION:
        text = text.replace(mark, "")
    return text


@lru_cache(maxsize=1024)
def _tokens(names: tuple[str, ...]) -> tuple[Mapping[str, int], list[tuple[str, str]]]:
    """Each name as one word, with the number of its person; and what becomes of names that are not one word, longest
    first. RowError for names that no answer could tell apart.

    >>> _tokens(("Ada", "Omar Ali"))
    ({'ada': 0, 'omar_ali': 1}, [('omar ali', 'omar_ali')])
    """
    people: dict[str, int] = {}
    spaced = []
    for person, given in enumerate(names):
        token = given.casefold()
        if not token.isalnum():
            name = _plain(given).strip()
            token = "_".join(re.findall(r"\w+", name))
            spaced.append((name, token))
        if not token:
            raise RowError(f"a name has no letter and no digit: {given!r}")
        if people.setdefault(token, person) != person:
            raise RowError(f"two people are called {given!r}")
    return people, sorted(spaced, key=lambda pair: -len(pair[0]))


def outcome(heard: Said, solution: Sequence[bool], credit: Credit = "all") -> float:
    """What a well-formed answer is worth, -2 to 2.

    >>> two = Said([True, True], None)
    >>> outcome(two, [True, False]), outcome(two, [True, False], "people"), outcome(two, [True, True])
    (-1.5, 0.25, 2.0)
    """
    if credit == "people":
        if not any(role is not None for role in heard.roles):
            return UNREAD
        return WRONG + (RIGHT - WRONG) * right_share(heard, solution)
    if heard.problem is not None:
        return UNREAD
    return RIGHT if heard.roles == list(solution) else WRONG


def right_share(heard: Said, solution: Sequence[bool]) -> float:
    """The share of people named rightly, 0 to 1; who is not named, or called both, is not.

    >>> right_share(Said([True, None, False, True], "missing"), [True, True, True, True])
    0.5
    """
    return sum(map(operator.is_, heard.roles, solution)) / len(solution)


def reward(
    response: str,
    names: Sequence[str],
    solution: Sequence[bool],
    *,
    form: Form = "think-answer",
    credit: Credit = "all",
) -> dict[str, Any]:
    """The reward of a response, with its parts, as kk-reward writes it.

    >>> response = "<think>So.</think><answer>Ada is a knight, Omar is a knave</answer>"
    >>> made = reward(response, ["Ada", "Omar"], [True, False])
    >>> made["total"], made["parts"], made["problem"]
    (3.0, {'outcome': 2.0, 'format': 1.0}, None)
    """
    fault = format_problem(response, form)
    heard = said(answer_text(response), names)
    worth = outcome(heard, solution, credit) if fault is None else UNREAD
    shape = 0.0 if form == "none" else 1.0 if fault is None else -1.0
    return {
        "total": shape + worth,
        "parts": {"outcome": worth, "format": shape},
        "A": int(heard.problem is None and heard.roles == list(solution)),
        "F": int(fault is None),
        "right_frac": right_share(heard, solution),
        "said": heard.roles,
        "problem": fault or heard.problem,
        "scheme": "dump" if credit == "all" else "people",
    }
