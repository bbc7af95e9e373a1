"""What a model is asked, and what it answered."""

from typing import Annotated, Any, Literal

from toolroll.records.base import (
    Count,
    Id,
    Image,
    ImagePath,
    Images,
    Logprobs,
    LossMask,
    PromptIds,
    Record,
    ResponseIds,
    said,
)


class Question(Record, kw_only=True, frozen=True):
    """A question to answer, the input of rag-rollout."""

    id: Id
    question: Annotated[str, said("The question in natural language.", min_length=1)]
    golden_answers: Annotated[list[str] | None, said("Accepted answers.")] = None
    answer: Annotated[
        str | list[str] | None,
        said("Before step-parse: another name for `golden_answers`. After it: the answer the model gave, or null."),
    ] = None
    answers: Annotated[list[str] | None, said("Another name for `golden_answers`.")] = None
    reward_model: Annotated[
        dict[str, Any] | None, said("Search-R1's and verl's place for the accepted answers: ground_truth.target.")
    ] = None
    data_source: Annotated[str | None, said("The data set the question is from.")] = None
    draw: Annotated[Count | None, said("Number of the draw since the state began, from 0. No number comes twice.")] = (
        None
    )


class Message(Record, kw_only=True, frozen=True):
    """A part of a conversation."""

    role: Annotated[str, said("Who speaks: system, user, assistant.", min_length=1)]
    content: Annotated[str, said("What is said.")]


class Prompt(Record, kw_only=True, frozen=True):
    """Something to ask a model, the input of text-rollout. It has `prompt`, `messages`, or the fields of a template."""

    id: Id
    prompt: Annotated[str | list[Message] | None, said("What the model is asked: text, or messages.")] = None
    messages: Annotated[list[Message] | None, said("The conversation that the model is to continue.")] = None
    draw: Annotated[Count | None, said("Number of the draw since the state began, from 0. No number comes twice.")] = (
        None
    )


class PicturedMessage(Record, kw_only=True, frozen=True):
    """A part of a conversation that says where its images are, if it is a list."""

    role: Annotated[str, said("Who speaks: system, user, assistant.", min_length=1)]
    content: Annotated[
        str | list[dict[str, Any]],
        said('What is said: text, or a list of {"type": "text", "text": ...} and {"type": "image"}.'),
    ]


class ImagePrompt(Record, kw_only=True, frozen=True):
    """Something to ask a model about images, the input of image-rollout."""

    id: Id
    prompt: Annotated[str | list[PicturedMessage] | None, said("What the model is asked: text, or messages.")] = None
    messages: Annotated[list[PicturedMessage] | None, said("The conversation that the model is to continue.")] = None
    draw: Annotated[Count | None, said("Number of the draw since the state began, from 0. No number comes twice.")] = (
        None
    )
    images: Images = None
    image: Image = None
    image_path: ImagePath = None


class Hit(Record, kw_only=True, frozen=True):
    """A passage that a search found."""

    id: Annotated[str, said("The passage's id in its corpus.")]
    title: Annotated[str, said("Its title.")]
    text: Annotated[str, said("Its text, as the corpus has it.")]
    score: Annotated[float | None, said("The retriever's score; higher is better. null when it gives none.")] = None


class ClosedBook(Record, kw_only=True, frozen=True):
    """What the policy says to a search query without searching: the material of the over-search test."""

    text: Annotated[str, said("The answer.")]
    model: Annotated[str, said("The engine and weights that gave it; the test is valid for these weights only.")]


class Turn(Record, kw_only=True, frozen=True):
    """One search of a rollout."""

    query: Annotated[str, said("What was searched for.")]
    hits: Annotated[list[Hit], said("What was found, best first.")]
    n_gen_tokens: Annotated[Count, said("Tokens the model wrote in this turn, up to the end of the query.")] = 0
    n_context_tokens: Annotated[Count, said("Tokens injected after it.")] = 0
    truncated: Annotated[bool, said("Whether passages were cut to the token budget.")] = False
    neutralised: Annotated[int, said("Tags inside passages that were made harmless.")] = 0
    cached: Annotated[bool | None, said("Whether the search came from the cache (rag-rollout --timings).")] = None
    ms: Annotated[float | None, said("How long the search took, in milliseconds (rag-rollout --timings).")] = None
    closed_book: Annotated[
        ClosedBook | None, said("The policy's answer to the query alone (rag-rollout --closed-book).")
    ] = None


Finish = Literal["answer", "turn_limit", "token_limit", "eos", "stop", "error"]


class Trajectory(Question, kw_only=True, frozen=True):
    """One sampled answer to a question, with its searches: what rag-rollout writes."""

    sample: Annotated[Count, said("Index of the sample, from 0. `id` and `sample` together name a trajectory.")] = 0
    prompt_id: Annotated[Id | None, said("The group the samples of one prompt form.")] = None
    prompt: Annotated[str, said("What the model was given, as text.")] = ""
    response: Annotated[str, said("All that follows the prompt: the model's text and what was injected into it.")]
    turns: Annotated[list[Turn], said("The searches, in order.")] = []
    n_search: Annotated[Count, said("How many searches were run.")] = 0
    finish: Annotated[
        Finish | None,
        said(
            "Why the trajectory ended. eos: the model ended its text; stop: it wrote a string it was to stop at; "
            "answer: it answered; token_limit, turn_limit: it was cut off; error: it could not go on."
        ),
    ] = None
    invalid_actions: Annotated[Count, said("Turns with neither a search nor an answer.")] = 0
    model: Annotated[str | None, said("Engine and model.")] = None
    policy_version: Annotated[str | None, said("The version in the policy directory that wrote this.")] = None
    dialect: Annotated[str | None, said("The tags in use: hiprag, search-r1, r1-searcher.")] = None
    constrained: Annotated[bool, said("Whether the grammar of --constrain shaped the text.")] = False
    forced_tokens: Annotated[Count, said("Tokens the grammar left no choice about.")] = 0
    seed: Annotated[int, said("This trajectory's own seed.")] = 0
    prompt_ids: PromptIds = None
    response_ids: ResponseIds = None
    loss_mask: LossMask = None
    logprobs: Logprobs = None
