"""Every record that commands exchange, and every field, described once.

From here come the check at run time, `CMD --schema` and toolroll-records(5). A command declares the
fields it reads with `view(Record, "field", ...)`; other fields of a row are never looked at. A name
means the same in all records. Units stand in the name (`_s`, `_ms`, `_tokens`, `_bytes`).
"""

import typing
from functools import cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta


def _is(description: str, **limits: Any) -> Any:
    return Meta(description=description, **limits)


Id = Annotated[str | int, _is("Names the record; stays the same through all commands.")]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[float, Meta(ge=0)]
Safe = Annotated[float, Meta(ge=-1e100, le=1e100)]  # sums and squares of it are finite
Arm = Annotated[str, Meta(min_length=1)]


class Record(msgspec.Struct, kw_only=True, frozen=True, gc=False, omit_defaults=True):
    """A kind of row, or a part of one."""


class Passage(Record, kw_only=True, frozen=True):
    """A passage of a corpus, the input of rag-index. It has `contents`, the title in the first line, or `title` and
    `text`.
    """

    id: Annotated[Id | None, _is("Names the passage; a digest of its text where it is missing.")] = None
    contents: Annotated[str | None, _is('"Title"\\ntext, as in Search-R1 and FlashRAG corpora.')] = None
    title: Annotated[str | None, _is("The passage's title.")] = None
    text: Annotated[str | None, _is("The passage.")] = None


class Question(Record, kw_only=True, frozen=True):
    """A question to answer, the input of rag-rollout."""

    id: Id
    question: Annotated[str, _is("The question in natural language.", min_length=1)]
    golden_answers: Annotated[list[str] | None, _is("Accepted answers.")] = None
    answer: Annotated[
        str | list[str] | None,
        _is("Before step-parse: another name for `golden_answers`. After it: the answer the model gave, or null."),
    ] = None
    answers: Annotated[list[str] | None, _is("Another name for `golden_answers`.")] = None
    reward_model: Annotated[
        dict[str, Any] | None, _is("Search-R1's and verl's place for the accepted answers: ground_truth.target.")
    ] = None
    data_source: Annotated[str | None, _is("The data set the question is from.")] = None
    draw: Annotated[Count | None, _is("Number of the draw since the state began, from 0. No number comes twice.")] = (
        None
    )


class Message(Record, kw_only=True, frozen=True):
    """A part of a conversation."""

    role: Annotated[str, _is("Who speaks: system, user, assistant.", min_length=1)]
    content: Annotated[str, _is("What is said.")]


class Prompt(Record, kw_only=True, frozen=True):
    """Something to ask a model, the input of text-rollout. It has `prompt`, `messages`, or the fields of a template."""

    id: Id
    prompt: Annotated[str | list[Message] | None, _is("What the model is asked: text, or messages.")] = None
    messages: Annotated[list[Message] | None, _is("The conversation that the model is to continue.")] = None
    draw: Annotated[Count | None, _is("Number of the draw since the state began, from 0. No number comes twice.")] = (
        None
    )


class Hit(Record, kw_only=True, frozen=True):
    """A passage that a search found."""

    id: Annotated[str, _is("The passage's id in its corpus.")]
    title: Annotated[str, _is("Its title.")]
    text: Annotated[str, _is("Its text, as the corpus has it.")]
    score: Annotated[float | None, _is("The retriever's score; higher is better. null when it gives none.")] = None


class ClosedBook(Record, kw_only=True, frozen=True):
    """What the policy says to a search query without searching: the material of the over-search test."""

    text: Annotated[str, _is("The answer.")]
    model: Annotated[str, _is("The engine and weights that gave it; the test is valid for these weights only.")]


class Turn(Record, kw_only=True, frozen=True):
    """One search of a rollout."""

    query: Annotated[str, _is("What was searched for.")]
    hits: Annotated[list[Hit], _is("What was found, best first.")]
    n_gen_tokens: Annotated[Count, _is("Tokens the model wrote in this turn, up to the end of the query.")] = 0
    n_context_tokens: Annotated[Count, _is("Tokens injected after it.")] = 0
    truncated: Annotated[bool, _is("Whether passages were cut to the token budget.")] = False
    neutralised: Annotated[int, _is("Tags inside passages that were made harmless.")] = 0
    cached: Annotated[bool | None, _is("Whether the search came from the cache (rag-rollout --timings).")] = None
    ms: Annotated[float | None, _is("How long the search took, in milliseconds (rag-rollout --timings).")] = None
    closed_book: Annotated[
        ClosedBook | None, _is("The policy's answer to the query alone (rag-rollout --closed-book).")
    ] = None


Finish = Literal["answer", "turn_limit", "token_limit", "eos", "stop", "error"]


