"""Answers and whether they are right."""

from typing import Annotated, Any, Literal

from toolroll.records.base import Count, Id, Record, said

Gold = str | int | float


class CheckedAnswer(Record, kw_only=True, frozen=True):
    """An answer of a model and the right one: what answer-check reads and writes. It has `text` or `response`."""

    id: Annotated[Id | None, said("Names the record; stays the same through all commands.")] = None
    sample: Annotated[
        Count | None, said("Index of the sample, from 0. `id` and `sample` together name a trajectory.")
    ] = None
    text: Annotated[str | None, said("The answer without special tokens.")] = None
    response: Annotated[
        str | None, said("All that follows the prompt: the model's text and what was injected into it.")
    ] = None
    golden_answers: Annotated[list[Gold] | Gold | None, said("Accepted answers.")] = None
    answers: Annotated[list[Gold] | Gold | None, said("Another name for `golden_answers`.")] = None
    reward_model: Annotated[
        dict[str, Any] | None, said("verl's place for the accepted answers: `ground_truth`, or its `target`.")
    ] = None
    answer: Annotated[list[Gold] | Gold | None, said("The right answer, or several that are accepted.")] = None
    options: Annotated[
        list[str] | dict[str, str] | None, said("Options of a multiple choice, A first, or by their letters.")
    ] = None
    choices: Annotated[list[str] | dict[str, str] | None, said("Another name for `options`.")] = None
    correct: Annotated[
        Literal[0, 1] | None, said("1 if the answer is right, else 0; null where there is nothing to compare with.")
    ] = None
    extracted: Annotated[
        str | None, said("What of the text was taken as the answer; null if nothing was. Cut off at 1,000 characters.")
    ] = None
    correct_why: Annotated[
        str | None, said("Why the answer is not right, where that is not plain, or why there is no verdict.")
    ] = None
