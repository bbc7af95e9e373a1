"""DUMP: draws and feedback of the bandit, puzzles."""

from typing import Annotated, Any, Literal

from toolroll.records.base import Arm, Count, Id, Record, Safe, said


class Draw(Record, kw_only=True, frozen=True):
    """A task that ucb-sample drew: the row of the pool with these fields, or these alone."""

    draw: Annotated[Count, said("Number of the draw since the state began, from 0. No number comes twice.")]
    distribution: Annotated[Arm, said("The distribution (the arm) a task belongs to.")]
    p: Annotated[float, said("Probability of a distribution to be drawn.", ge=0, le=1)]
    state_seq: Annotated[Count, said("Updates the state had seen: how old the probabilities are.")]


class Feedback(Record, kw_only=True, frozen=True):
    """What a trainer tells ucb-update: how much a distribution still moved the policy.

    One of `advantages`, `advantage`, `rewards` has to be there, or `reward` with `--from-rewards`; ucb-sample --follow
    takes the same rows, and requests. A row is named by `id`, `step`, `sample` and `draw`, as far as they are there:
    one whose name came before is not counted again.
    """

    id: Annotated[Id | None, said("Names the record; stays the same through all commands.")] = None
    sample: Annotated[
        Count | None, said("Index of the sample, from 0. `id` and `sample` together name a trajectory.")
    ] = None
    draw: Annotated[Count | None, said("Number of the draw since the state began, from 0. No number comes twice.")] = (
        None
    )
    distribution: Annotated[Arm | None, said("The distribution (the arm) a task belongs to.")] = None
    advantages: Annotated[list[Safe] | None, said("Advantages of the samples of one prompt; signed or not.")] = None
    advantage: Annotated[Safe | None, said("The row's advantage: how much better than its like it was.")] = None
    rewards: Annotated[list[Safe] | None, said("Rewards of the samples of one prompt.")] = None
    reward: Annotated[
        dict[str, Any] | float | None, said("The reward: a number, or an object whose `total` is the reward.")
    ] = None
    prompt_id: Annotated[Id | None, said("The group the samples of one prompt form.")] = None
    step: Annotated[Count | None, said("Number of the update of the policy, from 1.")] = None
    draws: Annotated[Count | None, said("A request to ucb-sample --follow: draw so many tasks.")] = None


class ArmStats(Record, kw_only=True, frozen=True):
    """One distribution as the bandit sees it: what ucb-stats prints."""

    distribution: Annotated[Arm, said("The distribution (the arm) a task belongs to.")]
    p: Annotated[float, said("Probability of a distribution to be drawn.", ge=0, le=1)]
    ucb: Annotated[float, said("Its score: mean absolute advantage plus the bonus for being seen seldom.")]
    mean_abs_advantage: Annotated[float, said("Mean of the absolute advantages in its window; 0 when there are none.")]
    n: Annotated[Count, said("How often it was seen, in the unit of `--count`.")]
    window: Annotated[Count, said("Absolute advantages in its window.")]
    bonus: Annotated[float | None, said("The part of `ucb` for being seen seldom (--explain).")] = None
    n_total: Annotated[Count | None, said("How often all distributions were seen (--explain).")] = None
    why: Annotated[str | None, said("Where `p` comes from, in words (--explain).")] = None


class ArmHistory(Record, kw_only=True, frozen=True):
    """One distribution after one batch of feedback: what ucb-stats --history prints."""

    state_seq: Annotated[Count, said("Updates the state had seen: how old the probabilities are.")]
    step: Annotated[Count | None, said("Number of the update of the policy, from 1.")] = None
    distribution: Annotated[Arm, said("The distribution (the arm) a task belongs to.")]
    p: Annotated[float, said("Probability of a distribution to be drawn.", ge=0, le=1)]
    ucb: Annotated[float, said("Its score: mean absolute advantage plus the bonus for being seen seldom.")]
    mean_abs_advantage: Annotated[float, said("Mean of the absolute advantages in its window; 0 when there are none.")]
    n: Annotated[Count, said("How often it was seen, in the unit of `--count`.")]


