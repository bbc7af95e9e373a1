import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolroll.checking.match import cem
from toolroll.errors import UsageError
from toolroll.rag.diagnose import PROBLEMS
from toolroll.rag.parse import STRICTNESS, Parse, _diagnose, _well_formed, parse
from toolroll.rag.reward import trajectory_reward

SEARCH = (
    "<step>\n    <reasoning>Who built it?</reasoning>\n    <search>builder of it</search>\n"
    "    <context>Doc 1(Title: Tower) Eiffel built it.</context>\n    <conclusion>Eiffel did.</conclusion>\n</step>"
)
PLAIN = "<step><reasoning>Eiffel worked in Paris.</reasoning><conclusion>So it is Paris.</conclusion></step>"
ANSWER = "<answer>Paris</answer>"


def think(*steps: str, between: str = "\n") -> str:
    return f"<think>\n{between.join(steps)}\n</think>"


def whole(*steps: str, answer: str = ANSWER) -> str:
    return f"{think(*steps)}\n{answer}"


def search_step(reasoning: str = "r", query: str = "q", context: str = "c", conclusion: str = "o") -> str:
    return (
        f"<step><reasoning>{reasoning}</reasoning><search>{query}</search>"
        f"<context>{context}</context><conclusion>{conclusion}</conclusion></step>"
    )


def plain_step(reasoning: str = "r", conclusion: str = "o") -> str:
    return f"<step><reasoning>{reasoning}</reasoning><conclusion>{conclusion}</conclusion></step>"


def codes(parsed: Parse) -> list[str]:
    return [problem["code"] for problem in parsed.problems]


