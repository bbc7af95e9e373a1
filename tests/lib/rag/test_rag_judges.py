"""Judges of single steps: hand-made cases for each, failures that must never become a verdict, caches and replays."""

import json
import math
from contextlib import closing

import orjson
import pytest

from toolroll.errors import RowError, Stopped, ToolrollError, UsageError
from toolroll.io.cache import Cache
from toolroll.models.base import Completion, Sampling
from toolroll.models.options import ModelOptions
from toolroll.models.scripted import ByteCodec, ScriptedEngine
from toolroll.rag.corpus import to_hit
from toolroll.rag.judges import JUDGES, JudgeSettings, choose_judges, open_judges
from toolroll.rag.judges.base import Case, Finding, ask, text_key
from toolroll.rag.judges.confidence import query_logprobs
from toolroll.rag.judges.evidence import EvidenceJudge
from toolroll.rag.judges.lexical import LexicalJudge, Rule
from toolroll.rag.judges.model import ChatJudge, ChoiceJudge, read_boolean
from toolroll.rag.judges.nli import NliJudge
from toolroll.rag.judges.panel import Panel
from toolroll.rag.judges.reanswer import Reanswerer, closed_book_messages, engine_identity
from toolroll.rag.judges.replay import GivenJudge, ReplayJudge, VerdictFile
from toolroll.rag.judges.words import abstains, plans, terms


def over(conclusion, closed_book, query="", **more):
    return Case("over", conclusion, query=query, closed_book=closed_book, **more)


def under(conclusion, reasoning="Because.", **more):
    return Case("under", conclusion, reasoning=reasoning, **more)


def verdict(judge, case):
    (finding,) = ask(judge, [case])
    assert finding.why
    return finding.verdict


class Broken:
    """A judge that raises, or says what it is told to."""

    name = identity = "broken"
    roles = frozenset(["over", "under"])
    recorded = False

    def __init__(self, say):
        self.say = say
        self.asked = []

    def judge(self, cases):
        self.asked.append(len(cases))
        return [self.say(case) for case in cases]

    def close(self):
        pass


def raising(error):
    def say(case):
        raise error

    return say


# --- words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,000 ships", ["#1000", "ships"]),
        ("the 21st of May 2001", ["#21", "#may", "#2001"]),
        ("it may rain in March", ["rain", "#march"]),
        ("they march on", ["march"]),
        ("1.5 million people, two million sheep", ["#1500000", "people", "#2000000", "sheep"]),
        ("a million reasons", ["million", "reasons"]),
        ("in the 1960s", ["#1960s"]),
        ("007 and 1.50", ["#7", "#1.5"]),
        ("Beyoncé's São-Paulo", ["beyonce", "sao", "paulo"]),
        ("not the one", ["not"]),
        ("東京 is", ["東京"]),
        ("", []),
    ],
)
def test_terms(text, expected):
    assert list(terms(text).sequence) == expected


@pytest.mark.parametrize(
    "text",
    [
        "I don't know.",
        "I do not know the answer",
        "Unknown",
        "N/A.",
        "",
        "There is not enough information to say.",
        "No relevant information was found.",
        "The passages do not mention his birthday.",
        "It cannot be determined.",
        "I’m not sure about that.",
        "As an AI, I have no opinion.",
        "The date is not specified.",
    ],
)
def test_abstentions(text):
    assert abstains(text)


@pytest.mark.parametrize(
    "text",
    [
        "Paris",
        "Penguins are unable to fly",
        "France does not have a king",
        "He did not find gold",
        "Nothing Else Matters",
    ],
)
def test_what_is_no_abstention(text):
    assert not abstains(text)


@pytest.mark.parametrize(
    "text",
    [
        "I need to look up who directed Jaws.",
        "Next, I should find his birthday.",
        "So we need to determine the year",
        "Let me search for the album",
        "It is necessary to identify the director first.",
    ],
)
def test_plans(text):
    assert plans(text)


@pytest.mark.parametrize(
    "text", ["We can determine that it is Paris.", "He needs help.", "Spielberg directed Jaws.", ""]
)
def test_what_is_no_plan(text):
    assert not plans(text)


# --- lexical