class Learned(Record, kw_only=True, frozen=True):
    """What a run of ucb-update did."""

    n_counted: Annotated[Count, said("Rows of feedback that were counted.")]
    n_advantages: Annotated[Count, said("Advantages in them.")]
    n_known: Annotated[Count, said("Rows that had been counted before, and were not counted again.")]
    n_left_out: Annotated[Count, said("Rows of distributions that are no arm (--new-arms skip).")]
    state_seq: Annotated[Count, said("Updates the state had seen: how old the probabilities are.")]


class Puzzle(Record, kw_only=True, frozen=True):
    """A Knights and Knaves puzzle: what kk-make writes."""

    id: Id
    distribution: Annotated[Arm, said("The distribution (the arm) a task belongs to.")]
    n_people: Annotated[Count, said("People of the puzzle.")]
    quiz: Annotated[str, said("The puzzle in words.")]
    names: Annotated[list[str], said("Names of the people, in order.")]
    solution: Annotated[list[bool], said("For each of the people, in order: true = knight, false = knave.")]
    answer: Annotated[str, said("The solution in words, a line for each person.")]
    statements: Annotated[
        str, said("What each of the people says, as a Python literal of nested tuples; kk-make(1) has the grammar.")
    ]
    split: Annotated[
        Literal["train", "test"],
        said("The part it belongs to. Puzzles that differ by names and order only are in the same."),
    ]


class StoredPuzzle(Record, kw_only=True, frozen=True):
    """A Knights and Knaves puzzle as data sets have it: with names, solution and statements, or with `reward_model`."""

    id: Annotated[Id | None, said("Names the record; stays the same through all commands.")] = None
    names: Annotated[list[str] | None, said("Names of the people, in order.")] = None
    solution: Annotated[list[bool] | None, said("For each of the people, in order: true = knight, false = knave.")] = (
        None
    )
    statements: Annotated[
        str | None,
        said("What each of the people says, as a Python literal of nested tuples; kk-make(1) has the grammar."),
    ] = None
    reward_model: Annotated[
        dict[str, Any] | None,
        said(
            "verl's place for the truth: `ground_truth` is an object, or its JSON text, with the solution in words, a "
            "line for each person, as `solution_text_format`, and with `statements`; or these words alone."
        ),
    ] = None
    n_solutions: Annotated[Count | None, said("How many solutions it has (kk-check).")] = None


class PuzzleParts(Record, kw_only=True, frozen=True):
    """What the reward of an answer to a puzzle is the sum of."""

    outcome: Annotated[float, said("Paid for a correct answer.", ge=-2, le=2)]
    format: Annotated[float, said("Paid for a well-formed response.", ge=-1, le=1)]


class PuzzleReward(Record, kw_only=True, frozen=True):
    """The reward of an answer to a puzzle."""

    total: Annotated[float, said("The reward.", ge=-3, le=3)]
    parts: Annotated[PuzzleParts, said("Its parts; they add up to `total`.")]
    A: Annotated[int, said("1 if each person is named once, and rightly, else 0.", ge=0, le=1)]
    F: Annotated[int, said("1 if the response has the form of `--answer-format`, else 0.", ge=0, le=1)]
    right_frac: Annotated[float, said("Share of people named rightly.", ge=0, le=1)]
    said: Annotated[
        list[bool | None],
        said("For each of the people, in order: true = called a knight, false = a knave, null = neither or both."),
    ]
    problem: Annotated[str | None, said("What is wrong with the response; kk-reward(1) lists the codes.")]
    scheme: Annotated[str, said("The reward: dump, people.")]


class AnsweredPuzzle(StoredPuzzle, kw_only=True, frozen=True):
    """An answer to a Knights and Knaves puzzle: what kk-reward reads and writes."""

    response: Annotated[str, said("All that follows the prompt: the model's text and what was injected into it.")]
    reward: Annotated[PuzzleReward | None, said("The reward and its parts.")] = None
