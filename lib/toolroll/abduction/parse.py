"""From a model's reply to a sentence and the source of a function.

What is asked for is a Python tuple of two strings, ("sentence", "source"). What comes is that, or nearly that, or a
fenced block with prose around it, or bare code. `parse_reply` takes all of these; `parse_authors` does what the
released code does, with its faults, for comparison. Nothing of a reply is run here.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

__all__ = ["Reply", "count_functions", "parse_authors", "parse_reply"]

LONGEST = 100_000  #: characters of a reply that is looked at
MANY = 20  #: places in a reply that are tried, of each kind
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*([\w+#.-]*)[ \t]*")
INLINE = re.compile(r"```(?:python|py)?\s*(.+?)```", re.DOTALL)
START = re.compile(r"^(?:@\w|(?:async\s+)?def\s+\w|from\s+\w|import\s+\w)", re.MULTILINE)
OPENING = re.compile(r"""[\(\[]\s*(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\s*,\s*""", re.DOTALL)
CODE_KEYS = ("code", "function", "program", "source")
TEXT_KEYS = ("text", "hypothesis", "rule", "description", "explanation", "sentence")
#: What else than a bad value a literal of a hostile reply may cause.
UNREADABLE = (ValueError, TypeError, SyntaxError, MemoryError, RecursionError, LookupError)


class Reply(NamedTuple):
    """What a reply says: a sentence, and source code that is not checked; without code, why there is none."""

    text: str
    code: str | None
    why: str = ""


def parse_reply(reply: str) -> Reply:
    r"""The hypothesis in a reply, in whichever form it stands there.

    Tried in this order: a tuple, list or object of strings, alone or in a fenced block or within prose; the one fenced
    block with a function; a tuple whose quotes are not escaped; bare code. Code without newlines whose `\n` are spelled
    out gets newlines, but not within its string literals.

    >>> parse_reply('("adds one", "def f(x):\\n    return x + 1")')
    Reply(text='adds one', code='def f(x):\n    return x + 1', why='')
    >>> parse_reply("I do not know.").why
    'no function in the reply'
    """
    if len(reply) > LONGEST:
        return Reply("", None, f"the reply has more than {LONGEST} characters")
    said = reply.replace("\r\n", "\n").rpartition("</think>")[2].strip()
    if not said:
        return Reply("", None, "the reply is empty")
    blocks = list(_blocks(said))
    for whole in [said, *(code for _, code in blocks), _bracketed(said)]:
        if found := _from_literal(whole):
            return found
    coded = [(before, code) for before, code in blocks if count_functions(code)]
    if len({code.strip() for _, code in coded}) > 1:
        return Reply(said, None, f"{len(coded)} code blocks with functions in the reply")
    if coded:
        return Reply(coded[0][0].strip(), coded[0][1].strip("\n"))
    for guess in (_from_loose_tuple, _from_inline_fence, _from_bare_code):
        if found := guess(said):
            return found
    if blocks:  # a function that does not compile is told as that
        return Reply(blocks[0][0].strip(), blocks[0][1].strip("\n"))
    return Reply(said, None, "no function in the reply")


def count_functions(code: str) -> int:
    r"""How many functions code defines at its top level; 0 where it is no Python.

    >>> count_functions("def f(x):\n    return x"), count_functions("def f(x"), count_functions("f = lambda x: x")
    (1, 0, 1)
    """
    tree = _tree(code)
    if tree is None:
        return 0
    return sum(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda))
        for node in tree.body
    )


def _tree(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(code)
    except UNREADABLE:
        return None


def _literal(text: str) -> Any:
    """The value of a Python or JSON literal; None where it is none."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.literal_eval(text)
    except UNREADABLE:
        pass
    try:
        return json.loads(text)
    except UNREADABLE:
        return None


def _from_literal(said: str) -> Reply | None:
    said = said.strip()
    if not said.startswith(("(", "[", "{")):
        return None
    value = _literal(said.rstrip(";,"))
    if isinstance(value, dict):
        text = next((value[key] for key in TEXT_KEYS if isinstance(value.get(key), str)), "")
        code = next((value[key] for key in CODE_KEYS if isinstance(value.get(key), str)), None)
    elif isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(part, str) for part in value):
        text, code = value
    else:
        return None
    return None if code is None else Reply(text.strip(), _unfenced(code))


def _unfenced(code: str) -> str:
    """Code out of its fence, if it has one, its spelled-out newlines made real, if it needs that."""
    inner = [block for _, block in _blocks(code.strip()) if count_functions(block)]
    code = inner[0] if len(inner) == 1 else code
    return (code if count_functions(code) else _with_newlines(code)).strip("\n")


def _with_newlines(code: str) -> str:
    r"""Code whose newlines and tabs are spelled out, made real; itself where that gives no function.

    >>> _with_newlines('def f(x):\\n    return \'a\\nb\' * x')
    "def f(x):\n    return 'a\\nb' * x"
    """
    outside = "".join(_spelled_out(code))
    everywhere = code.replace("\\n", "\n").replace("\\t", "\t").replace('\\"', '"').replace("\\'", "'")
    return next((made for made in (outside, everywhere) if count_functions(made)), code)


def _spelled_out(code: str) -> Iterator[str]:
    r"""Pieces of code with `\n` and `\t` replaced outside of string literals, and quotes that are escaped there."""
    real = {"n": "\n", "t": "\t", '"': '"', "'": "'"}
    quote, at = "", 0
    while at < len(code):
        char, following = code[at], code[at + 1 : at + 2]
        if char == "\\" and not quote and following in real:
            quote = following if following in "\"'" else ""
            yield real[following]
            at += 2
        elif char == "\\":
            yield '"' if quote == '"' == following else code[at : at + 2]
            quote = "" if quote == following else quote
            at += 2
        else:
            if char in "\"'" and quote in ("", char):
                quote = "" if quote else char
            yield char
            at += 1


def _blocks(said: str, depth: int = 3) -> Iterator[tuple[str, str]]:
    """(text before it, content) of each fenced block, of the first ones where there are many.

    A block ends at the first closing fence at which its content is a function, so that a fence within a docstring
    does not end it; at the first closing fence where there is none such. A block that is not closed goes to the end.
    """
    lines = said.split("\n")
    start, at, left = 0, 0, MANY
    while at < len(lines) and left:
        opening = FENCE.fullmatch(lines[at])
        if opening is None:
            at += 1
            continue
        left -= 1
        closing = (end for end in range(at + 1, len(lines)) if _closes(lines[end], opening[1]))
        contents = [(end, "\n".join(lines[at + 1 : end])) for end in islice(closing, MANY)]
        contents = contents or [(len(lines), "\n".join(lines[at + 1 :]))]
        end, content = next(((end, code) for end, code in contents if count_functions(code)), contents[0])
        nested = depth and FENCE.match(content.lstrip("\n").partition("\n")[0])
        inner = list(_blocks(content, depth - 1)) if nested else []
        before = "\n".join(lines[start:at])
        yield from ([(before + within, code) for within, code in inner] or [(before, content)])
        start = at = end + 1


def _closes(line: str, fence: str) -> bool:
    line = line.strip()
    return len(line) >= len(fence) and set(line) == {fence[0]}


def _bracketed(said: str) -> str:
    """From the first opening bracket before a quote to the last closing one."""
    opening = OPENING.search(said)
    if opening is None:
        return ""
    closing = ")" if said[opening.start()] == "(" else "]"
    return said[opening.start() : said.rfind(closing) + 1]


def _from_loose_tuple(said: str) -> Reply | None:
    """A tuple that is no literal because its code has bare newlines or quotes of its own."""
    whole = _bracketed(said)
    opening = OPENING.match(whole)
    if opening is None:
        return None
    body = whole[opening.end() : -1].rstrip().rstrip(",").rstrip()
    for quotes in ('"""', "'''", '"', "'"):
        if body.startswith(quotes) and body.endswith(quotes) and len(body) >= 2 * len(quotes):
            code = _unfenced(body[len(quotes) : -len(quotes)])
            if count_functions(code):
                text = _literal(opening["text"])
                return Reply((text if isinstance(text, str) else opening["text"][1:-1]).strip(), code)
    return None


def _from_inline_fence(said: str) -> Reply | None:
    coded = {match.start(): _with_newlines(match[1].strip()) for match in islice(INLINE.finditer(said), MANY)}
    found = [(start, code) for start, code in coded.items() if count_functions(code)]
    return Reply(said[: found[0][0]].strip(), found[0][1]) if len(found) == 1 else None


def _from_bare_code(said: str) -> Reply | None:
    """Code without any fence: from its first line as far as it goes."""
    for start in (match.start() for match in islice(START.finditer(said), MANY // 4)):
        if "def " not in said[start:]:
            break
        lines = said[start:].split("\n")
        last = max(
            number
            for number, line in enumerate(lines)
            if number == 0 or line.startswith((" ", "\t", "#", ")", "]", "}", "else", "elif")) or START.match(line)
        )
        for code in ("\n".join(lines), "\n".join(lines[: last + 1]), _with_newlines(said[start:])):
            if count_functions(code):
                return Reply(said[:start].strip(), code.strip("\n"))
    return None


# --- the released code


_QUOTED = re.compile(r"""(["']{1,3})(.*?)\1""", re.DOTALL)
_FENCED = re.compile(r"```(?:python)?\s*([\s\S]+?)```")
_QUOTED_LINE = re.compile(r'\s*"(.*)"\s*')


def parse_authors(reply: str) -> Reply:
    """The hypothesis in a reply as the released code finds it; the code is cleaned as it does it, too.

    Without its first and last character, the reply is searched for quoted strings. If there are exactly two, they are
    sentence and code, escapes and all; otherwise the reply is to be a Python literal. So code with a string literal in
    the quotes that enclose it is an error where the tuple is not a literal in itself.

    >>> parse_authors('("on", "def f(x): return "on"")').why
    'tuple parse error'
    """
    try:
        found = [match[2] for match in _QUOTED.finditer(reply.strip()[1:-1].strip())]
        with warnings.catch_warnings(action="ignore"):
            pair: Any = found if len(found) == 2 else ast.literal_eval(reply)
        text, code = pair[0], pair[1]
    except UNREADABLE:
        return Reply(reply, None, "tuple parse error")
    text = text if isinstance(text, str) else repr(text)
    if not isinstance(code, str):
        return Reply(text, None, "syntax parse error: the code is no string")
    try:
        return Reply(text, _cleaned(code))
    except UnicodeDecodeError as error:
        return Reply(text, None, f"syntax parse error: {error.reason}")


def _cleaned(code: str) -> str:
    """Code after the released clean-up: escapes decoded everywhere as Latin-1, no fences, no blank lines, and no quote
    at the beginning of a line.
    """
    with warnings.catch_warnings(action="ignore"):
        code = code.encode(errors="replace").decode("unicode_escape")
    code = _FENCED.sub(r"\1", code).replace("\r\n", "\n").replace("\r", "\n")
    kept = []
    for line in code.split("\n"):
        quoted = _QUOTED_LINE.fullmatch(line)
        bare = quoted[1] if quoted else line
        if bare.strip():
            kept.append(bare[1:] if bare[0] in "\"'" else bare)
    return "\n".join(kept)