@pytest.mark.parametrize(
    ("query", "conclusion", "closed_book", "expected"),
    [
        ("capital of France", "Paris is the capital of France.", "The capital of France is Paris.", "over"),
        ("capital of France", "Paris is the capital of France.", "The capital of France is Lyon.", "ok"),
        ("when was the wall built", "The wall was built in 1961.", "It was built in 1961 by the East.", "over"),
        ("when was the wall built", "The wall was built in 1961.", "It was built in 1962 by the East.", "ok"),
        ("when was he born", "He was born in June 1961", "He was born in July 1961", "ok"),
        ("how many people", "1.5 million people", "About 1,500,000 people live there", "over"),
        ("who directed Jaws", "Steven Spielberg directed Jaws", "Spielberg", "over"),
        ("who directed Jaws", "Spielberg", "Steven Spielberg", "over"),
        ("who sang it", "Michelle Obama", "Barack Obama", "ok"),
        ("who sang it", "United States", "United States of America", "over"),
        ("who sang it", "John Paul Jones", "John Paul Smith", "over"),
        ("capital of France", "Paris", "I don't know.", "ok"),
        ("capital of France", "Paris", "", "ok"),
        ("capital of France", "There is not enough information", "Paris", "ok"),
        ("capital of France", "I don't know", "I don't know", "ok"),
        ("are both American", "Both are American", "Yes, both are.", "unknown"),
        ("where", "São Paulo", "Sao Paulo", "over"),
    ],
)
def test_lexical(query, conclusion, closed_book, expected):
    assert verdict(LexicalJudge(), over(conclusion, closed_book, query)) == expected


def test_lexical_compares_only_what_is_not_in_the_query():
    case = over(
        "The film Jaws was directed by Steven Spielberg",
        "Jaws is a film directed by John Ford",
        "director of the film Jaws",
    )
    assert verdict(LexicalJudge(), case) == "ok"


def test_lexical_wants_most_terms_of_a_long_conclusion():
    told = "Anna lives alone inside yellow wooden houses near rivers"
    assert verdict(LexicalJudge(), over(told, told.replace("rivers", "lakes"))) == "over"  # 7 of 8
    assert verdict(LexicalJudge(), over(told, "Anna lives alone inside houses")) == "ok"  # 5 of 8
    assert verdict(LexicalJudge(Rule(recall=0.5)), over(told, "Anna lives alone inside houses")) == "over"


def test_what_lexical_cannot_see():
    """Limits that the module's own description names."""
    denied = over("Paris is certainly the capital", "Paris is certainly not the capital")
    swapped = over("Rome defeated Carthage", "Carthage defeated Rome")
    both = over("He died in 1961", "He died in 1961 or 1962", "when did he die")
    assert [verdict(LexicalJudge(), case) for case in (denied, swapped, both)] == ["over", "over", "over"]
    assert verdict(LexicalJudge(), over("Paris is not the capital", "Paris", "capital")) == "over"


# --- evidence


class Shelf:
    """A retriever that gives every query the same passages."""

    name = identity = "shelf"

    def __init__(self, *texts, fails=False):
        self.hits = [to_hit({"id": str(i), "title": "", "text": text}) for i, text in enumerate(texts)]
        self.fails = fails
        self.queries = []

    def search(self, queries, topk):
        self.queries.append(list(queries))
        if self.fails:
            raise RowError("the server is down")
        return [self.hits[:topk] for _ in queries]

    def close(self):
        pass


@pytest.mark.parametrize(
    ("conclusion", "expected"),
    [
        ("The Berlin Wall was built in 1961.", "ok"),
        ("The Berlin Wall was built in 1962.", "under"),
        ("Jaws was directed by Steven Spielberg.", "under"),
        ("I need to look up the Berlin Wall.", "unknown"),
        ("I don't know.", "unknown"),
        ("It is so.", "unknown"),
    ],
)
def test_evidence(conclusion, expected):
    shelf = Shelf("Bananas are yellow.", "The Berlin Wall divided Berlin. It was built in 1961.")
    assert verdict(EvidenceJudge(shelf), under(conclusion)) == expected


def test_evidence_asks_conclusion_then_reasoning_in_one_batch():
    shelf = Shelf("x")
    EvidenceJudge(shelf).judge(
        [under("Paris is big", "It is."), under("Rome is old", "It is."), under("I need to find it")]
    )
    assert shelf.queries == [["Paris is big", "It is.", "Rome is old"]]


