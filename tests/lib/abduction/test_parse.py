"""What is read out of replies, by our reader and as the released code reads them."""

import time

import pytest

from toolroll.abduction.parse import count_functions, parse_authors, parse_reply

CODE = "def f(x):\n    return x + 1"
ON = 'def f(x):\n    return "on"'
PAIR_ERROR = "tuple parse error"

#: reply, our code, our text, the released code's code (None is an error)
REPLIES = {
    "a literal": (r'("adds one", "def f(x):\n    return x + 1")', CODE, "adds one", CODE),
    "real newlines": (f'("adds one", "{CODE}")', CODE, "adds one", CODE),
    "triple quotes": (f"('adds one', '''{CODE}''')", CODE, "adds one", CODE),
    "same quotes within": (f'("is on", "{ON}")', ON, "is on", None),
    "same quotes, escaped": (r'("is on", "def f(x):\n    return \"on\"")', ON, "is on", ON),
    "other quotes within": (f"('is on', '{ON}')", ON, "is on", ON),
    "a list": (f'["adds one", """{CODE}"""]', CODE, "adds one", CODE),
    "an object": (r'{"hypothesis": "adds one", "code": "def f(x):\n    return x + 1"}', CODE, "adds one", None),
    "fenced": (f"It adds one.\n```python\n{CODE}\n```\nThat is all.", CODE, "It adds one.", None),
    "fenced with tildes": (f"~~~\n{CODE}\n~~~", CODE, "", None),
    "fence not closed": (f"It adds one.\n\n```python\n{CODE}\n", CODE, "It adds one.", None),
    "fence in a line": (
        "It adds one: ```python def f(x): return x + 1```",
        "def f(x): return x + 1",
        "It adds one:",
        None,
    ),
    "a fence in a fence": (f"````markdown\n```python\n{CODE}\n```\n````", CODE, "", None),
    "a fence in a docstring": (
        'Look:\n```\ndef f(x):\n    """\n    ```\n    f(1)\n    ```\n    """\n    return x\n```',
        'def f(x):\n    """\n    ```\n    f(1)\n    ```\n    """\n    return x',
        "Look:",
        None,
    ),
    "a tuple in a fence": (f'```python\n("adds one", """{CODE}""")\n```', CODE, "adds one", CODE),
    "a fence in a tuple": (f'("adds one", """```python\n{CODE}\n```""")', CODE, "adds one", CODE),
    "prose around a tuple": (f'Here it is: ("adds one", "{CODE}"). Enjoy!', CODE, "adds one", CODE),
    "usage after it": (f"```\n{CODE}\n```\nUse it so:\n```\nprint(f(1))\n```", CODE, "", None),
    "it prints": (f"```\n{CODE}\n\nprint(f(1))\n```", f"{CODE}\n\nprint(f(1))", "", None),
    "bare code": (f"It adds one.\n\n{CODE}\n\nThat is all.", CODE, "It adds one.", None),
    "bare code with imports": (f"import math\n\n{CODE}", f"import math\n\n{CODE}", "", None),
    "after thinking": (f"<think>\n```\ndef g(x):\n    return 0\n```\n</think>\n```\n{CODE}\n```", CODE, "", None),
    "carriage returns": ("```\r\ndef f(x):\r\n    return x + 1\r\n```", CODE, "", None),
    "newlines spelled out twice": (
        r'("adds one", "def f(x):\\n    return x + 1")',
        CODE,
        "adds one",
        r"def f(x):\n    return x + 1",
    ),
    "not ASCII": (
        "('naïve', 'def f(x):\\n    return \"é\"')",
        'def f(x):\n    return "é"',
        "naïve",
        'def f(x):\n    return "Ã©"',
    ),
    "a string with a newline": (
        r"""('says a line', "def f(x):\n    return 'a\\n' + x")""",
        "def f(x):\n    return 'a\\n' + x",
        "says a line",
        "def f(x):\n    return 'a\\n' + x",
    ),
    "two functions": (
        '("two", "def f(x):\\n    return g(x)\\ndef g(x):\\n    return x")',
        "def f(x):\n    return g(x)\ndef g(x):\n    return x",
        "two",
        "def f(x):\n    return g(x)\ndef g(x):\n    return x",
    ),
    "quotes at the beginning of lines": (
        '("t", """def f(x):\n"    return x"\n\'    # so""")',
        'def f(x):\n"    return x"\n\'    # so',
        "t",
        "def f(x):\n    return x\n    # so",
    ),
}


@pytest.mark.parametrize(("reply", "code", "text"), [case[:3] for case in REPLIES.values()], ids=REPLIES)
def test_ours(reply, code, text):
    assert parse_reply(reply) == (text, code, "")


@pytest.mark.parametrize(("reply", "code"), [(case[0], case[3]) for case in REPLIES.values()], ids=REPLIES)
def test_the_released_codes(reply, code):
    found = parse_authors(reply)
    assert found.code == code
    assert found.why == ("" if code is not None else PAIR_ERROR)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("", "the reply is empty"),
        ("  \n", "the reply is empty"),
        ("I do not know.", "no function in the reply"),
        ('("adds one", 3)', "no function in the reply"),
        ('("a", "b", "c")', "no function in the reply"),
        (f"```\n{CODE}\n```\nor\n```\n{ON}\n```", "2 code blocks with functions in the reply"),
        ("x" * 100_001, "the reply has more than 100000 characters"),
    ],
)
def test_no_function(reply, why):
    found = parse_reply(reply)
    assert found.code is None
    assert found.why == why


def test_the_same_block_twice_is_one():
    assert parse_reply(f"```\n{CODE}\n```\nor\n```\n{CODE}\n```").code == CODE


def test_a_block_that_does_not_compile_is_left_to_the_compiler():
    assert parse_reply("So:\n```\ndef f(x:\n    return\n```") == ("So:", "def f(x:\n    return", "")


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("", PAIR_ERROR),
        ("ab", PAIR_ERROR),
        ("({}, {})", "syntax parse error: the code is no string"),
        ("('a', 3)", "syntax parse error: the code is no string"),
        (r"('a', 'def f(x): return \x')", "syntax parse error: truncated \\xXX escape"),
        ("('a', b)", PAIR_ERROR),
    ],
)
def test_the_released_codes_errors(reply, why):
    assert parse_authors(reply)[1:] == (None, why)


def test_the_released_code_takes_any_two_strings():
    assert parse_authors("I'd say it's either 'on'.")[:2] == ("d say it", "on")
    assert parse_authors("('a', 'b', 'c')").code == "b"


def test_functions_are_counted_at_the_top_level():
    assert count_functions("def f(x):\n    def g(y):\n        return y\n    return g(x)") == 1
    assert count_functions("async def f(x):\n    return x\ng = lambda x: x\nh = 3") == 2
    assert count_functions("class A:\n    def f(self):\n        return 1") == 0
    assert count_functions("(" * 5000) == 0


@pytest.mark.parametrize(
    "reply",
    [
        "```\n" * 25_000,
        "def f\n" * 16_000,
        "(" * 100_000,
        '("' * 50_000,
        "'" * 99_999,
        "```\ndef f(:\n" * 8_000,
        "{" * 99_999,
    ],
    ids=["fences", "defs", "brackets", "pairs", "quotes", "broken", "braces"],
)
def test_hostile_replies_take_no_time(reply):
    start = time.process_time()
    parse_reply(reply)
    parse_authors(reply)
    assert time.process_time() - start < 5