# The verdicts of the four published checkers on crafted responses, and what is paid (gold "Paris", f = 0.2, no process
# reward, format as the released training checks it): response, paper, release, eval, regex, R.
TABLE = {
    "one search step": (whole(SEARCH), 1, 1, 1, 1, 1.0),
    "one nonsearch step": (whole(PLAIN), 1, 1, 1, 1, 1.0),
    "mixed steps": (whole(SEARCH, PLAIN, SEARCH), 1, 1, 1, 1, 1.0),
    "text before think": ("Sure! " + whole(PLAIN), 0, 1, 1, 1, 1.0),
    "an earlier think block": ("<think>Hm.</think>\n" + whole(PLAIN), 0, 1, 1, 1, 1.0),
    "text after answer": (whole(PLAIN) + " That is all.", 0, 0, 1, 0, 0.8),
    "end of sequence after answer": (whole(PLAIN) + "<|im_end|>", 0, 0, 1, 0, 0.8),
    "two answers, second right": (whole(PLAIN, answer="<answer>Rome</answer> <answer>Paris</answer>"), 0, 0, 1, 1, 0.8),
    "empty answer": (whole(PLAIN, answer="<answer> </answer>"), 0, 1, 1, 1, 0.2),
    "answer inside think": (f"<think>{PLAIN}{ANSWER}</think>", 0, 0, 0, 0, 0.8),
    "no answer": (think(PLAIN), 0, 0, 0, 0, 0.0),
    "unclosed answer": (think(PLAIN) + "<answer>Paris", 0, 0, 0, 0, 0.0),
    "no think end": (f"<think>{PLAIN}{ANSWER}", 0, 0, 0, 0, 0.8),
    "no step": (f"<think>It is Paris.</think>{ANSWER}", 0, 0, 0, 0, 0.8),
    "unclosed first step": (whole(PLAIN.removesuffix("</step>")), 0, 0, 0, 0, 0.8),
    "last step unclosed": (whole(SEARCH, PLAIN.removesuffix("</step>")), 0, 0, 0, 0, 0.8),
    "text between steps": (whole(SEARCH, "so far", PLAIN), 0, 1, 1, 1, 1.0),
    "text with tags between steps": (whole(SEARCH, "so <b>far</b>", PLAIN), 0, 1, 1, 1, 1.0),
    "text within a step": (whole(PLAIN.replace("<concl", "thus <concl")), 0, 1, 1, 1, 1.0),
    "unknown tags within a step": (whole(PLAIN.replace("<concl", "<note>x</note><concl")), 0, 0, 0, 0, 0.8),
    "foreign tags in reasoning": (whole(plain_step("<b>x</b>")), 1, 1, 1, 1, 1.0),
    "foreign tags in context": (whole(search_step(context="<b>x</b>")), 1, 1, 1, 1, 1.0),
    "comparisons in reasoning": (whole(plain_step("1<2 and 3>2")), 1, 1, 1, 1, 1.0),
    "comparisons in context": (whole(search_step(context="1<2 and 3>2")), 1, 1, 1, 1, 1.0),
    "search named in reasoning": (whole(plain_step("no <search> needed")), 0, 1, 1, 0, 1.0),
    "empty search": (whole(search_step(query=" ")), 1, 0, 0, 0, 0.8),
    "empty context": (whole(search_step(context="\n")), 1, 0, 0, 0, 0.8),
    "context without search": (whole(search_step().replace("<search>q</search>", "")), 0, 0, 0, 0, 0.8),
    "search without context": (whole(search_step().replace("<context>c</context>", "")), 0, 0, 0, 0, 0.8),
    "two searches": (whole(search_step().replace("<context>", "<search>q</search><context>")), 0, 0, 0, 0, 0.8),
    "empty reasoning": (whole(plain_step(reasoning="")), 1, 1, 1, 1, 1.0),
    "empty conclusion": (whole(plain_step(conclusion="")), 1, 1, 1, 1, 1.0),
    "wrong order": (
        whole("<step><conclusion>o</conclusion><reasoning>r</reasoning></step>"), 0, 0, 0, 0, 0.8,
    ),
    "search before reasoning": (
        whole("<step><search>q</search><context>c</context>" + plain_step().removeprefix("<step>")), 0, 0, 0, 0, 0.8,
    ),
    "nested step": (whole(f"<step>{PLAIN}</step>"), 0, 0, 0, 0, 0.8),
    "two conclusions": (whole(PLAIN.replace("</step>", "<conclusion>o</conclusion></step>")), 0, 0, 0, 0, 0.8),
    "missing conclusion": (whole("<step><reasoning>r</reasoning></step>"), 0, 0, 0, 0, 0.8),
    "context closes itself": (whole(search_step(context="a </context> b")), 0, 0, 0, 0, 0.8),
    "context closes its step": (whole(search_step(context="a </step> b")), 0, 0, 0, 0, 0.8),
    "context starts a think": (whole(search_step(context="a <think> b")), 0, 0, 0, 0, 0.8),
    "upper-case step tags": (whole(PLAIN.replace("step>", "STEP>")), 0, 0, 0, 0, 0.8),
    "attributes on tags": (whole(PLAIN.replace("<step>", '<step n="1">')), 0, 0, 0, 0, 0.8),
    "line ends of Windows": (whole(SEARCH, PLAIN).replace("\n", "\r\n"), 1, 1, 1, 1, 1.0),
    "tags inside the answer": (whole(PLAIN, answer="<answer><b>Paris</b> <step></answer>"), 1, 1, 1, 1, 1.0),
}  # fmt: skip

# Problems expected of the same responses. A well-formed one has none.
FAULTS = {
    "text before think": ["text_before_think"],
    "an earlier think block": ["multi_think"],
    "text after answer": ["text_after_answer"],
    "end of sequence after answer": ["text_after_answer"],
    "two answers, second right": ["multi_answer"],
    "empty answer": ["empty_answer"],
    "answer inside think": ["answer_in_think"],
    "no answer": ["no_answer"],
    "unclosed answer": ["answer_unclosed"],
    "no think end": ["think_unclosed"],
    "no step": ["no_step", "stray_text"],
    "unclosed first step": ["step_unclosed"],
    "last step unclosed": ["step_unclosed"],
    "text between steps": ["stray_text"],
    "text with tags between steps": ["stray_text", "unknown_tag"],
    "text within a step": ["stray_text"],
    "unknown tags within a step": ["unknown_tag", "stray_text"],
    "search named in reasoning": ["stray_tag"],
    "empty search": ["empty_query"],
    "empty context": ["empty_context"],
    "context without search": ["context_without_search"],
    "search without context": ["search_without_context"],
    "two searches": ["duplicate_tag"],
    "wrong order": ["wrong_order"],
    "search before reasoning": ["wrong_order"],
    "nested step": ["nested_step", "stray_tag"],
    "two conclusions": ["duplicate_tag"],
    "missing conclusion": ["missing_conclusion"],
    "context closes itself": ["stray_text", "stray_tag"],
    "context closes its step": ["tag_unclosed", "missing_conclusion", "stray_text"],
    "context starts a think": ["multi_think"],
    "upper-case step tags": ["no_step", "unknown_tag"],
    "attributes on tags": ["no_step", "unknown_tag"],
}