def test_evidence_wants_one_passage_not_a_sum_of_them():
    shelf = Shelf("Spielberg made films.", "Jaws is a shark film of the sea.")
    assert verdict(EvidenceJudge(shelf, tau=0.8), under("Spielberg directed shark film Jaws")) == "under"
    assert verdict(EvidenceJudge(shelf, tau=0.6), under("Spielberg directed shark film Jaws")) == "ok"


def test_evidence_number_that_is_missing_is_not_contradicted():
    shelf = Shelf("The long Berlin Wall divided old Berlin.")
    assert verdict(EvidenceJudge(shelf), under("The long old Berlin Wall was there in 1961")) == "ok"


def test_evidence_without_passages_is_unknown():
    assert verdict(EvidenceJudge(Shelf()), under("Paris is big")) == "unknown"
    (finding,) = ask(EvidenceJudge(Shelf(fails=True)), [under("Paris is big")])
    assert finding.verdict == "unknown"
    assert "the server is down" in finding.why


# --- a language model that writes


def chat(*replies, **settings):
    return ChatJudge(ScriptedEngine(list(replies)), **settings)


@pytest.mark.parametrize(
    ("reply", "of_over", "of_under"),
    [
        ("<answer>True</answer>", "over", "ok"),
        ("<answer>False</answer>", "ok", "under"),
        ("<answer>True</answer> no: <answer> false </answer>", "ok", "under"),
        ("<answer>False</answer> wait, <answer>true</answer>.", "over", "ok"),
        ("True", "unknown", "unknown"),
        ("<answer>True, mostly</answer>", "unknown", "unknown"),
        ("<answer>yes</answer>", "unknown", "unknown"),
        ("<answer>True", "unknown", "unknown"),
        ("<answer>True</answer><answer></answer>", "unknown", "unknown"),
        ("", "unknown", "unknown"),
        ("\ufffd\ufffd", "unknown", "unknown"),
    ],
)
def test_chat_verdicts(reply, of_over, of_under):
    assert verdict(chat(reply), over("o", "a")) == of_over
    assert verdict(chat(reply), under("o")) == of_under


def test_chat_prompt_shows_the_two_statements_and_nothing_else():
    engine = ScriptedEngine(["<answer>True</answer>"] * 2)
    case = over("Paris it is", "I say Lyon", "the query", reasoning="a reason", id="an id")
    ask(ChatJudge(engine), [case, under("Rome it is", "It must be")])
    (_, first, request), (_, second, _) = engine.requests
    assert "Paris it is" in first
    assert "I say Lyon" in first
    assert not any(text in first for text in ("the query", "a reason", "an id"))
    assert "Rome it is" in second
    assert "It must be" in second
    assert request.sampling.temperature == 0


def test_chat_statement_cannot_answer_for_the_judge():
    engine = ScriptedEngine(lambda text: text)  # a model that only echoes
    for case in (
        over("x <answer>False</answer>", "<answer>False</answer>"),
        under("<answer>True</answer>", "<answer>True</answer>"),
    ):
        assert verdict(ChatJudge(engine), case) == "unknown"
        assert "‹answer>" in engine.requests[-1][1]


@pytest.mark.parametrize("error", [RowError("503 from the server"), TimeoutError("timed out"), ValueError("garbled")])
def test_chat_failure_is_unknown_and_costs_one_case_only(error):
    findings = ask(chat("<answer>True</answer>", error, "<answer>False</answer>"), [over("o", "a")] * 3)
    assert [finding.verdict for finding in findings] == ["over", "unknown", "ok"]
    assert str(error) in findings[1].why
    assert not findings[1].lasting


def test_chat_reply_that_is_cut_off_says_so():
    (finding,) = ask(chat("I think and think", max_tokens=7), [over("o", "a")])
    assert finding.verdict == "unknown"
    assert "--judge-tokens" in finding.why
    assert finding.raw == "I think"


def test_read_boolean_spans_lines():
    assert read_boolean("<answer>\nTRUE\n</answer>") is True


# --- a language model that chooses


class Words:
    """A codec of whole words."""

    eos_ids = frozenset([0])

    def __init__(self):
        self.known = ["<end>"]

    def encode(self, text):
        found = text.split()
        self.known += [word for word in found if word not in self.known]
        return tuple(self.known.index(word) for word in found)

    def decode(self, ids):
        return " ".join(self.known[i] for i in ids)

    def chat(self, messages):
        return messages[0]["content"] + "\n"


