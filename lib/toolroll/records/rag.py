"""HiPRAG: passages, trajectories taken apart into steps, their rewards and figures."""

from typing import Annotated, Literal

from toolroll.records.base import Count, Id, Record, said
from toolroll.records.rollouts import Trajectory


class Passage(Record, kw_only=True, frozen=True):
    """A passage of a corpus, the input of rag-index. It has `contents`, the title in the first line, or `title` and
    `text`.
    """

    id: Annotated[Id | None, said("Names the passage; a digest of its text where it is missing.")] = None
    contents: Annotated[str | None, said('"Title"\\ntext, as in Search-R1 and FlashRAG corpora.')] = None
    title: Annotated[str | None, said("The passage's title.")] = None
    text: Annotated[str | None, said("The passage.")] = None


Verdict = Literal["ok", "over", "under", "unknown"]


class Step(Record, kw_only=True, frozen=True):
    """One step of a trajectory."""

    kind: Annotated[Literal["search", "nonsearch"], said("Whether the step searches.")]
    i: Annotated[Count, said("Index of the step, from 0.")] = 0
    reasoning: Annotated[str | None, said("Its analysis.")] = None
    query: Annotated[str | None, said("Its query; null in a step without search.")] = None
    context: Annotated[str | None, said("The passages it was given; null in a step without search.")] = None
    conclusion: Annotated[str | None, said("Its conclusion.")] = None
    span: Annotated[list[int] | None, said("[start, end) of the step in `response`, in characters.")] = None
    problems: Annotated[list[str], said("Codes of what is wrong with it.")] = []
    verdict: Annotated[
        Verdict | None,
        said("ok: optimal; over: a search that was not needed; under: a claim that does not hold; unknown."),
    ] = None
    verdict_why: Annotated[str | None, said("What the judge based its verdict on.")] = None


class FormatProblem(Record, kw_only=True, frozen=True):
    """Something that makes a trajectory malformed."""

    code: Annotated[str, said("What it is; step-parse(1) lists the codes.")]
    span: Annotated[list[int], said("[start, end) in `response`, in characters.")]
    step: Annotated[int | None, said("Index of the step it is in, or null.")] = None


class Parsed(Trajectory, kw_only=True, frozen=True):
    """A trajectory taken apart into steps: what step-parse writes."""

    steps: Annotated[list[Step], said("All steps that could be parsed.")]
    format_valid: Annotated[bool | None, said("Whether the trajectory is well formed under `format_strictness`.")] = (
        None
    )
    format_strictness: Annotated[
        str | None, said("The checker that decided: paper, release, regex, eval, paper-literal.")
    ] = None
    format_problems: Annotated[list[FormatProblem], said("All problems found.")] = []


class RewardParts(Record, kw_only=True, frozen=True):
    """What a reward is the sum of."""

    outcome: Annotated[float, said("Paid for a correct answer.")]
    format: Annotated[float, said("Paid for a well-formed trajectory.")]
    process: Annotated[float, said("Paid for the share of optimal steps.")]


class Reward(Record, kw_only=True, frozen=True):
    """The reward of a trajectory."""

    total: Annotated[float, said("The reward.")]
    parts: Annotated[RewardParts, said("Its parts; they add up to `total`.")]
    A: Annotated[int, said("1 if the answer is correct, else 0.", ge=0, le=1)]
    F: Annotated[int, said("1 if the trajectory is well formed, else 0.", ge=0, le=1)]
    n_steps: Annotated[Count, said("Steps.")]
    n_ok: Annotated[Count, said("Steps judged optimal.")]
    n_over: Annotated[Count, said("Searches judged not needed.")]
    n_under: Annotated[Count, said("Steps without search judged wrong.")]
    n_unknown: Annotated[Count, said("Steps no judge could decide.")]
    scheme: Annotated[str, said("The reward: hiprag, search-r1, beta-grpo, r1-searcher-f1.")]
    judge: Annotated[str, said("Who judged the steps.")]


class Scored(Parsed, kw_only=True, frozen=True):
    """A parsed trajectory with its reward: what step-reward writes."""

    reward: Annotated[Reward, said("The reward and its parts.")]


class StepStats(Record, kw_only=True, frozen=True):
    """Figures about many trajectories: what step-stats prints. A mean over nothing is null."""

    data_source: Annotated[str, said("The data set, or `all`.")]
    n_rows: Annotated[Count, said("Trajectories.")]
    n_questions: Annotated[Count, said("Questions; samples of one stand next to each other.")]
    cem: Annotated[float | None, said("Share of right answers: over the samples of a question, then over questions.")]
    n_scored: Annotated[Count, said("Trajectories `cem` is made from.")]
    osr: Annotated[float | None, said("Over-search rate: share of judged searches that were not needed.")]
    n_over: Annotated[Count, said("Searches that were not needed.")]
    n_search_steps: Annotated[Count, said("Judged search steps.")]
    usr: Annotated[float | None, said("Under-search rate: share of judged steps without a search that do not hold.")]
    n_under: Annotated[Count, said("Steps without a search that do not hold.")]
    n_nonsearch_steps: Annotated[Count, said("Judged steps without a search.")]
    n_unknown: Annotated[Count, said("Steps without a verdict.")]
    searches_per_question: Annotated[float | None, said("Mean number of searches.")]
    valid_frac: Annotated[float | None, said("Share of well-formed trajectories.")]
    n_valid: Annotated[Count, said("Well-formed trajectories.")]
    mean_reward: Annotated[float | None, said("Mean reward of trajectories.")]
    n_rewarded: Annotated[Count, said("Trajectories with a reward.")]