class Trajectory(Question, kw_only=True, frozen=True):
    """One sampled answer to a question, with its searches: what rag-rollout writes."""

    sample: Annotated[Count, _is("Index of the sample, from 0. `id` and `sample` together name a trajectory.")] = 0
    prompt_id: Annotated[Id | None, _is("The group the samples of one prompt form.")] = None
    prompt: Annotated[str, _is("What the model was given, as text.")] = ""
    response: Annotated[str, _is("All that follows the prompt: the model's text and what was injected into it.")]
    turns: Annotated[list[Turn], _is("The searches, in order.")] = []
    n_search: Annotated[Count, _is("How many searches were run.")] = 0
    finish: Annotated[
        Finish | None,
        _is(
            "Why the trajectory ended. eos: the model ended its text; stop: it wrote a string it was to stop at; "
            "answer: it answered; token_limit, turn_limit: it was cut off; error: it could not go on."
        ),
    ] = None
    invalid_actions: Annotated[Count, _is("Turns with neither a search nor an answer.")] = 0
    model: Annotated[str | None, _is("Engine and model.")] = None
    policy_version: Annotated[str | None, _is("The version in the policy directory that wrote this.")] = None
    dialect: Annotated[str | None, _is("The tags in use: hiprag, search-r1, r1-searcher.")] = None
    constrained: Annotated[bool, _is("Whether the grammar of --constrain shaped the text.")] = False
    forced_tokens: Annotated[Count, _is("Tokens the grammar left no choice about.")] = 0
    seed: Annotated[int, _is("This trajectory's own seed.")] = 0
    prompt_ids: Annotated[list[int] | None, _is("Token ids of the prompt.")] = None
    response_ids: Annotated[
        list[int] | None, _is("Token ids of the response, as sampled and injected, never re-tokenized.")
    ] = None
    loss_mask: Annotated[list[int] | None, _is("For each response token: 1 = written by the model, 0 = injected.")] = (
        None
    )
    logprobs: Annotated[
        list[float] | None,
        _is(
            "For each response token: log-probability in nats under the policy at the sampling temperature; "
            "0 where injected."
        ),
    ] = None


Verdict = Literal["ok", "over", "under", "unknown"]


class Step(Record, kw_only=True, frozen=True):
    """One step of a trajectory."""

    kind: Annotated[Literal["search", "nonsearch"], _is("Whether the step searches.")]
    i: Annotated[Count, _is("Index of the step, from 0.")] = 0
    reasoning: Annotated[str | None, _is("Its analysis.")] = None
    query: Annotated[str | None, _is("Its query; null in a step without search.")] = None
    context: Annotated[str | None, _is("The passages it was given; null in a step without search.")] = None
    conclusion: Annotated[str | None, _is("Its conclusion.")] = None
    span: Annotated[list[int] | None, _is("[start, end) of the step in `response`, in characters.")] = None
    problems: Annotated[list[str], _is("Codes of what is wrong with it.")] = []
    verdict: Annotated[
        Verdict | None,
        _is("ok: optimal; over: a search that was not needed; under: a claim that does not hold; unknown."),
    ] = None
    verdict_why: Annotated[str | None, _is("What the judge based its verdict on.")] = None


class FormatProblem(Record, kw_only=True, frozen=True):
    """Something that makes a trajectory malformed."""

    code: Annotated[str, _is("What it is; step-parse(1) lists the codes.")]
    span: Annotated[list[int], _is("[start, end) in `response`, in characters.")]
    step: Annotated[int | None, _is("Index of the step it is in, or null.")] = None


class Parsed(Trajectory, kw_only=True, frozen=True):
    """A trajectory taken apart into steps: what step-parse writes."""

    steps: Annotated[list[Step], _is("All steps that could be parsed.")]
    format_valid: Annotated[bool | None, _is("Whether the trajectory is well formed under `format_strictness`.")] = None
    format_strictness: Annotated[
        str | None, _is("The checker that decided: paper, release, regex, eval, paper-literal.")
    ] = None
    format_problems: Annotated[list[FormatProblem], _is("All problems found.")] = []


class RewardParts(Record, kw_only=True, frozen=True):
    """What a reward is the sum of."""

    outcome: Annotated[float, _is("Paid for a correct answer.")]
    format: Annotated[float, _is("Paid for a well-formed trajectory.")]
    process: Annotated[float, _is("Paid for the share of optimal steps.")]


class Reward(Record, kw_only=True, frozen=True):
    """The reward of a trajectory."""

    total: Annotated[float, _is("The reward.")]
    parts: Annotated[RewardParts, _is("Its parts; they add up to `total`.")]
    A: Annotated[int, _is("1 if the answer is correct, else 0.", ge=0, le=1)]
    F: Annotated[int, _is("1 if the trajectory is well formed, else 0.", ge=0, le=1)]
    n_steps: Annotated[Count, _is("Steps.")]
    n_ok: Annotated[Count, _is("Steps judged optimal.")]
    n_over: Annotated[Count, _is("Searches judged not needed.")]
    n_under: Annotated[Count, _is("Steps without search judged wrong.")]
    n_unknown: Annotated[Count, _is("Steps no judge could decide.")]
    scheme: Annotated[str, _is("The reward: hiprag, search-r1, beta-grpo, r1-searcher-f1.")]
    judge: Annotated[str, _is("Who judged the steps.")]


class Scored(Parsed, kw_only=True, frozen=True):
    """A parsed trajectory with its reward: what step-reward writes."""

    reward: Annotated[Reward, _is("The reward and its parts.")]


