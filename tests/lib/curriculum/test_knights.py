"""Knights and Knaves: truth tables, solving, reading statements, making puzzles, and what they say in words."""

from __future__ import annotations

import re
import time
from itertools import islice, permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolroll.curriculum.knights import (
    assignments,
    parse_statements,
    roles,
    solution_table,
    solutions,
    truth_table,
    unsound,
)
from toolroll.curriculum.knights_make import (
    CLAIMS,
    KINDS,
    consistent,
    drawer,
    everywhere,
    fingerprint,
    people,
    puzzles,
    split_of,
    unique_puzzle,
)
from toolroll.curriculum.knights_words import NAMES, NUMBERS, clause, listed, solution_text, worded
from toolroll.errors import RowError, UsageError

A, B = ("telling-truth", 0), ("telling-truth", 1)
NOT_A, NOT_B = ("lying", 0), ("lying", 1)


def statements(n, depth=4):
    """Any statement about n people."""
    claims = st.tuples(st.sampled_from(CLAIMS), st.integers(0, n - 1))
    return st.recursive(
        claims,
        lambda part: st.one_of(
            st.tuples(st.just("not"), part),
            st.lists(part, min_size=2, max_size=3).map(lambda parts: ("and", *parts)),
            st.lists(part, min_size=2, max_size=3).map(lambda parts: ("or", *parts)),
            st.tuples(st.sampled_from(["->", "<=>"]), part, part),
        ),
        max_leaves=depth,
    )


quizzes = st.integers(1, 5).flatmap(lambda n: st.tuples(*[statements(n)] * n))


def holds(statement, knights):
    """Whether a statement is true, worked out without tables."""
    kind, *parts = statement
    if kind in CLAIMS:
        return knights[parts[0]] is (kind == "telling-truth")
    found = [holds(part, knights) for part in parts]
    if kind == "->":
        return found[0] <= found[1]
    return {"not": not found[0], "and": all(found), "or": any(found), "<=>": len(set(found)) == 1}[kind]


# --- tables and solutions


@pytest.mark.parametrize(
    ("statement", "rows"),
    [  # bits from the right: nobody is a knight, A alone, B alone, both
        (A, "1010"),
        (NOT_A, "0101"),
        (B, "1100"),
        (("not", B), "0011"),
        (("and", A, B), "1000"),
        (("or", A, B), "1110"),
        (("->", A, B), "1101"),
        (("->", B, A), "1011"),
        (("<=>", A, B), "1001"),
        (("and", A, ("not", ("or", NOT_A, B))), "0010"),
        (("or", NOT_A, NOT_B, ("and", A, B)), "1111"),
    ],
)
def test_a_table_has_a_bit_for_each_assignment(statement, rows):
    assert f"{truth_table(statement, 2):04b}" == rows


def test_a_puzzle_solved_by_hand():
    """A: "B is a knave." B: "A is a knight exactly if I am one."

    If A is a knight, B is a knave, and lies, as they are unlike. If A is a knave, B is a knight, and would lie.
    """
    assert list(solutions((NOT_B, ("<=>", A, B)))) == [[True, False]]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ((NOT_A,), []),  # "I am a knave" is the liar's paradox
        ((A,), [[False], [True]]),
        ((NOT_B, NOT_A), [[True, False], [False, True]]),
        ((("and", NOT_A, NOT_B), A), [[False, False]][:0]),
        ((("and", NOT_A, NOT_B), B), [[False, True]]),
        ((B, ("lying", 2), ("or", A, B)), [[False, False, True]][:0] + [[True, True, False]][:0]),
    ],
)
def test_puzzles_with_none_one_and_several_solutions(said, found):
    expected = [list(k) for k in product([False, True], repeat=len(said)) if fits(said, k)]
    assert sorted(solutions(said)) == sorted(expected)
    if found:
        assert list(solutions(said)) == found


def fits(said, knights):
    return all(holds(statement, knights) is knight for statement, knight in zip(said, knights, strict=True))


@settings(deadline=None)
@given(quizzes)
def test_solutions_are_those_that_trying_each_finds(said):
    expected = [list(k) for k in product([False, True], repeat=len(said)) if fits(said, k)]
    assert sorted(solutions(said)) == expected
    assert solution_table(said).bit_count() == len(expected)


def test_twenty_people_are_solved_at_once():
    said = tuple(("<=>", ("telling-truth", (i + 1) % 20), ("lying", (i + 7) % 20)) for i in range(20))
    start = time.thread_time()
    table = solution_table(said)
    assert time.thread_time() - start < 5
    for assignment in islice(assignments(table), 5):
        assert fits(said, roles(assignment, 20))