@pytest.mark.parametrize("case", TABLE)
def test_every_checker_gives_its_published_verdict(case: str) -> None:
    response, paper, release, evaluation, regex, _ = TABLE[case]
    verdicts = [parse(response, strictness=strictness).valid for strictness in STRICTNESS[1:]]
    assert verdicts == [bool(paper), bool(release), bool(evaluation), bool(regex)]


@pytest.mark.parametrize("case", TABLE)
def test_the_default_is_the_paper_and_nothing_empty(case: str) -> None:
    response, paper, *_ = TABLE[case]
    assert parse(response).valid == (bool(paper) and case not in {"empty search", "empty context"})
    assert parse(response).valid == (not parse(response).problems)


@pytest.mark.parametrize("case", TABLE)
def test_released_outcome_and_format_reward(case: str) -> None:
    response, *_, paid = TABLE[case]
    parsed = parse(response, strictness="release")
    reward = trajectory_reward(
        answer_correct=cem(parsed.answer, "Paris"),
        format_valid=parsed.valid,
        verdicts=[(step["kind"], "ok") for step in parsed.steps],
        process_weight=0,
    )
    assert reward.total == pytest.approx(paid)


@pytest.mark.parametrize("case", TABLE)
def test_every_fault_is_named(case: str) -> None:
    found = codes(parse(TABLE[case][0]))
    assert set(FAULTS.get(case, [])) <= set(found)
    assert bool(found) == (case in FAULTS)
    assert set(found) <= set(PROBLEMS)


def test_a_search_step_is_cut_into_its_parts() -> None:
    response = whole(SEARCH, PLAIN)
    first, second = parse(response).steps
    assert list(first) == ["i", "kind", "reasoning", "query", "context", "conclusion", "span", "problems"]
    assert first == {
        "i": 0,
        "kind": "search",
        "reasoning": "Who built it?",
        "query": "builder of it",
        "context": "Doc 1(Title: Tower) Eiffel built it.",
        "conclusion": "Eiffel did.",
        "span": [8, 8 + len(SEARCH)],
        "problems": [],
    }
    assert (second["i"], second["kind"], second["query"], second["context"]) == (1, "nonsearch", None, None)
    assert response[slice(*second["span"])] == PLAIN


def test_spans_count_characters_not_bytes() -> None:
    response = whole(plain_step("naïve 東京 🗼"), PLAIN)
    assert response[slice(*parse(response).steps[1]["span"])] == PLAIN


def test_a_step_that_starts_with_its_search() -> None:
    step = search_step().replace("<reasoning>r</reasoning>", "")
    parsed = parse(whole(step))
    assert codes(parsed) == ["missing_reasoning"]
    assert (parsed.steps[0]["reasoning"], parsed.steps[0]["query"]) == ("", "q")
    assert parsed.steps[0]["problems"] == ["missing_reasoning"]
    assert parsed.problems[0]["span"] == parsed.steps[0]["span"]


def test_a_conclusion_that_does_not_end_before_its_step() -> None:
    response = whole(search_step().replace("</conclusion>", ""), PLAIN)
    parsed = parse(response)
    assert codes(parsed) == ["tag_unclosed"]
    assert parsed.steps[0]["conclusion"] == "o"
    assert response[slice(*parsed.problems[0]["span"])] == "<conclusion>"
    assert len(parsed.steps) == 2


def test_three_openers_and_one_closer() -> None:
    parsed = parse(whole(plain_step("a<reasoning>b<reasoning>c")))
    assert codes(parsed) == ["duplicate_tag", "duplicate_tag"]
    assert parsed.steps[0]["problems"] == ["duplicate_tag"]
    assert parsed.steps[0]["conclusion"] == "o"