class Draw(Record, kw_only=True, frozen=True):
    """A task that ucb-sample drew: the row of the pool with these fields, or these alone."""

    draw: Annotated[Count, _is("Number of the draw since the state began, from 0. No number comes twice.")]
    distribution: Annotated[Arm, _is("The distribution (the arm) a task belongs to.")]
    p: Annotated[float, _is("Probability of a distribution to be drawn.", ge=0, le=1)]
    state_seq: Annotated[Count, _is("Updates the state had seen: how old the probabilities are.")]


class Feedback(Record, kw_only=True, frozen=True):
    """What a trainer tells ucb-update: how much a distribution still moved the policy.

    One of `advantages`, `advantage`, `rewards` has to be there, or `reward` with `--from-rewards`; ucb-sample --follow
    takes the same rows, and requests. A row is named by `id`, `step`, `sample` and `draw`, as far as they are there:
    one whose name came before is not counted again.
    """

    id: Annotated[Id | None, _is("Names the record; stays the same through all commands.")] = None
    sample: Annotated[
        Count | None, _is("Index of the sample, from 0. `id` and `sample` together name a trajectory.")
    ] = None
    draw: Annotated[Count | None, _is("Number of the draw since the state began, from 0. No number comes twice.")] = (
        None
    )
    distribution: Annotated[Arm | None, _is("The distribution (the arm) a task belongs to.")] = None
    advantages: Annotated[list[Safe] | None, _is("Advantages of the samples of one prompt; signed or not.")] = None
    advantage: Annotated[Safe | None, _is("The row's advantage: how much better than its like it was.")] = None
    rewards: Annotated[list[Safe] | None, _is("Rewards of the samples of one prompt.")] = None
    reward: Annotated[
        dict[str, Any] | float | None, _is("The reward: a number, or an object whose `total` is the reward.")
    ] = None
    prompt_id: Annotated[Id | None, _is("The group the samples of one prompt form.")] = None
    step: Annotated[Count | None, _is("Number of the update of the policy, from 1.")] = None
    draws: Annotated[Count | None, _is("A request to ucb-sample --follow: draw so many tasks.")] = None


class ArmStats(Record, kw_only=True, frozen=True):
    """One distribution as the bandit sees it: what ucb-stats prints."""

    distribution: Annotated[Arm, _is("The distribution (the arm) a task belongs to.")]
    p: Annotated[float, _is("Probability of a distribution to be drawn.", ge=0, le=1)]
    ucb: Annotated[float, _is("Its score: mean absolute advantage plus the bonus for being seen seldom.")]
    mean_abs_advantage: Annotated[float, _is("Mean of the absolute advantages in its window; 0 when there are none.")]
    n: Annotated[Count, _is("How often it was seen, in the unit of `--count`.")]
    window: Annotated[Count, _is("Absolute advantages in its window.")]
    bonus: Annotated[float | None, _is("The part of `ucb` for being seen seldom (--explain).")] = None
    n_total: Annotated[Count | None, _is("How often all distributions were seen (--explain).")] = None
    why: Annotated[str | None, _is("Where `p` comes from, in words (--explain).")] = None


class ArmHistory(Record, kw_only=True, frozen=True):
    """One distribution after one batch of feedback: what ucb-stats --history prints."""

    state_seq: Annotated[Count, _is("Updates the state had seen: how old the probabilities are.")]
    step: Annotated[Count | None, _is("Number of the update of the policy, from 1.")] = None
    distribution: Annotated[Arm, _is("The distribution (the arm) a task belongs to.")]
    p: Annotated[float, _is("Probability of a distribution to be drawn.", ge=0, le=1)]
    ucb: Annotated[float, _is("Its score: mean absolute advantage plus the bonus for being seen seldom.")]
    mean_abs_advantage: Annotated[float, _is("Mean of the absolute advantages in its window; 0 when there are none.")]
    n: Annotated[Count, _is("How often it was seen, in the unit of `--count`.")]


class Learned(Record, kw_only=True, frozen=True):
    """What a run of ucb-update did."""

    n_counted: Annotated[Count, _is("Rows of feedback that were counted.")]
    n_advantages: Annotated[Count, _is("Advantages in them.")]
    n_known: Annotated[Count, _is("Rows that had been counted before, and were not counted again.")]
    n_left_out: Annotated[Count, _is("Rows of distributions that are no arm (--new-arms skip).")]
    state_seq: Annotated[Count, _is("Updates the state had seen: how old the probabilities are.")]


class Advantaged(Trajectory, kw_only=True, frozen=True):
    """A trajectory with its advantage: what group-advantage writes and policy-train reads."""

    response: Annotated[str, _is("All that follows the prompt: the model's text and what was injected into it.")] = ""
    reward: Annotated[
        dict[str, Any] | float | None, _is("The reward: a number, or an object whose `total` is the reward.")
    ] = None
    advantage: Annotated[float, _is("The row's advantage: how much better than its like it was.")]
    group_size: Annotated[Count | None, _is("Rows the advantage was made from.")] = None
    distribution: Annotated[Arm | None, _is("The distribution (the arm) a task belongs to.")] = None
    ref_logprobs: Annotated[
        list[float] | None, _is("For each response token: log-probability in nats under the reference policy.")
    ] = None