def test_unsound_names_what_is_wrong():
    names = ["Ada", "Omar"]
    assert unsound(0b0100, names, [False, True]) == ""
    assert unsound(0b0000, names, [False, True]) == "has no solution"
    assert unsound(0b1011, names, [False, True]) == "has 3 solutions"
    assert unsound(0b0001, names, [False, True]) == "the solution is not the stored one: Omar is a knave"


# --- reading statements


@settings(deadline=None)
@given(quizzes)
def test_what_is_written_is_read_back(said):
    assert parse_statements(repr(said), len(said)) == said
    assert parse_statements(f"\n {repr(said).replace(', ', ' ,')} ", len(said)) == said
    assert parse_statements(repr(said).replace("'", '"'), len(said)) == said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no tuple of tuples"),
        ("()", "not a tuple of 2"),
        ("(('lying', 1),)", "not a tuple of 2"),
        ("('lying', 1)", "statement 1: no tuple that begins with what it is: lying"),
        ("(('lying', 1), 7)", "statement 2: no tuple that begins with what it is: 7"),
        ("(('lying', 1), ())", "statement 2: no tuple that begins with what it is: ()"),
        ("(('lying', 1), ((), 1))", "statement 2: no tuple that begins"),
        ("(('lying', 1), ('lying', 2))", "statement 2: 'lying' is about one person, 0 to 1: ('lying', 2)"),
        ("(('lying', 1), ('lying', ('lying', 0)))", "'lying' is about one person"),
        ("(('lying', 1), ('lying', 0, 1))", "'lying' is about one person"),
        ("(('lying', 1), ('lying',))", "'lying' is about one person"),
        ("(('lying', 1), ('lying' 'lying', 1))", "statement 2: unknown kind 'lyinglying'"),
        ("(('lying', 1), ('not', 1))", "no tuple that begins with what it is: 1"),
        ("(('lying', 1), ('not', ('lying', 0), ('lying', 1)))", "'not' has 2 parts"),
        ("(('lying', 1), ('and', ('lying', 0)))", "'and' has 1 parts"),
        ("(('lying', 1), ('->', ('lying', 0), ('lying', 1), ('lying', 0)))", "'->' has 3 parts"),
        ("(('lying', 1), ('lying', 0)", "no tuple of tuples"),
        ("(('lying', 1), ('lying', 0)))", "no tuple of tuples"),
        ("(('lying', 1)('lying', 0))", "no tuple of tuples"),
        ("(('lying', 01), ('lying', 0))", "no tuple of tuples"),
        ("(('lying', 1), ('lying\", 0))", "no tuple of tuples"),
        ("(('lying', 1), ('lies', 0))", "no word of the grammar at character 16 of the statements: \"'lies', 0))\""),
        ("(('lying', -1), ('lying', 0))", "no word of the grammar at character 11"),
        ("(('lying', 1.0), ('lying', 0))", "no word of the grammar"),
        ("(('lying', True), ('lying', 0))", "no word of the grammar"),
        ("[['lying', 1], ['lying', 0]]", "no word of the grammar at character 0"),
        ("__import__('os').system('true')", "no word of the grammar at character 0"),
        ("(lambda: 1)()", "no word of the grammar"),
        ("(('lying', 1), ('lying', 0))\x00", "no word of the grammar"),
        ("(('lying', 1), ('lying', ٣))", "no word of the grammar"),
        ("(('lying', 1), " + "('not', " * 17 + "('lying', 0)" + ")" * 18, "nested more than 16 deep"),
        ("(" * 20_000, "nested more than 16 deep"),
        ("(" * 20_000 + ")" * 20_000, "nested more than 16 deep"),
        ("()," * 16_000, "not a tuple of 2"),
        ("1" * 49_999, "no tuple of tuples"),
        ("(" * 60_000, "more than 50000 characters"),
        ("-" * 49_000 + "1", "no word of the grammar at character 0"),
    ],
)
def test_anything_else_is_an_error_of_one_line(text, why):
    start = time.thread_time()
    with pytest.raises(RowError) as caught:
        parse_statements(text, 2)
    assert why in caught.value.why
    assert "\n" not in caught.value.why
    assert len(caught.value.why) < 150
    assert time.thread_time() - start < 2


@settings(deadline=None)
@given(st.text(alphabet="()', 012andorlying->"))
def test_no_text_is_worse_than_an_error(text):
    try:
        said = parse_statements(text, 2)
    except RowError:
        return
    assert len(said) == 2