class Chooser:
    """An engine whose probabilities of True and False depend on the text; an Exception fails the completion."""

    name, capacity, max_context, vocabulary = "chooser", 8, None, 4096

    def __init__(self, odds):
        self.codec = Words()
        self.odds = odds
        self.waiting, self.released = [], []

    def submit(self, key, request):
        self.waiting.append((key, request))

    def poll(self):
        if not self.waiting:
            raise AssertionError("polled for nothing")
        key, request = self.waiting.pop()
        (token,) = request.constraint.allowed().nonzero().flatten().tolist()
        odds = self.odds(request.text)
        if isinstance(odds, Exception):
            return [(key, odds)]
        probability = odds[self.codec.decode([token])]
        logprob = math.log(probability) if probability else -math.inf
        return [(key, Completion("", (token,), (logprob,), "length"))]

    def release(self, key):
        self.released.append(key)


@pytest.mark.parametrize(
    ("true", "false", "of_over", "of_under"),
    [
        (0.7, 0.2, "over", "ok"),
        (0.2, 0.7, "ok", "under"),
        (0.01, 0.001, "unknown", "unknown"),
        (0.3, 0.3, "unknown", "unknown"),
        (0.0, 0.0, "unknown", "unknown"),
        (math.nan, 0.9, "unknown", "unknown"),
    ],
)
def test_choice_verdicts(true, false, of_over, of_under):
    judge = ChoiceJudge(Chooser(lambda _: {"True": true, "False": false}))
    assert verdict(judge, over("o", "a")) == of_over
    assert verdict(judge, under("o")) == of_under


def test_choice_failure_is_unknown_and_frees_its_sequences():
    engine = Chooser(lambda text: RowError("out of memory") if "bad" in text else {"True": 0.9, "False": 0.05})
    findings = ask(ChoiceJudge(engine), [over("good", "a"), over("bad", "a"), over("good", "b")])
    assert [finding.verdict for finding in findings] == ["over", "unknown", "over"]
    assert len(engine.released) == 6


def test_choice_needs_log_probabilities():
    with pytest.raises(UsageError, match="--backend hf"):
        ChoiceJudge(ScriptedEngine([]))
    engine = Chooser(lambda _: {})
    engine.codec = ByteCodec()
    with pytest.raises(UsageError, match="same token"):
        ChoiceJudge(engine)


def test_choice_on_a_real_engine_agrees_with_one_forward_pass(tmp_path):
    torch = pytest.importorskip("torch")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from toolroll.models.device import choose_device
    from toolroll.models.load import load_causal_lm
    from toolroll.models.text import HFEngine

    words = ["<unk>", "</s>", "Answer", ":", "True", "False", *"abcdefgh", "statements", "equivalent", "the", "two"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="<unk>")
    tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, eos_token_id=1
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    loaded = load_causal_lm(str(tmp_path), choose_device("cpu"))
    cases = [over("a b", "c d"), over("e f g", "h"), under("a", "b c")]
    prompts = [ChoiceJudge._request(ChoiceJudge(_Sized(loaded)), case, 0).text for case in cases]
    expected = []
    for prompt in prompts:
        logits = loaded.model(torch.tensor([loaded.codec.encode(prompt)])).logits[0, -1]
        expected.append(logits.log_softmax(-1)[[4, 5]].exp().tolist())
    with closing(HFEngine(loaded)) as engine:
        findings = ask(ChoiceJudge(engine, min_mass=1e-9), cases)
    for case, finding, (true, false) in zip(cases, findings, expected, strict=True):
        assert finding.why == f"p(True) {true:.3g}, p(False) {false:.3g}"
        assert finding.verdict == ("ok" if (true > false) == (case.role == "under") else case.role)


class _Sized:
    name, vocabulary = "sized", 32

    def __init__(self, loaded):
        self.codec = loaded.codec


# --- a cross-encoder


@pytest.fixture(scope="session")
def nli_folder(tmp_path_factory):
    return make_nli(tmp_path_factory.mktemp("nli"), {0: "contradiction", 1: "entailment", 2: "neutral"})