class TrainStep(Record, kw_only=True, frozen=True):
    """One update of a policy: what policy-train writes. Means are over the tokens the model wrote."""

    step: Annotated[Count, _is("Number of the update of the policy, from 1.")]
    version: Annotated[str, _is("The version in the policy directory that has this update.")]
    rows: Annotated[Count, _is("Trajectories it was made from.")]
    tokens: Annotated[Count, _is("Tokens of them that the model wrote.")]
    loss: Annotated[float, _is("What was minimised, mean over the steps of the optimizer.")]
    policy_loss: Annotated[float, _is("Its part that is the clipped policy gradient.")]
    kl: Annotated[float | None, _is("Divergence from the reference in nats; null without one.")] = None
    entropy: Annotated[float, _is("Entropy of the policy in nats.")]
    clip_frac: Annotated[float, _is("Share of tokens whose ratio was clipped.", ge=0, le=1)]
    ratio_mean: Annotated[float, _is("Ratio of new to old probability.")]
    approx_kl: Annotated[float, _is("Divergence from the old policy in nats, by k3.")]
    grad_norm: Annotated[Positive, _is("Norm of the gradient before clipping, mean over the steps.")]
    lr: Annotated[Positive, _is("The learning rate.")]
    mean_reward: Annotated[float | None, _is("Mean reward of trajectories.")] = None
    mean_abs_advantage: Annotated[float | None, _is("Mean of the absolute advantages; null with ppo.")] = None
    value_loss: Annotated[float | None, _is("Loss of the critic (ppo).")] = None
    value_mean: Annotated[float | None, _is("Mean value the critic gave before the update (ppo).")] = None
    stale: Annotated[Count, _is("Rows left out because their policy was too old.")] = 0
    long: Annotated[Count, _is("Rows left out because they were too long.")] = 0
    failed: Annotated[Count, _is("Rows that failed earlier or could not be used.")] = 0
    train_s: Annotated[float | None, _is("Seconds the update took (policy-train --timings).")] = None


class Pair(Record, kw_only=True, frozen=True):
    """Two answers to one prompt, of which one is better: what dpo-train reads, in TRL's form."""

    id: Annotated[Id | None, _is("Names the record; stays the same through all commands.")] = None
    prompt: Annotated[Any, _is("What the model is asked: text, or messages with role and content.")]
    chosen: Annotated[Any, _is("The better answer: text, or messages.")]
    rejected: Annotated[Any, _is("The worse answer: text, or messages.")]
    images: Annotated[list[str] | None, _is("Paths of the prompt's images, in order.")] = None
    weight: Annotated[Positive | None, _is("What the pair counts in the loss.")] = None
    ref_chosen_logps: Annotated[
        float | None, _is("Sum of the log-probabilities of `chosen` in nats under the reference policy.")
    ] = None
    ref_rejected_logps: Annotated[
        float | None, _is("Sum of the log-probabilities of `rejected` in nats under the reference policy.")
    ] = None
    chosen_tokens: Annotated[Count | None, _is("Tokens of `chosen`, its end included.")] = None
    rejected_tokens: Annotated[Count | None, _is("Tokens of `rejected`, its end included.")] = None


class DpoStep(Record, kw_only=True, frozen=True):
    """One update of a policy on pairs: what dpo-train writes. Means are over the pairs of the update."""

    step: Annotated[Count, _is("Number of the update of the policy, from 1.")]
    version: Annotated[str, _is("The version in the policy directory that has this update.")]
    epoch: Annotated[Count, _is("Number of the pass over the pairs, from 1.")]
    pairs: Annotated[Count, _is("Pairs it was made from.")]
    loss: Annotated[float, _is("What was minimised, mean over the steps of the optimizer.")]
    margin: Annotated[float, _is("Reward of the better answer minus that of the worse, before the update.")]
    accuracy: Annotated[float, _is("Share of pairs whose margin is above 0.", ge=0, le=1)]
    rewards_chosen: Annotated[float, _is("beta times the log-ratio of policy to reference of the better answers.")]
    rewards_rejected: Annotated[float, _is("beta times the log-ratio of policy to reference of the worse answers.")]
    grad_norm: Annotated[Positive, _is("Norm of the gradient before clipping, mean over the steps.")]
    lr: Annotated[Positive, _is("The learning rate.")]


class Puzzle(Record, kw_only=True, frozen=True):
    """A Knights and Knaves puzzle: what kk-make writes."""

    id: Id
    distribution: Annotated[Arm, _is("The distribution (the arm) a task belongs to.")]
    n_people: Annotated[Count, _is("People of the puzzle.")]
    quiz: Annotated[str, _is("The puzzle in words.")]
    names: Annotated[list[str], _is("Names of the people, in order.")]
    solution: Annotated[list[bool], _is("For each of the people, in order: true = knight, false = knave.")]
    answer: Annotated[str, _is("The solution in words, a line for each person.")]
    statements: Annotated[
        str, _is("What each of the people says, as a Python literal of nested tuples; kk-make(1) has the grammar.")
    ]
    split: Annotated[
        Literal["train", "test"],
        _is("The part it belongs to. Puzzles that differ by names and order only are in the same."),
    ]