def test_as_many_levels_as_allowed_are_read():
    said = A
    for _ in range(15):
        said = ("not", said)
    assert parse_statements(repr((said,)), 1) == (said,)


@pytest.mark.parametrize("n", [0, 21])
def test_too_few_and_too_many_people(n):
    with pytest.raises(RowError, match=f"{n} people; 1 to 20 can be solved"):
        parse_statements("()", n)


# --- making puzzles


def first(count, n, *, seed=0, depth=2, width=2):
    return list(islice(puzzles(n, seed=seed, depth=depth, width=width), count))


def depth_of(statement):
    return 1 + max((depth_of(part) for part in statement[1:] if isinstance(part, tuple)), default=0)


def parts_of(statement):
    for part in statement[1:]:
        if isinstance(part, tuple):
            yield part
            yield from parts_of(part)


@pytest.mark.parametrize(("depth", "width"), [(2, 2), (2, 4), (3, 2), (4, 5)])
@pytest.mark.parametrize("n", [2, 3, 7, 14])
def test_puzzles_have_one_solution_and_keep_to_depth_and_width(n, depth, width):
    for puzzle in first(20, n, depth=depth, width=width):
        assert len(puzzle.statements) == n
        assert list(solutions(puzzle.statements)) == [puzzle.solution]
        assert fits(puzzle.statements, puzzle.solution)
        for statement in puzzle.statements:
            assert depth_of(statement) <= depth
            for part in (statement, *parts_of(statement)):
                assert len(part) - 1 <= (width if part[0] in ("and", "or") else 2)
                if part[0] not in CLAIMS:
                    assert len(set(part[1:])) == len(part) - 1


def test_every_statement_tells_something():
    for puzzle in first(200, 3):
        for speaker, statement in enumerate(puzzle.statements):
            table = truth_table(statement, 3)
            assert table not in (0, everywhere(3))
            assert consistent(speaker, table, 3) not in (0, everywhere(3))


def test_all_kinds_of_statements_are_about_as_frequent():
    kinds = [statement[0] for puzzle in first(300, 8) for statement in puzzle.statements]
    shares = {kind: sum(k == kind or (kind == "claim" and k in CLAIMS) for k in kinds) / len(kinds) for kind in KINDS}
    assert all(0.1 < share < 0.25 for share in shares.values()), shares


def test_a_puzzle_depends_on_its_number_and_the_seed_alone():
    assert first(50, 4)[:20] == first(20, 4)
    assert [puzzle.index for puzzle in first(50, 4)] == list(range(50))
    assert first(3, 4) != first(3, 4, seed=1)
    assert first(1, 3)[0].statements == (
        ("<=>", ("lying", 1), ("telling-truth", 0)),
        ("and", ("telling-truth", 0), ("telling-truth", 2)),
        ("and", ("lying", 2), ("lying", 0)),
    )


def test_two_people_have_148_puzzles_and_all_are_found():
    """Counted by writing down every pair of statements of depth 2 about two people."""
    claims = [A, NOT_A, B, NOT_B]
    all_of_them = [*claims, *(("not", c) for c in claims)]
    all_of_them += [(kind, *pair) for kind in ("and", "or", "->", "<=>") for pair in permutations(claims, 2)]
    prints = set()
    for said in product(all_of_them, repeat=2):
        tables = [(truth_table(s, 2), consistent(i, truth_table(s, 2), 2)) for i, s in enumerate(said)]
        if not any(table in (0, 15) for pair in tables for table in pair) and solution_table(said).bit_count() == 1:
            prints.add(fingerprint(said))
    found = [fingerprint(puzzle.statements) for puzzle in puzzles(2, seed=3, depth=2, width=2)]
    assert len(prints) == len(found) == 148
    assert set(found) == prints


def renumbered(statement, order):
    kind, *parts = statement
    if kind in CLAIMS:
        return (kind, order[parts[0]])
    return (kind, *(renumbered(part, order) for part in parts))


@settings(deadline=None)
@given(st.integers(2, 5).flatmap(lambda n: st.tuples(st.tuples(*[statements(n)] * n), st.permutations(range(n)))))
def test_the_same_puzzle_in_another_order_has_the_same_fingerprint(case):
    said, order = case
    other = [()] * len(said)
    for speaker, statement in enumerate(said):
        other[order[speaker]] = renumbered(statement, order)
    assert fingerprint(other) == fingerprint(said)


def sorted_parts(statement):
    kind, *parts = statement
    if kind in CLAIMS:
        return statement
    parts = list(map(sorted_parts, parts))
    if kind == "not" and parts[0][0] in CLAIMS:
        return (CLAIMS[1 - CLAIMS.index(parts[0][0])], parts[0][1])
    return (kind, *(parts if kind == "->" else sorted(parts, key=repr)))