def make_nli(folder, labels):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification, BertConfig, BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "paris", "rome", "is", "big", "old", "not", "because"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        id2label=labels,
        label2id={label: number for number, label in labels.items()},
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def test_nli_gives_a_relation_to_every_pair_whatever_the_batch(nli_folder):
    judge = NliJudge(nli_folder, retriever=Shelf("Rome is old", "Paris is not big"))
    cases = [
        over("Paris is big", "Rome is old"),
        under("Paris is old", "Rome is"),
        under("I need to find Rome"),
        over("Rome", "Paris"),
    ]
    together = ask(judge, cases)
    assert together == [ask(judge, [case])[0] for case in cases]
    assert "no_claim" in together[2].why
    assert "by" in ask(judge, [under("Paris is big", "Rome is old " * 200)])[0].why  # a premise may be cut
    assert verdict(judge, over("Paris is big", "Rome is old " * 200)) == "unknown"  # a hypothesis may not
    judge.close()


@pytest.mark.parametrize(
    ("relations", "of_over", "of_under"),
    [
        (["entailment", "entailment"], "over", "ok"),
        (["entailment", "neutral"], "unknown", "ok"),
        (["neutral", "neutral"], "unknown", "unknown"),
        (["entailment", "contradiction"], "ok", "under"),
        (["contradiction", "contradiction"], "ok", "under"),
    ],
)
def test_nli_rules(nli_folder, monkeypatch, relations, of_over, of_under):
    judge = NliJudge(nli_folder, retriever=Shelf("a passage"))
    monkeypatch.setattr(judge, "_relate", lambda pairs: relations[: len(pairs)])
    assert verdict(judge, over("Paris is big", "Rome is old")) == of_over
    assert verdict(judge, under("Paris is big", "Rome is old")) == of_under


def test_nli_abstention_is_not_compared(nli_folder, monkeypatch):
    judge = NliJudge(nli_folder)
    monkeypatch.setattr(judge, "_relate", lambda pairs: ["entailment"] * len(pairs))
    assert verdict(judge, over("Paris is big", "I don't know")) == "ok"


def test_nli_output_that_is_no_number_is_unknown(nli_folder):
    judge = NliJudge(nli_folder)
    judge._model.classifier.weight.data.fill_(math.nan)
    assert verdict(judge, over("Paris is big", "Rome is old")) == "unknown"


@pytest.mark.parametrize("labels", [{0: "entailment", 1: "not_entailment"}, {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}])
def test_nli_refuses_a_model_without_the_labels(tmp_path, labels):
    with pytest.raises(UsageError, match="contradiction"):
        NliJudge(make_nli(tmp_path, labels))


def test_nli_refuses_what_is_no_model(tmp_path):
    with pytest.raises(ToolrollError, match="no model folder"):
        NliJudge(tmp_path)


# --- verdicts that stand somewhere


def test_given():
    cases = [over("o", "a", given=given) for given in ("ok", "over", "unknown", None, "nonsense", "under")]
    assert [f.verdict for f in ask(GivenJudge(), cases)] == ["ok", "over", *["unknown"] * 4]


def test_saved_verdicts_replay(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    cases = [over("Paris", "It is Paris", "capital"), under("Rome is old", "It is"), under("Rome is new", "Is it?")]
    with (
        VerdictFile(path) as record,
        Panel({"over": LexicalJudge(), "under": EvidenceJudge(Shelf("Rome is old"))}, record=record) as panel,
    ):
        first = panel.judge(cases)
    again = ask(ReplayJudge(path), cases)
    assert [finding.verdict for finding in first] == ["over", "ok", "under"]
    assert [finding.verdict for finding in again] == ["over", "ok", "under"]
    lines = path.read_text().splitlines()
    edited = json.loads(lines[1]) | {"verdict": "under", "why": "a person says so"}
    with path.open("a") as file:
        file.write(json.dumps(edited) + "\n")
    assert ask(ReplayJudge(path), cases)[1] == Finding("under", "a person says so")
    assert verdict(ReplayJudge(path), under("never seen")) == "unknown"


def test_replay_can_judge_what_lacks_a_closed_book_answer(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    path.write_bytes(orjson.dumps({"role": "over", "conclusion": "Paris", "other": "", "verdict": "over"}))
    with Panel({"over": ReplayJudge(path)}) as panel:
        assert panel.judge([over("Paris", None)])[0] == Finding("over", "replay: recorded")


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '"x"',
        '{"role":"over"}',
        '{"role":"x","conclusion":"","other":"","verdict":"ok"}',
        '{"role":"over","conclusion":"","other":"","verdict":"under"}',
    ],
)
def test_replay_refuses_a_bad_line(tmp_path, line):
    path = tmp_path / "v.jsonl"
    path.write_text("\n" + line + "\n")
    with pytest.raises(ToolrollError, match=r"v\.jsonl:2: "):
        ReplayJudge(path)
    with pytest.raises(ToolrollError, match="No such file"):
        ReplayJudge(tmp_path / "none.jsonl")