def test_a_last_answer_that_does_not_end() -> None:
    assert parse(think(PLAIN) + "<answer>Paris").answer is None
    parsed = parse(think(PLAIN) + "<answer>Rome</answer><answer>Paris")
    assert (parsed.answer, codes(parsed)) == ("Rome", ["answer_unclosed", "multi_answer"])


def test_all_problems_are_found_in_order_of_position() -> None:
    response = "Well, " + whole("<step><search></search></step>", "hm", PLAIN, answer="") + " <answer> </answer> bye"
    parsed = parse(response)
    assert codes(parsed) == [
        "text_before_think",
        "missing_reasoning",
        "missing_conclusion",
        "search_without_context",
        "empty_query",
        "stray_text",
        "empty_answer",
        "text_after_answer",
    ]
    assert [problem["step"] for problem in parsed.problems] == [None, 0, 0, 0, 0, None, None, None]
    assert [response[slice(*parsed.problems[k]["span"])] for k in (0, 5, 7)] == ["Well,", "hm", "bye"]


def test_steps_that_parse_are_returned_whatever_follows() -> None:
    assert len(parse(whole(SEARCH, PLAIN.removesuffix("</step>"))).steps) == 1
    assert len(parse(f"<think>{SEARCH}{PLAIN}").steps) == 2
    assert len(parse(f"{SEARCH}{PLAIN}</think>{ANSWER}").steps) == 2
    assert parse(whole(PLAIN.removesuffix("</step>"))).steps == []


def test_the_last_think_with_steps_counts() -> None:
    assert len(parse(whole(SEARCH) + whole(PLAIN, PLAIN)).steps) == 2
    quoted = parse(whole(SEARCH, answer="<answer>the tag <think></answer>"))
    assert (len(quoted.steps), codes(quoted)) == (1, ["multi_think"])


def test_a_search_named_in_the_reasoning_makes_a_search_step_without_a_query() -> None:
    step = parse(whole(plain_step("no <search> needed")), strictness="release").steps[0]
    assert (step["kind"], step["query"]) == ("search", None)


def test_nothing_at_all() -> None:
    for response in ("", " \n"):
        assert codes(parse(response)) == ["no_think", "no_step", "no_answer"]
        assert parse(response).answer is None


def test_truncation_is_a_fault_of_its_own() -> None:
    cut = parse(f"<think>{SEARCH}<step><reasoning>Now", truncated=True)
    assert codes(cut)[:2] == ["step_unclosed", "tag_unclosed"]
    assert codes(cut)[-1] == "truncated"
    assert set(codes(cut)[2:4]) == {"think_unclosed", "no_answer"}
    complete = whole(PLAIN)
    assert not parse(complete, truncated=True).valid
    assert parse(complete, truncated=True, strictness="paper-literal").valid
    assert parse(complete, truncated=True, strictness="release").valid


# Pieces to build responses from, well formed or not.
TEXTS = st.text(alphabet="ab <>/é\n", max_size=8) | st.sampled_from(["<b>x</b>", "1<2 and 3>2", "<search ", "</"])
TAGS = [f"<{slash}{name}>" for name in ("think", "step", "reasoning", "search", "context", "conclusion", "answer")
        for slash in ("", "/")]  # fmt: skip
STEPS = st.builds(search_step, TEXTS, TEXTS, TEXTS, TEXTS) | st.builds(plain_step, TEXTS, TEXTS)
RESPONSES = st.builds(lambda steps, answer: whole(*steps, answer=f"<answer>{answer}</answer>"),
                      st.lists(STEPS, max_size=4), TEXTS)  # fmt: skip


@given(RESPONSES)
def test_the_fast_path_and_the_diagnosis_agree_on_well_formed_responses(response: str) -> None:
    fast, slow = _well_formed(response), _diagnose(response, "hiprag", "paper", truncated=False)
    assert (fast is not None) == slow.valid
    if fast is not None:
        assert fast == slow
        assert all(_diagnose(response, "hiprag", strictness, truncated=False).valid for strictness in STRICTNESS)