def canonical(said):
    """The first of all forms a puzzle has in other orders, by trying each."""
    forms = []
    for order in permutations(range(len(said))):
        form = [()] * len(said)
        for speaker, statement in enumerate(said):
            form[order[speaker]] = sorted_parts(renumbered(statement, order))
        forms.append(repr(form))
    return min(forms)


@pytest.mark.parametrize(("n", "depth"), [(2, 2), (2, 3), (3, 2), (4, 2)])
def test_fingerprints_tell_apart_what_differs(n, depth):
    found = {}
    for c in range(3000 if n < 4 else 1000):
        made = unique_puzzle(drawer(c), n, depth, 3)
        if made is not None:
            found.setdefault(fingerprint(made[0]), set()).add(canonical(made[0]))
    assert len(found) > 50
    assert all(len(forms) == 1 for forms in found.values())


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ((("and", A, B), B), (("and", B, A), B), True),
        ((("->", A, B), B), (("->", B, A), B), False),
        ((NOT_B, A), (("not", B), A), True),
        ((NOT_B, A), (B, A), False),
        ((("and", A, NOT_B), A), (("or", A, NOT_B), A), False),
        ((B, A), (A, B), False),
        ((("and", A, ("or", A, B)), A), (("and", ("or", B, A), A), A), True),
        ((("lying", 1), ("lying", 2), NOT_A), (("lying", 2), NOT_A, ("lying", 1)), True),
        ((("lying", 1), ("lying", 2), NOT_A), (("lying", 1), NOT_A, NOT_A), False),
    ],
)
def test_what_a_fingerprint_sees(one, other, alike):
    assert (fingerprint(one) == fingerprint(other)) is alike


def test_no_puzzle_comes_twice_and_splits_stay_apart_across_seeds():
    by_seed = [first(400, 3, seed=seed) for seed in (0, 1)]
    prints = [[fingerprint(puzzle.statements) for puzzle in made] for made in by_seed]
    assert all(len(set(made)) == 400 for made in prints)
    parts = {"train": set(), "test": set()}
    for made, keys in zip(by_seed, prints, strict=True):
        for puzzle, key in zip(made, keys, strict=True):
            assert puzzle.split == split_of(key)
            parts[puzzle.split].add(key)
    assert set(prints[0]) & set(prints[1])
    assert not parts["train"] & parts["test"]
    assert 0.06 < len(parts["test"]) / sum(map(len, parts.values())) < 0.14


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("3", [3]), ("3,4,5", [3, 4, 5]), ("3-14", list(range(3, 15))), ("5, 2-3 ,3", [2, 3, 5]), ("14-14", [14])],
)
def test_numbers_of_people(text, numbers):
    assert people(text) == numbers


@pytest.mark.parametrize("text", ["", "3,", "1", "15", "3-15", "1-3", "5-3", "three", "3..5", "-3", "3-", "٣", "9999"])
def test_what_is_no_number_of_people(text):
    with pytest.raises(UsageError) as caught:
        people(text)
    assert caught.value.place == "--people"


# --- words


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (A, "Ada is a knight"),
        (NOT_B, "Omar is a knave"),
        (("not", A), "Ada is not a knight"),
        (("not", NOT_B), "Omar is not a knave"),
        (("telling-truth", 2), "I am a knight"),
        (("not", ("lying", 2)), "I am not a knave"),
        (("and", A, NOT_B), "both of these are true: Ada is a knight; Omar is a knave"),
        (("or", A, NOT_B), "at least one of these is true: Ada is a knight; Omar is a knave"),
        (("and", A, B, ("lying", 2)), "all of these are true: Ada is a knight; Omar is a knight; I am a knave"),
        (("->", A, B), "if Ada is a knight, then Omar is a knight"),
        (("<=>", A, B), "Ada is a knight if and only if Omar is a knight"),
        (
            ("not", ("or", A, ("not", B))),
            "it is not true that (at least one of these is true: Ada is a knight; Omar is not a knight)",
        ),
    ],
)
def test_the_first_words_of_each_kind(statement, words):
    assert clause(lambda below: 0, statement, ["Ada", "Omar", "Zeno"], me=2) == words


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (("and", A, NOT_B), "Ada is a knight and Omar is a knave"),
        (("and", A, B, ("lying", 2)), "Ada is a knight, Omar is a knight and Zeno is a knave"),
        (("or", A, NOT_B), "Ada is a knight or Omar is a knave, or both"),
        (("->", A, NOT_B), "Ada is a knight only if Omar is a knave"),
        (("<=>", A, B), "Ada is a knight exactly if Omar is a knight"),
    ],
)
def test_the_last_words_of_each_kind(statement, words):
    assert clause(lambda below: below - 1, statement, ["Ada", "Omar", "Zeno"]) == words