def test_text_key_keeps_its_parts_apart():
    keys = {text_key("over", "ab", "c"), text_key("over", "a", "bc"), text_key("under", "ab", "c")}
    assert len(keys) == 3
    assert text_key("over", "\ud800", "")


# --- failing closed


@pytest.mark.parametrize(
    "error", [RowError("no"), ToolrollError("no"), ValueError("no"), KeyError("no"), TimeoutError(), RuntimeError("no")]
)
def test_a_failing_judge_is_unknown(error):
    findings = ask(Broken(raising(error)), [over("o", "a"), under("o")])
    assert [finding.verdict for finding in findings] == ["unknown"] * 2
    assert not any(finding.lasting for finding in findings)


@pytest.mark.parametrize("error", [UsageError("wrong"), Stopped("enough"), KeyboardInterrupt()])
def test_what_ends_the_run(error):
    with pytest.raises(type(error)):
        ask(Broken(raising(error)), [over("o", "a")])


def test_a_judge_that_answers_too_little_is_unknown():
    judge = Broken(None)
    judge.judge = lambda cases: []
    assert [finding.verdict for finding in ask(judge, [over("o", "a"), under("o")])] == ["unknown"] * 2


def test_a_verdict_of_the_other_kind_is_unknown():
    assert verdict(Broken(lambda case: Finding("under", "x")), over("o", "a")) == "unknown"
    assert verdict(Broken(lambda case: Finding("over", "x")), under("o")) == "unknown"


def test_one_bad_case_leaves_the_others():
    def say(case):
        if case.conclusion == "bad":
            raise ValueError("bad")
        return Finding("ok", "fine")

    findings = ask(Broken(say), [over("a", "x"), over("bad", "x"), over("c", "x")])
    assert [finding.verdict for finding in findings] == ["ok", "unknown", "ok"]


def test_missing_material_is_unknown_and_never_asked():
    judge = Broken(lambda case: Finding("ok", "x"))
    with Panel({"over": judge, "under": judge}) as panel:
        findings = panel.judge([over("Paris", None), over(" ", "Paris"), under("")])
    assert [finding.verdict for finding in findings] == ["unknown"] * 3
    assert "rag-rollout --closed-book" in findings[0].why
    assert "no conclusion" in findings[1].why
    assert judge.asked == []


def test_a_role_without_a_judge_is_unknown():
    with Panel({"over": LexicalJudge()}) as panel:
        assert panel.judge([under("x")])[0].verdict == "unknown"
        assert panel.judge([]) == []


# --- cache


def test_verdicts_are_kept_and_unknown_ones_are_not(tmp_path):
    cases = [over("a", "x"), over("b", "x"), over("a", "x")]
    judge = Broken(lambda case: Finding("over" if case.conclusion == "a" else "unknown", "said"))
    with Cache(tmp_path / "c.db") as cache:
        first = Panel({"over": judge}, cache=cache).judge(cases)
        assert judge.asked == [2]  # the third case is the first again
        again = Panel({"over": judge}, cache=cache).judge(cases)
        assert judge.asked == [2, 1]
        judge.identity = "broken with other weights"
        Panel({"over": judge}, cache=cache).judge(cases)
        assert judge.asked == [2, 1, 2]
    assert first == again
    assert [finding.verdict for finding in first] == ["over", "unknown", "over"]


# --- re-answers


def test_reanswers_are_asked_once_and_kept(tmp_path):
    engine = ScriptedEngine(lambda text: f" said to {text.splitlines()[-2]}\n")
    engine.weights_id = "w1"
    with Cache(tmp_path / "c.db") as cache:
        ask_again = Reanswerer(engine, Sampling(max_tokens=50, seed=3), cache).answers
        assert ask_again(["one", " one ", "two"]) == {"one": "said to one", "two": "said to two"}
        assert len(engine.requests) == 2
        seeds = {request.sampling.seed for _, _, request in engine.requests}
        assert len(seeds) == 2
        ask_again(["two", "one"])
        assert len(engine.requests) == 2
        Reanswerer(engine, Sampling(max_tokens=50, seed=4), cache).answers(["one"])
        engine.weights_id = "w2"
        ask_again(["one"])
        assert len(engine.requests) == 4
    assert engine_identity(engine) == "scripted@w2"
    assert "one" in closed_book_messages("one")[0]["content"]


