"""What a policy is told and how a search is written into its text, for each dialect of trajectories.

A dialect fixes the tags that end a turn, how the found passages are wrapped, and what is written
before the model's first word. The instructions here are toolroll's own; a model trained on another
prompt wants that one (`rag-rollout --prompt-file`).

Sources: HiPRAG (arXiv:2510.07794, section 3.1 and its released inference script), Search-R1
(arXiv:2503.09516), R1-Searcher (arXiv:2503.05592).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_HIPRAG = """\
Answer the question in steps. All steps stand in one <think> block; the answer follows it.
A step begins with its <reasoning>: what is needed next. If that is a fact to look up, a <search> with a query \
follows, and the passages found come back in <context>. If it is known already, there is no search. A step ends \
with its <conclusion>: what it established. Take as many steps as the question needs.
After </think>, the <answer> holds the final answer alone, a few words.

An example.
User Question: Which river flows through the town where Mozart was born?
<think>
<step>
    <reasoning>I need the town where Mozart was born.</reasoning>
    <search>town where Wolfgang Amadeus Mozart was born</search>
    <context>Doc 1(Title: "Wolfgang Amadeus Mozart") Mozart was born in Salzburg in 1756.</context>
    <conclusion>Mozart was born in Salzburg.</conclusion>
</step>
<step>
    <reasoning>I need the river that flows through Salzburg.</reasoning>
    <search>river in Salzburg</search>
    <context>Doc 1(Title: "Salzburg") Salzburg lies on both banks of the Salzach.</context>
    <conclusion>The Salzach flows through Salzburg.</conclusion>
</step>
<step>
    <reasoning>Mozart was born in Salzburg and the Salzach flows through it, so it is the river asked for.</reasoning>
    <conclusion>The river is the Salzach.</conclusion>
</step>
</think>
<answer>Salzach</answer>

Now the question to answer."""

_SEARCH_R1 = """\
Answer the question. Think inside <think> and </think> each time you learn something new. If a fact is missing, \
search with <search> query </search>; the best passages come back between <information> and </information>. \
Search as often as you need. When you know the answer, give it, a few words and nothing else, inside <answer> and \
</answer>."""

_R1_SEARCHER = """\
Answer the question. Think first, and write the thoughts before </think>. If a fact is missing, write \
<|begin_of_query|> query <|end_of_query|> while you think; the passages found come back between \
<|begin_of_documents|> and <|end_of_documents|>. After </think>, give the final answer, a few words, inside <answer> \
and </answer>."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """How trajectories of one dialect are written.

    `query` finds a finished search in the text of one turn, `answer` a finished answer. A turn ends
    with one of `stops`. `before` and `after` wrap the passages; `after` may open the next field, and
    then counts as injected, not as the model's.
    """

    name: str
    instruction: str
    prefill: str
    search_stop: str
    query: re.Pattern[str]
    before: str
    after: str
    notice: str

    answer_stop: str = "</answer>"
    answer: re.Pattern[str] = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)

    @property
    def stops(self) -> tuple[str, str]:
        """The strings that end a turn."""
        return (self.search_stop, self.answer_stop)

    def wrap(self, passages: str) -> str:
        r"""Passages as they are injected after a search.

        >>> PROTOCOLS["search-r1"].wrap("Doc 1(Title: T) x")
        '\n\n<information>Doc 1(Title: T) x</information>\n\n'
        """
        return f"{self.before}{passages}{self.after}"

    def prompt(self, question: str, template: str | None = None) -> str:
        """The user's message: the instruction and the question.

        `template` replaces the instruction; `{question}` in it stands for the question, and where it
        is missing the question goes behind it.
        """
        question = question.strip()
        if not question.endswith(("?", ".", "!")):
            question += "?"
        if template is not None and "{question}" in template:
            return template.replace("{question}", question)
        return f"{template or self.instruction}\nUser Question: {question}"


_NOTICE = "\nThat was neither a search nor an answer. Search again or answer in the form that was asked for.\n"

PROTOCOLS = {
    "hiprag": Protocol(
        name="hiprag",
        instruction=_HIPRAG,
        prefill="\n<think>\n<step>\n    <reasoning>",
        search_stop="</search>",
        query=re.compile(r"<search>(.*?)</search>", re.DOTALL),
        before="\n    <context>",
        after="</context>\n    <conclusion>",
        notice=_NOTICE,
    ),
    "search-r1": Protocol(
        name="search-r1",
        instruction=_SEARCH_R1,
        prefill="",
        search_stop="</search>",
        query=re.compile(r"<search>(.*?)</search>", re.DOTALL),
        before="\n\n<information>",
        after="</information>\n\n",
        notice=_NOTICE,
    ),
    "r1-searcher": Protocol(
        name="r1-searcher",
        instruction=_R1_SEARCHER,
        prefill="<think>",
        search_stop="<|end_of_query|>",
        query=re.compile(r"<\|begin_of_query\|>(.*?)<\|end_of_query\|>", re.DOTALL),
        before="\n\n<|begin_of_documents|>\n",
        after="<|end_of_documents|>\n\n",
        notice=_NOTICE,
    ),
}


def find_action(protocol: Protocol, text: str) -> tuple[str, str] | None:
    r"""The first finished action in the new text of a turn: ("search", query), ("answer", answer) or None.

    Only new text may be given: older text holds older queries.

    >>> find_action(PROTOCOLS["hiprag"], "I look it up.</reasoning>\n<search> capital of France </search>")
    ('search', 'capital of France')
    """
    found = [(match.start(), kind, match[1].strip()) for kind, match in _matches(protocol, text) if match is not None]
    return min(found)[1:] if found else None


def _matches(protocol: Protocol, text: str) -> list[tuple[str, re.Match[str] | None]]:
    return [("search", protocol.query.search(text)), ("answer", protocol.answer.search(text))]