class StoredPuzzle(Record, kw_only=True, frozen=True):
    """A Knights and Knaves puzzle as data sets have it: with names, solution and statements, or with `reward_model`."""

    id: Annotated[Id | None, _is("Names the record; stays the same through all commands.")] = None
    names: Annotated[list[str] | None, _is("Names of the people, in order.")] = None
    solution: Annotated[list[bool] | None, _is("For each of the people, in order: true = knight, false = knave.")] = (
        None
    )
    statements: Annotated[
        str | None,
        _is("What each of the people says, as a Python literal of nested tuples; kk-make(1) has the grammar."),
    ] = None
    reward_model: Annotated[
        dict[str, Any] | None,
        _is(
            "verl's place for the truth: `ground_truth` is an object, or its JSON text, with the solution in words, a "
            "line for each person, as `solution_text_format`, and with `statements`; or these words alone."
        ),
    ] = None
    n_solutions: Annotated[Count | None, _is("How many solutions it has (kk-check).")] = None


class PuzzleParts(Record, kw_only=True, frozen=True):
    """What the reward of an answer to a puzzle is the sum of."""

    outcome: Annotated[float, _is("Paid for a correct answer.", ge=-2, le=2)]
    format: Annotated[float, _is("Paid for a well-formed response.", ge=-1, le=1)]


class PuzzleReward(Record, kw_only=True, frozen=True):
    """The reward of an answer to a puzzle."""

    total: Annotated[float, _is("The reward.", ge=-3, le=3)]
    parts: Annotated[PuzzleParts, _is("Its parts; they add up to `total`.")]
    A: Annotated[int, _is("1 if each person is named once, and rightly, else 0.", ge=0, le=1)]
    F: Annotated[int, _is("1 if the response has the form of `--format`, else 0.", ge=0, le=1)]
    right_frac: Annotated[float, _is("Share of people named rightly.", ge=0, le=1)]
    said: Annotated[
        list[bool | None],
        _is("For each of the people, in order: true = called a knight, false = a knave, null = neither or both."),
    ]
    problem: Annotated[str | None, _is("What is wrong with the response; kk-reward(1) lists the codes.")]
    scheme: Annotated[str, _is("The reward: dump, people.")]


class AnsweredPuzzle(StoredPuzzle, kw_only=True, frozen=True):
    """An answer to a Knights and Knaves puzzle: what kk-reward reads and writes."""

    response: Annotated[str, _is("All that follows the prompt: the model's text and what was injected into it.")]
    reward: Annotated[PuzzleReward | None, _is("The reward and its parts.")] = None


class Hypothesis(Record, kw_only=True, frozen=True):
    """A hypothesis about a problem: what it says, and a function that does it."""

    text: Annotated[str | None, _is("The hypothesis in a sentence.")] = None
    code: Annotated[
        str | None, _is("Python source of one function from an input to an output; null where there is none.")
    ] = None
    reply: Annotated[str | None, _is("What the model said, if the hypothesis was read from that.")] = None


class HypothesisSet(Record, kw_only=True, frozen=True):
    """A problem and hypotheses about it, the input of gear-score. The problem may be in another file, under its id.

    A pair is an array [input, output], or an object with `input` and `output`, as raw task files have it.
    """

    id: Id
    dataset: Annotated[str | None, _is("The data set a problem is from; it chooses the sample space.")] = None
    n_obs: Annotated[Count | None, _is("Number of observations, where problems of one id differ in it.")] = None
    observations: Annotated[list[Any] | None, _is("What hypotheses are to explain: pairs of input and output.")] = None
    train: Annotated[list[Any] | None, _is("Another name for `observations`.")] = None
    test: Annotated[list[Any] | None, _is("Pairs that were held back; no score depends on them.")] = None
    hypotheses: Annotated[
        list[str | Hypothesis] | None, _is("Hypotheses in the order in which they were made; a string is a raw reply.")
    ] = None


class Lookup(Record, kw_only=True, frozen=True):
    """A place at which a program compares with the input of an observation."""

    line: Annotated[Count, _is("Line of the code, from 1.")]
    by: Annotated[str, _is("What compares: ==, !=, in, key, case.")]
    observation: Annotated[Count, _is("Number of the observation, from 0.")]


HypothesisStatus = Literal["consistent", "inconsistent", "lookup", "parse_error", "timeout", "killed"]