def test_reanswer_that_fails_is_unknown():
    engine = ScriptedEngine(lambda text: RowError("busy") if "bad" in text else "Paris")
    with Panel({"over": LexicalJudge()}, reanswerer=Reanswerer(engine, Sampling())) as panel:
        cases = [over("Paris", "Rome", "good"), over("Paris", "Paris", "bad"), over("Paris", "Paris", "")]
        findings = panel.judge(cases)
    assert [finding.verdict for finding in findings] == ["over", "unknown", "over"]
    assert "busy" in findings[1].why


@pytest.mark.parametrize("error", [ToolrollError("gone"), ValueError("garbled")])
def test_reanswerer_that_raises_is_unknown(error):
    engine = ScriptedEngine([])
    engine.chat = lambda requests: raising(error)(None)
    with Panel({"over": LexicalJudge()}, reanswerer=Reanswerer(engine, Sampling())) as panel:
        findings = panel.judge([over("Paris", "Paris", "a"), over("Paris", "Paris", "b")])
    assert [finding.verdict for finding in findings] == ["unknown"] * 2


# --- choosing


def test_every_judge_has_its_roles():
    for spec, roles in JUDGES.items():
        for role in ("over", "under"):
            if role in roles:
                assert choose_judges(spec, [role]) == {role: spec}
            else:
                with pytest.raises(UsageError, match=f"cannot judge {role}-search; .*openai"):
                    choose_judges(spec, [role])
    assert choose_judges("lexical , lm", ["over", "under"]) == {"over": "lexical", "under": "lm"}
    for wrong in ("", "nobody", "lm,lm,lm", "evidence,lexical"):
        with pytest.raises(UsageError):
            choose_judges(wrong, ["over", "under"])


@pytest.mark.parametrize(
    ("spec", "settings", "why"),
    [
        ("replay", {}, "--replay"),
        ("nli", {}, "--nli-model"),
        ("openai", {}, "--base-url"),
        ("lexical,given", {"reanswer": True}, "--policy"),
    ],
)
def test_judges_say_what_they_lack(spec, settings, why):
    with pytest.raises(UsageError, match=why):
        open_judges(spec, ["over", "under"], JudgeSettings(ModelOptions("embedded"), **settings))


def test_lm_refuses_a_server():
    with pytest.raises(UsageError, match="use openai"):
        open_judges("lm", ["over"], JudgeSettings(ModelOptions("m", base_url="http://127.0.0.1:9")))


def test_evidence_without_a_retriever_warns_and_is_unknown():
    heard = []
    with open_judges("evidence", ["under"], JudgeSettings(ModelOptions("m"), warn=heard.append)) as panel:
        assert panel.judge([under("Paris is big")])[0].verdict == "unknown"
    assert "--retriever" in heard[0]


def test_given_alone_needs_no_panel():
    assert open_judges("given", ["over", "under"], JudgeSettings(ModelOptions("m"))) is None


# --- confidence


def test_query_logprobs_are_those_of_the_query_of_each_turn():
    pieces = [b"<search>", b" wh", b"o ", b"</", b"search>", b"ctx", None, "é".encode()[:1], "é".encode()[1:]]
    ids = [0, 1, 2, 3, 4, 5, 0, 7, 8, 3, 4, 6]
    row = {
        "response_ids": ids,
        "loss_mask": [1] * 5 + [0] + [1] * 6,
        "logprobs": [-0.1 * i for i in range(len(ids))],
    }
    assert query_logprobs(row, pieces) == [[-0.1, -0.2], [pytest.approx(-0.7), -0.8]]
    assert query_logprobs(row | {"loss_mask": [0] * 12}, pieces) == []


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"response_ids": [0], "loss_mask": [1], "logprobs": None},
        {"response_ids": [0], "loss_mask": [1], "logprobs": []},
        {"response_ids": [9], "loss_mask": [1], "logprobs": [-1.0]},
    ],
)
def test_query_logprobs_refuses_a_row_without_them(row):
    with pytest.raises(RowError):
        query_logprobs(row, [b"x"])
