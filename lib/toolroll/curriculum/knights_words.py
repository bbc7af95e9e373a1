"""Knights and Knaves in English: puzzles and their answers.

Words are drawn from templates. What a statement says does not depend on the draw: a statement within another stands in
brackets where it has parts of its own, `or` is said with "or both" or "at least one", and whoever speaks of themselves
does so in quotation marks and says "I".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolroll.curriculum.knights import CLAIMS, Statement, mentioned
from toolroll.curriculum.knights_make import Draw, Wordless, drawer
from toolroll.run.seeds import record_seed

NAMES = (
    *("Ada", "Amir", "Anton", "Beatrix", "Bela", "Bruno", "Carmen", "Cato", "Clara", "Cyrus", "Dalia", "Dario"),
    *("Dina", "Edgar", "Elsa", "Emil", "Farid", "Felix", "Fiona", "Gita", "Greta", "Gustav", "Hana", "Hugo"),
    *("Iris", "Ivo", "Jana", "Jonas", "Kaya", "Lars", "Leila", "Luisa", "Magda", "Malik", "Marta", "Milo"),
    *("Nadia", "Nils", "Nora", "Olga", "Omar", "Otto", "Paula", "Petra", "Quentin", "Rosa", "Ruben", "Rufus"),
    *("Sanna", "Selma", "Simon", "Tara", "Theo", "Tilda", "Ugo", "Ursula", "Vera", "Viktor", "Wanda", "Willa"),
    *("Xenia", "Yara", "Yusuf", "Zeno"),
)
NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen"),
)

OPENINGS = (
    "Whoever lives on this island is a knight, who only tells the truth, or a knave, who only lies. You meet {names}.",
    "An island has two kinds of people: knights never lie, and knaves always do. {Count} of them are {names}.",
    "On a far island knights say what is true, knaves what is false, and there is nobody else. {names} live there.",
    "{names} live on an island where each of the {count} is a knight, who cannot lie, or a knave, who cannot but lie.",
)
QUESTIONS = (
    "Who is a knight and who is a knave?",
    "Which of them are knights, and which are knaves?",
    "Say of each of them whether they are a knight or a knave.",
)
QUOTED = (
    '{name} says: "{words}."',
    '{name} tells you, "{words}."',
    '"{words}," says {name}.',
    'Asked about it, {name} answers: "{words}."',
    '"{words}," {name} lets you know.',
)
REPORTED = (
    "{name} claims that {words}.",
    "According to {name}, {words}.",
    "{name} would have you believe that {words}.",
)


def worded(puzzle: Wordless, *, name: str, seed: int) -> dict[str, Any]:
    """A puzzle as kk-make writes it; its words depend on the seed, the number of people and the puzzle's number."""
    n = len(puzzle.statements)
    draw = drawer(record_seed(seed, "kk-words", n, puzzle.index))
    names = chosen_names(draw, n)
    return {
        "id": f"{name}_{n}/{puzzle.index}",
        "distribution": f"{name}_{n}",
        "n_people": n,
        "quiz": quiz(draw, names, puzzle.statements),
        "names": names,
        "solution": puzzle.solution,
        "answer": solution_text(names, puzzle.solution),
        "statements": repr(puzzle.statements),
        "split": puzzle.split,
    }


def quiz(draw: Draw, names: Sequence[str], statements: Sequence[Statement]) -> str:
    """A puzzle in words: who is there, what each says, and the question."""
    count = NUMBERS[len(names)]
    opening = _one(draw, OPENINGS).format(count=count, Count=count.capitalize(), names=listed(names))
    said = [_speech(draw, speaker, names, statement) for speaker, statement in enumerate(statements)]
    return " ".join([opening, *said, _one(draw, QUESTIONS)])


def solution_text(names: Sequence[str], solution: Sequence[bool]) -> str:
    r"""A solution in words, a line for each person, as kk-reward accepts it.

    >>> solution_text(["Ada", "Zeno"], [True, False])
    '(1) Ada is a knight\n(2) Zeno is a knave'
    """
    return "\n".join(
        f"({number}) {name} is a {role(knight)}"
        for number, (name, knight) in enumerate(zip(names, solution, strict=True), 1)
    )


def role(knight: bool) -> str:
    """What someone is called who is a knight, or is not."""
    return "knight" if knight else "knave"


def chosen_names(draw: Draw, n: int) -> list[str]:
    """`n` different names."""
    left = list(NAMES)
    return [left.pop(draw(len(left))) for _ in range(n)]


def listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence.

    >>> listed(["Ada", "Omar", "Zeno"]), listed(["Ada", "Omar"])
    ('Ada, Omar and Zeno', 'Ada and Omar')
    """
    return f"{', '.join(words[:-1])} and {words[-1]}" if words[1:] else words[0]


def clause(draw: Draw, statement: Statement, names: Sequence[str], me: int | None = None) -> str:
    """What a statement says, without a capital or a full stop; `me` is the number of whoever says "I".

    >>> names = ["Ada", "Omar", "Zeno"]
    >>> clause(lambda below: 0, ("->", ("lying", 0), ("and", ("lying", 1), ("telling-truth", 2))), names, me=2)
    'if Ada is a knave, then (both of these are true: Omar is a knave; I am a knight)'
    """
    kind, first, *rest = statement
    if kind in CLAIMS:
        return f"{_subject(first, names, me)} a {role(kind == CLAIMS[0])}"
    if kind == "not" and first[0] in CLAIMS:
        return f"{_subject(first[1], names, me)} not a {role(first[0] == CLAIMS[0])}"
    parts = [_part(draw, part, names, me) for part in (first, *rest)]
    return _joined(draw, kind, parts)


def _joined(draw: Draw, kind: str, parts: Sequence[str]) -> str:
    """The parts of a statement of this kind as one clause."""
    if kind == "not":
        return _one(draw, ("it is not true that {}", "it is false that {}")).format(*parts)
    if kind == "->":
        return _one(draw, ("if {}, then {}", "{1} if {0}", "{} only if {}")).format(*parts)
    if kind == "<=>":
        return _one(draw, ("{} if and only if {}", "{} exactly if {}")).format(*parts)
    two, in_a_row = len(parts) == 2, draw(3)
    if kind == "and":
        return listed(parts) if in_a_row else f"{'both' if two else 'all'} of these are true: {'; '.join(parts)}"
    if two and in_a_row:
        return "{} or {}, or both".format(*parts)
    return f"at least one of these is true: {'; '.join(parts)}"


def _part(draw: Draw, statement: Statement, names: Sequence[str], me: int | None) -> str:
    words = clause(draw, statement, names, me)
    bare = statement[0] in CLAIMS or (statement[0] == "not" and statement[1][0] in CLAIMS)
    return words if bare else f"({words})"


def _subject(person: int, names: Sequence[str], me: int | None) -> str:
    return "I am" if person == me else f"{names[person]} is"


def _speech(draw: Draw, speaker: int, names: Sequence[str], statement: Statement) -> str:
    form = draw(len(QUOTED) + (0 if speaker in mentioned(statement) else len(REPORTED)))
    if form < len(QUOTED):
        words = clause(draw, statement, names, speaker)
        return QUOTED[form].format(name=names[speaker], words=words[0].upper() + words[1:])
    words = clause(draw, statement, names)
    return REPORTED[form - len(QUOTED)].format(name=names[speaker], words=words)


def _one(draw: Draw, templates: Sequence[str]) -> str:
    return templates[draw(len(templates))]