class HypothesisDetail(Record, kw_only=True, frozen=True):
    """What gear-score found about one hypothesis."""

    status: Annotated[HypothesisStatus, _is("How it did, as in the row's `status`.")]
    why: Annotated[str, _is("Why it is not consistent; empty if it is.")]
    failed: Annotated[list[Count], _is("Numbers of the observations it contradicts, from 0.")]
    undefined: Annotated[Count | None, _is("Inputs of the sample space at which it has no output; null if not run.")]
    timeouts: Annotated[Count, _is("Calls that were cut short.")]
    new: Annotated[Count, _is("Inputs of the sample space at which it predicts what no hypothesis before it did.")]
    bad: Annotated[list[str], _is("Its faults under the stop rule: parse_error, inconsistent, lookup, few_new.")]
    lookups: Annotated[list[Lookup] | None, _is("Where it looks observations up (--detect-lookup).")] = None
    same_as: Annotated[
        Count | None, _is("Number of the first valid hypothesis that does the same on the whole sample space.")
    ] = None


class DifferingInput(Record, kw_only=True, frozen=True):
    """An input at which two hypotheses differ."""

    input: Annotated[Any, _is("The input.")]
    outputs: Annotated[list[str | None], _is("The outputs of the two as JSON texts; null where undefined.")]


class Difference(Record, kw_only=True, frozen=True):
    """How two valid hypotheses differ."""

    pair: Annotated[list[Count], _is("Numbers of the two, from 0.")]
    n_differ: Annotated[Count, _is("Inputs of the sample space at which they differ.")]
    examples: Annotated[list[DifferingInput], _is("The first of these.")]


class Varied(Record, kw_only=True, frozen=True):
    """Scores under another choice."""

    vary: Annotated[str, _is("What is varied: max_bad, min_new, space_frac.")]
    value: Annotated[float, _is("Its value.")]
    draw: Annotated[Count | None, _is("Number of the subsample of the sample space, from 0.")] = None
    n: Annotated[Count, _is("Hypotheses that count.")]
    valid: Annotated[Count, _is("Those that run and agree with all observations.")]
    consistency: Annotated[float | None, _is("Share of valid ones among those that run.")]
    generalizability: Annotated[float | None, _is("Mean share of the sample space that valid ones are defined on.")]
    gamma_norm: Annotated[float | None, _is("Different predictions of valid ones over the size of the sample space.")]
    beta_struct: Annotated[float | None, _is("Mean Jaccard distance of the predictions of two valid ones.")]


class ScoredSet(HypothesisSet, kw_only=True, frozen=True):
    """A scored set of hypotheses: what gear-score writes. A score that is not defined is null."""

    status: Annotated[
        list[HypothesisStatus],
        _is(
            "For each hypothesis: consistent (valid), inconsistent, lookup (left out for looking observations up), "
            "parse_error, timeout, killed."
        ),
    ]
    space: Annotated[Count, _is("Inputs of the sample space.")]
    n: Annotated[Count, _is("Hypotheses that count.")]
    parse_errors: Annotated[Count, _is("Those that could not be read, or not be run to their end.")]
    valid: Annotated[Count, _is("Those that run and agree with all observations.")]
    distinct: Annotated[Count, _is("Valid ones of which no two do the same on the whole sample space.")]
    instruction_following: Annotated[float | None, _is("1 - parse_errors / n.")]
    consistency: Annotated[float | None, _is("valid / (n - parse_errors); 0 if none of them runs.")]
    generalizability: Annotated[float | None, _is("Mean share of the sample space that valid ones are defined on.")]
    gamma_q0: Annotated[float | None, _is("Different predictions, (input, output), of the valid ones together.")]
    gamma_q1: Annotated[float | None, _is("Hill number of order 1 of these predictions.")]
    gamma_q2: Annotated[float | None, _is("Hill number of order 2 of these predictions.")]
    gamma_norm: Annotated[float | None, _is("gamma_q0 / space.")]
    gamma_out_q0: Annotated[float | None, _is("Different outputs of the valid ones together.")]
    gamma_out_q1: Annotated[float | None, _is("Hill number of order 1 of these outputs.")]
    gamma_out_q2: Annotated[float | None, _is("Hill number of order 2 of these outputs.")]
    alpha_q0: Annotated[float | None, _is("Mean over valid ones: different outputs of one.")]
    alpha_q1: Annotated[float | None, _is("Mean over valid ones: Hill number of order 1 of the outputs of one.")]
    alpha_q2: Annotated[float | None, _is("Mean over valid ones: Hill number of order 2 of the outputs of one.")]
    beta_struct: Annotated[float | None, _is("Mean Jaccard distance of the predictions of two valid ones.")]
    beta_dist: Annotated[float | None, _is("Mean Bray-Curtis dissimilarity of the outputs of two valid ones.")]
    new_predictions: Annotated[
        list[Count], _is("For each hypothesis: inputs at which it predicts what none before it did, valid or not.")
    ]
    stop_after: Annotated[
        Count | None, _is("After how many hypotheses the stop rule ends the asking; null if it goes on.")
    ]
    details: Annotated[list[HypothesisDetail], _is("What was found about each hypothesis.")]
    transfer: Annotated[
        list[bool] | None,
        _is(
            "For k = 1, 2, ...: whether one of the first k hypotheses gets all of `test` right, a check against known "
            "answers that is no part of the scores (--top-k)."
        ),
    ] = None
    differences: Annotated[list[Difference] | None, _is("How valid hypotheses differ, in pairs (--explain).")] = None
    sensitivity: Annotated[list[Varied] | None, _is("The scores under other choices (--sensitivity).")] = None