@given(st.lists(st.sampled_from([*TAGS, "x", " ", "<b>"]), max_size=40).map("".join))
def test_any_row_of_tags_is_parsed_and_placed(response: str) -> None:
    for strictness in STRICTNESS:
        parsed = parse(response, strictness=strictness)
        starts = [problem["span"] for problem in parsed.problems]
        assert starts == sorted(starts)
        assert all(0 <= start <= end <= len(response) for start, end in starts)
        assert set(codes(parsed)) <= set(PROBLEMS)
        for step in parsed.steps:
            text = response[slice(*step["span"])]
            assert text.startswith("<step>")
            assert text.endswith("</step>")
            assert (step["kind"] == "search") == ("<search>" in text)
    assert (_well_formed(response) is not None) == parse(response).valid


@given(RESPONSES, st.data())
def test_one_tag_too_many_is_seen_by_both_paths(response: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(response)))
    broken = response[:at] + data.draw(st.sampled_from(TAGS)) + response[at:]
    slow = _diagnose(broken, "hiprag", "paper", truncated=False)
    assert (_well_formed(broken) is not None) == slow.valid
    if slow.valid:
        assert _well_formed(broken) == slow


HOSTILE = [
    "<step>", "<", "<think>", "<answer>", "<reasoning>", "<a", "<a>", "</step>", "<think><step>", "<step></step>",
    "<answer></answer>", "<search><context>", "<answer><step>", " ", "x<", "<think><search>", "<|begin_of_query|>",
    "<step><reasoning>r</reasoning><conclusion>o</conclusion></step>", "\\boxed{", "<information>", "</answer>",
]  # fmt: skip


def seconds_to_parse(response: str) -> float:
    start = time.process_time()
    for strictness in ("paper", "release", "regex"):
        parse(response, strictness=strictness)
    for dialect in ("search-r1", "r1-searcher"):
        parse(response, dialect=dialect)
    return time.process_time() - start