def split_outside(text, mark):
    """The parts of a text between the marks that stand in no brackets."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0 and text.startswith(mark, at) and at >= start:
            parts.append(text[start:at])
            start = at + len(mark)
    return [*parts, text[start:]]


def understood(text, names, me):
    """The statement that words mean: an independent reader of what `clause` writes."""
    text = text[1:-1] if text.startswith("(") and text.endswith(")") and len(split_outside(text, ")")) == 2 else text
    read = lambda part: understood(part, names, me)  # noqa: E731
    for opening, kind in (
        ("it is not true that ", "not"),
        ("it is false that ", "not"),
        ("both of these are true: ", "and"),
        ("all of these are true: ", "and"),
        ("at least one of these is true: ", "or"),
    ):
        if text.startswith(opening):
            return (kind, *map(read, split_outside(text.removeprefix(opening), "; ")))
    if text.startswith("if "):
        return ("->", *map(read, split_outside(text.removeprefix("if "), ", then ")))
    for mark, kind in ((" if and only if ", "<=>"), (" exactly if ", "<=>"), (" only if ", "->"), (" if ", "<-")):
        parts = split_outside(text, mark)
        if len(parts) == 2:
            return ("->", read(parts[1]), read(parts[0])) if kind == "<-" else (kind, *map(read, parts))
    if len(split_outside(text, ", or both")) == 2:
        return ("or", *map(read, split_outside(text.removesuffix(", or both"), " or ")))
    parts = [part for pair in split_outside(text, " and ") for part in split_outside(pair, ", ")]
    if len(parts) > 1:
        return ("and", *map(read, parts))
    who, negation, role = re.fullmatch(r"(\w+) (?:is|am) (not )?a (knight|knave)", text).groups()
    claim = (CLAIMS[role == "knave"], me if who == "I" else names.index(who))
    return ("not", claim) if negation else claim


@settings(deadline=None, max_examples=300)
@given(statements(4, depth=8), st.integers(0, 10**6), st.sampled_from([None, 0, 3]))
def test_words_say_what_statements_say(statement, seed, me):
    names = ["Ada", "Omar", "Zeno", "Hugo"]
    assert understood(clause(drawer(seed), statement, names, me), names, me) == statement


def test_a_puzzle_in_words():
    for n in (2, 3, 14):
        for puzzle in first(30, n):
            row = worded(puzzle, name="kk_logic", seed=0)
            assert row["id"] == f"kk_logic_{n}/{puzzle.index}"
            assert row["distribution"] == f"kk_logic_{n}"
            assert parse_statements(row["statements"], n) == puzzle.statements
            assert len(set(row["names"])) == row["n_people"] == n
            assert set(row["names"]) <= set(NAMES)
            assert listed(row["names"]) in row["quiz"]
            assert all(row["quiz"].count(name) >= 2 for name in row["names"])
            assert row["answer"] == solution_text(row["names"], puzzle.solution)
            for name in row["names"]:
                assert not re.search(
                    rf"({name} claims that|According to {name},|{name} would)[^.]*\b{name}\b", row["quiz"]
                )
            assert "  " not in row["quiz"]
            assert not re.search(r"[{}]", row["quiz"])
            assert row["quiz"][0].isupper()
            assert row["quiz"][-1] in "?."


def test_words_depend_on_the_number_of_the_puzzle_not_on_others():
    rows = [worded(puzzle, name="x", seed=5) for puzzle in first(40, 3, seed=5)]
    assert rows[30:] == [worded(puzzle, name="x", seed=5) for puzzle in first(40, 3, seed=5)[30:]]
    assert len({tuple(row["names"]) for row in rows}) > 35
    assert len({row["quiz"][-20:] for row in rows}) > 1
    assert len({re.sub("|".join(row["names"]), "X", row["quiz"])[:20] for row in rows}) > 3


def test_no_name_is_another_nor_a_word_of_the_puzzle():
    assert len(NAMES) == len(set(NAMES)) >= 60
    assert all(name.isascii() and name.isalpha() and name.istitle() for name in NAMES)
    assert not {name.lower() for name in NAMES} & {"knight", "knave", "is", "a", "not", "and", "or", "if", "i"}
    assert len(NUMBERS) == 15