class SetStats(Record, kw_only=True, frozen=True):
    """Means of scores over problems: what gear-stats prints. A mean of nothing is null.

    With `transfer`, also `transfer_top_1` and `n_transfer_top_1`, and so on: the share of problems whose test pairs one
    of the first k hypotheses gets right.
    """

    dataset: Annotated[str, _is("The data set, or `all`.")]
    n_problems: Annotated[Count, _is("Problems.")]
    instruction_following: Annotated[float | None, _is("Mean of `instruction_following`.")]
    n_instruction_following: Annotated[Count, _is("Problems it is over.")]
    consistency: Annotated[float | None, _is("Mean of `consistency`.")]
    n_consistency: Annotated[Count, _is("Problems it is over.")]
    generalizability: Annotated[float | None, _is("Mean of `generalizability`.")]
    n_generalizability: Annotated[Count, _is("Problems it is over.")]
    beta_struct: Annotated[float | None, _is("Mean of `beta_struct`.")]
    n_beta_struct: Annotated[Count, _is("Problems it is over.")]
    beta_dist: Annotated[float | None, _is("Mean of `beta_dist`.")]
    n_beta_dist: Annotated[Count, _is("Problems it is over.")]
    gamma_norm: Annotated[float | None, _is("Mean of `gamma_norm`.")]
    n_gamma_norm: Annotated[Count, _is("Problems it is over.")]


class AskedHypothesis(Hypothesis, kw_only=True, frozen=True):
    """A hypothesis that gear-ask heard, and what it found about it."""

    status: Annotated[
        Literal["consistent", "inconsistent", "lookup", "parse_error", "timeout", "killed"] | None,
        _is("How it did: consistent with the observations (valid), or what else."),
    ] = None
    why: Annotated[str, _is("Why it is not consistent; empty if it is.")] = ""
    new: Annotated[Count, _is("Inputs of the sample space at which it predicts what no hypothesis before it did.")] = 0
    bad: Annotated[list[str], _is("Its faults under the stop rule: parse_error, inconsistent, lookup, few_new.")] = []
    finish: Annotated[
        Literal["eos", "stop", "token_limit"] | None,
        _is("How the reply ended: by the model, at a string it was to stop at, or cut off."),
    ] = None
    span: Annotated[
        list[Count] | None,
        _is("Where the model's tokens of this reply begin and end in `response_ids`; null where those are."),
    ] = None


class AskedSet(HypothesisSet, kw_only=True, frozen=True):
    """A problem and the hypotheses one model gave in one conversation: what gear-ask writes.

    Hypotheses are AskedHypothesis records. All that policy-train needs is there, too.
    """

    draw: Annotated[Count | None, _is("Number of the draw since the state began, from 0. No number comes twice.")] = (
        None
    )
    sample: Annotated[
        Count | None, _is("Index of the sample, from 0. `id` and `sample` together name a trajectory.")
    ] = None
    prompt_id: Annotated[Id | None, _is("The group the samples of one prompt form.")] = None
    model: Annotated[str | None, _is("Engine and model.")] = None
    policy_version: Annotated[str | None, _is("The version in the policy directory that wrote this.")] = None
    seed: Annotated[int, _is("This trajectory's own seed.")] = 0
    stop: Annotated[
        Literal["bad", "cap", "token_limit", "error"] | None,
        _is(
            "Why the asking ended. bad: enough hypotheses were bad; cap: there were enough in all; token_limit: no "
            "room for another; error: it could not go on."
        ),
    ] = None
    followup: Annotated[
        Literal["full", "short", "super-short"] | None, _is("How further hypotheses were asked for.")
    ] = None
    parser: Annotated[Literal["robust", "authors"] | None, _is("How replies were read.")] = None
    prompt: Annotated[str, _is("What the model was given, as text.")] = ""
    response: Annotated[str, _is("All that follows the prompt: the model's text and what was injected into it.")] = ""
    prompt_ids: Annotated[list[int] | None, _is("Token ids of the prompt.")] = None
    response_ids: Annotated[
        list[int] | None, _is("Token ids of the response, as sampled and injected, never re-tokenized.")
    ] = None
    loss_mask: Annotated[list[int] | None, _is("For each response token: 1 = written by the model, 0 = injected.")] = (
        None
    )
    logprobs: Annotated[
        list[float] | None,
        _is(
            "For each response token: log-probability in nats under the policy at the sampling temperature; "
            "0 where injected."
        ),
    ] = None


class HypothesisPair(Pair, kw_only=True, frozen=True):
    """Two hypotheses about a problem, of which one is better: what gear-pairs writes, for dpo-train."""

    prompt_id: Annotated[Id | None, _is("The group the samples of one prompt form.")] = None
    dataset: Annotated[str | None, _is("The data set a problem is from; it chooses the sample space.")] = None
    n_obs: Annotated[Count | None, _is("Number of observations, where problems of one id differ in it.")] = None
    reason: Annotated[
        Literal["parsing", "cheating", "inconsistent", "fair"],
        _is(
            "Why one is better: the other cannot be run; looks observations up; contradicts one; or has the smaller "
            "sum of generalizability, novelty and diversity."
        ),
    ]
    context: Annotated[list[Count], _is("Numbers of the hypotheses the prompt has as earlier replies, from 0.")]
    pair: Annotated[list[Count], _is("Numbers of the two, from 0.")]
    scores: Annotated[list[float] | None, _is("With reason fair: the sums of the better and of the worse one.")] = None