# Linear work on these takes a second or two; quadratic work takes minutes, exponential work for ever.
@pytest.mark.parametrize("unit", ["<step>", "<"])
def test_a_megabyte_of_one_tag(unit: str) -> None:
    start = time.process_time()
    parsed = parse(unit * (1_000_000 // len(unit)))
    assert time.process_time() - start < 20
    assert not parsed.valid


@pytest.mark.parametrize("unit", HOSTILE)
@pytest.mark.parametrize("frame", ["{}", "<think><step><reasoning>{}", "<think>{}</think><answer>{}</answer>"])
def test_no_response_takes_more_than_linear_time(unit: str, frame: str) -> None:
    assert seconds_to_parse(frame.replace("{}", unit * (60_000 // len(unit)))) < 8


TURNS = (
    "<think>Who built it?</think>\n<search>builder</search>\n\n<information>Doc 1 Eiffel</information>\n\n"
    "<think>Eiffel. Where?</think><search>Eiffel city</search><information>Doc 1 Paris</information>"
    "<think>Paris.</think>\n<answer>Paris</answer>"
)


def test_search_r1_turns_are_search_steps() -> None:
    parsed = parse(TURNS, dialect="search-r1")
    assert (parsed.valid, parsed.problems, parsed.answer) == (True, [], "Paris")
    first, second = parsed.steps
    assert first == {
        "i": 0,
        "kind": "search",
        "reasoning": "Who built it?",
        "query": "builder",
        "context": "Doc 1 Eiffel",
        "conclusion": "Eiffel. Where?",
        "span": [0, TURNS.index("<think>Eiffel") - 2],
        "problems": [],
    }
    assert (second["reasoning"], second["conclusion"]) == ("Eiffel. Where?", "Paris.")


def test_search_r1_without_a_search_has_no_steps() -> None:
    parsed = parse("<think>Easy.</think><answer>Paris</answer>", dialect="search-r1")
    assert (parsed.valid, parsed.steps) == (True, [])


def test_research_writes_result_and_boxes_its_answer() -> None:
    response = TURNS.replace("information>", "result>").replace(
        "Paris</answer>", r"It is \boxed{\text{Paris}}.</answer>"
    )
    parsed = parse(response, dialect="search-r1")
    assert (parsed.valid, parsed.answer) == (True, r"\text{Paris}")
    assert [step["context"] for step in parsed.steps] == ["Doc 1 Eiffel", "Doc 1 Paris"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("<think>Who built it?</think>\n", "", ["missing_reasoning"]),
        ("</think>\n<search>", "<search>", ["think_unclosed"]),
        ("<think>Paris.</think>", "", ["missing_conclusion"]),
        ("<information>Doc 1 Paris</information>", "", ["search_without_context"]),
        ("<search>builder</search>", "", ["context_without_search"]),
        ("<search>builder</search>", "<search> </search>", ["empty_query"]),
        ("Doc 1 Eiffel", "", ["empty_context"]),
        ("<think>Paris", "hm <think>Paris", ["stray_text"]),
        ("<answer>Paris</answer>", "", ["no_answer"]),
        ("</answer>", "", ["answer_unclosed"]),
        ("</answer>", "</answer> bye", ["text_after_answer"]),
        ("</answer>", "</answer><answer>Rome</answer>", ["multi_answer"]),
        ("builder</search>", "builder", ["tag_unclosed"]),
        ("Eiffel. Where?", "I could </search> now", ["stray_tag"]),
    ],
)
def test_search_r1_faults(old: str, new: str, expected: list[str]) -> None:
    assert TURNS.count(old) >= 1
    parsed = parse(TURNS.replace(old, new, 1), dialect="search-r1")
    assert codes(parsed) == expected
    assert not parsed.valid


def test_search_r1_faults_belong_to_their_turn() -> None:
    parsed = parse(TURNS.replace("Doc 1 Paris", " "), dialect="search-r1")
    assert [(problem["code"], problem["step"]) for problem in parsed.problems] == [("empty_context", 1)]
    assert [step["problems"] for step in parsed.steps] == [[], ["empty_context"]]
    assert parse(TURNS.replace("Doc 1 Paris", " "), dialect="search-r1", strictness="paper-literal").valid


R1_SEARCHER = (
    "I must know the builder.\n<|begin_of_query|>builder<|end_of_query|>\n"
    "<|begin_of_documents|>\n(1) Eiffel\n<|end_of_documents|>\n\nHe lived in Paris.\n</think>\n<answer>Paris</answer>"
)


def test_r1_searcher_thinks_in_prose() -> None:
    parsed = parse(R1_SEARCHER, dialect="r1-searcher")
    assert (parsed.valid, parsed.problems, parsed.answer) == (True, [], "Paris")
    step = parsed.steps[0]
    assert step["reasoning"] == "I must know the builder."
    assert (step["query"], step["context"], step["conclusion"]) == ("builder", "(1) Eiffel", "He lived in Paris.")


def test_r1_searcher_may_ask_again_at_once_and_repeat_the_opener_of_the_prompt() -> None:
    turn = R1_SEARCHER[R1_SEARCHER.index("<|begin_of_query") : R1_SEARCHER.index("\n\nHe")]
    parsed = parse("<think>" + R1_SEARCHER.replace(turn, turn + turn), dialect="r1-searcher")
    assert (parsed.valid, len(parsed.steps)) == (True, 2)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("</think>", "", ["think_unclosed"]),
        ("<|end_of_query|>", "", ["tag_unclosed"]),
        ("<answer>", "So: <answer>", ["stray_text"]),
        ("</answer>", "</answer>.", ["text_after_answer"]),
        ("He lived", "<think>He lived", ["multi_think"]),
        ("He lived", "<answer>Rome</answer>He lived", ["answer_in_think", "text_after_answer", "multi_answer"]),
    ],
)
def test_r1_searcher_faults(old: str, new: str, expected: list[str]) -> None:
    assert codes(parse(R1_SEARCHER.replace(old, new, 1), dialect="r1-searcher")) == expected


def test_what_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown dialect 'xml'"):
        parse("", dialect="xml")
    with pytest.raises(UsageError, match="unknown strictness"):
        parse(whole(PLAIN), strictness="strict")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="HiPRAG's own"):
        parse(TURNS, dialect="search-r1", strictness="regex")