class ProbeLoss(Record, kw_only=True, frozen=True):
    """The loss of one kind of pair, measured on pairs that are not trained on: what gear-momentum reads."""

    objective: Annotated[str, _is("The kind of pair, as in a pair's `reason`.", min_length=1)]
    loss: Annotated[Safe, _is("Its loss, a mean over pairs.")]
    step: Annotated[Count, _is("Number of the update of the policy, from 1; 0 before the first.")]


class MomentumStep(Record, kw_only=True, frozen=True):
    """How much of the next epoch each kind of pair gets: what gear-momentum writes."""

    step: Annotated[Count, _is("Number of the update of the policy, from 1; 0 before the first.")]
    losses: Annotated[dict[str, float], _is("For each objective: its loss at this step.")]
    ema: Annotated[dict[str, float], _is("For each objective: the moving average of its loss.")]
    momentum: Annotated[dict[str, Positive], _is("For each objective: how far the average fell, capped.")]
    ratios: Annotated[dict[str, Positive], _is("For each objective: its weight; 1 is an even share.")]
    weighted_loss: Annotated[float, _is("Sum of ratio times loss.")]
    quota: Annotated[dict[str, Count] | None, _is("For each objective: its pairs in an epoch (--epoch-pairs).")] = None


class StepStats(Record, kw_only=True, frozen=True):
    """Figures about many trajectories: what step-stats prints. A mean over nothing is null."""

    data_source: Annotated[str, _is("The data set, or `all`.")]
    n_rows: Annotated[Count, _is("Trajectories.")]
    n_questions: Annotated[Count, _is("Questions; samples of one stand next to each other.")]
    cem: Annotated[float | None, _is("Share of right answers: over the samples of a question, then over questions.")]
    n_scored: Annotated[Count, _is("Trajectories `cem` is made from.")]
    osr: Annotated[float | None, _is("Over-search rate: share of judged searches that were not needed.")]
    n_over: Annotated[Count, _is("Searches that were not needed.")]
    n_search_steps: Annotated[Count, _is("Judged search steps.")]
    usr: Annotated[float | None, _is("Under-search rate: share of judged steps without a search that do not hold.")]
    n_under: Annotated[Count, _is("Steps without a search that do not hold.")]
    n_nonsearch_steps: Annotated[Count, _is("Judged steps without a search.")]
    n_unknown: Annotated[Count, _is("Steps without a verdict.")]
    searches_per_question: Annotated[float | None, _is("Mean number of searches.")]
    valid_frac: Annotated[float | None, _is("Share of well-formed trajectories.")]
    n_valid: Annotated[Count, _is("Well-formed trajectories.")]
    mean_reward: Annotated[float | None, _is("Mean reward of trajectories.")]
    n_rewarded: Annotated[Count, _is("Trajectories with a reward.")]


@cache
def _hints(record: type[Record]) -> dict[str, Any]:
    return typing.get_type_hints(record, include_extras=True)


@cache
def view(record: type[Record], *names: str, required: tuple[str, ...] = ()) -> type[msgspec.Struct]:
    """The part of a record that a command reads: its fields `names`, of which `required` must be there.

    Types, limits and defaults are the record's.
    """
    fields = {field.name: field for field in msgspec.structs.fields(record)}
    hints = _hints(record)
    chosen: list[Any] = []
    for name in names:
        field = fields[name]
        if name in required or field.required:
            chosen.append((name, hints[name]))
        elif field.default_factory is not msgspec.NODEFAULT:
            chosen.append((name, hints[name], msgspec.field(default_factory=field.default_factory)))
        else:
            chosen.append((name, hints[name], field.default))
    return msgspec.defstruct(record.__name__, chosen, kw_only=True, frozen=True, gc=False)


def field_types(record: type[Record], *names: str) -> dict[str, Any]:
    """The types of a record's fields `names`, for a command that adds them."""
    hints = _hints(record)
    return {name: hints[name] for name in names}


def all_records() -> list[type[Record]]:
    """Every record, in the order of this file."""
    return [
        value
        for value in globals().values()
        if isinstance(value, type) and issubclass(value, Record) and value is not Record
    ]


@cache
def field_names() -> frozenset[str]:
    """The names of all fields of all records, plus `error`."""
    return frozenset({"error"}.union(*(record.__struct_fields__ for record in all_records())))


def schema_text(reads: type | None, adds: dict[str, Any]) -> str:
    """The JSON Schema of the rows a command reads; the fields it adds are under `x-adds`."""
    import orjson

    schema = msgspec.json.schema(reads) if reads is not None else {}
    schema["x-adds"] = {name: msgspec.json.schema(kind) for name, kind in adds.items()}
    return orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode()
