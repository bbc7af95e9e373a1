"""Games of who is the spy: their turns and votes, what these are worth, and which stage is trained next."""

from typing import Annotated, Any, Literal

from toolroll.records.base import Count, Id, Record, said
from toolroll.records.rollouts import Message

Stage = Literal["clue", "decision"]


class SpyVote(Record, kw_only=True, frozen=True):
    """A vote of a game: a player's, or one of the samples of a judge's."""

    voter: Annotated[int | Literal["judge"], said("Who votes: the number of a player, or judge.")]
    vote: Annotated[int | str | None, said("The number of a player, N/A, or null where the answer could not be read.")]
    format_ok: Annotated[
        bool, said("Whether the answer had reasons of more than 10 characters, and something in its box.")
    ] = True


class SpyTurn(Record, kw_only=True, frozen=True):
    """What one player was asked and said: a clue, or a vote."""

    stage: Annotated[Stage, said("The stage of the game: clue or decision.")]
    round: Annotated[Count | None, said("Clues: the round, from 1.")] = None
    player: Annotated[Count | None, said("Number of the player, from 1; null for a judge.")] = None
    role: Annotated[Literal["spy", "civilian", "judge"], said("What the player is.")]
    model: Annotated[str | None, said("Engine and model.")] = None
    policy_version: Annotated[str | None, said("The version in the policy directory that wrote this.")] = None
    seed: Annotated[int, said("This turn's own seed.")] = 0
    messages: Annotated[list[Message] | None, said("The conversation that the model is to continue.")] = None
    images: Annotated[list[str] | None, said("Paths of the prompt's images, in order.")] = None
    prompt: Annotated[str | None, said("What the model was given, as text; null where the back end keeps it.")] = None
    response: Annotated[str, said("All that the model wrote.")] = ""
    thinking: Annotated[str, said("The part of it that nobody else reads.")] = ""
    clue: Annotated[str | None, said("Clues: what the others read; null where there was no valid one.")] = None
    vote: Annotated[
        int | str | None, said("The number of a player, N/A, or null where the answer could not be read.")
    ] = None
    vote_number: Annotated[Count | None, said("Votes: the place of this one in `votes`, from 0.")] = None
    finish: Annotated[str | None, said("Why the text ended: eos, stop, token_limit.")] = None
    prompt_ids: Annotated[
        list[int] | None, said("Token ids of the prompt, its images' among them; null where they are not known.")
    ] = None
    response_ids: Annotated[list[int] | None, said("Token ids of the response, as sampled.")] = None
    loss_mask: Annotated[list[int] | None, said("For each response token: 1 = written by the model.")] = None
    logprobs: Annotated[
        list[float] | None,
        said("For each response token: log-probability in nats under the model at the sampling temperature."),
    ] = None


class SpyPair(Record, kw_only=True, frozen=True):
    """Two images to play with: a row of pair-make, of which the game needs only some fields."""

    id: Id
    kind: Annotated[str | None, said("What the images show: scenes, charts, photos.")] = None
    edit: Annotated[str | None, said("How they differ: the kind of edit; `same` and `blank` have none.")] = None
    original: Annotated[str | None, said("Path of the first image, that of the civilians.")] = None
    modified: Annotated[str | None, said("Path of the second image, that of the spy.")] = None
    original_scene: Annotated[dict[str, Any] | None, said("Scenes: what the first image shows, as CLEVR's JSON.")] = (
        None
    )
    modified_scene: Annotated[dict[str, Any] | None, said("Scenes: what the second image shows.")] = None
    original_table: Annotated[dict[str, Any] | None, said("Charts: the values that the first image shows.")] = None
    modified_table: Annotated[dict[str, Any] | None, said("Charts: the values that the second image shows.")] = None
    original_text: Annotated[str | None, said("The first image in words, for models that take no images.")] = None
    modified_text: Annotated[str | None, said("The second image in words.")] = None
    draw: Annotated[Count | None, said("Number of the draw since the state began, from 0. No number comes twice.")] = (
        None
    )


class SpyGame(Record, kw_only=True, frozen=True):
    """A game that was played: what spy-game writes, and spy-reward adds to."""

    id: Annotated[Id | None, said("Names the pair of images; `id` and `sample` together name a game.")] = None
    sample: Annotated[Count | None, said("Number of the game among those of the pair, from 0.")] = None
    prompt_id: Annotated[Id | None, said("The group the samples of one prompt form.")] = None
    spy_image: Annotated[
        Literal["modified", "blank", "same"] | None, said("What the spy saw: the second image, nothing, the first.")
    ] = None
    n_players: Annotated[Count | None, said("Players, the spy included.")] = None
    rounds: Annotated[Count | None, said("Rounds of clues.")] = None
    voters: Annotated[Literal["civilians", "judge", "all"] | None, said("Who voted.")] = None
    spy: Annotated[Count | None, said("Number of the player who is the spy, from 1.")] = None
    spy_model: Annotated[str | None, said("Engine and model of the spy.")] = None
    civ_model: Annotated[str | None, said("Engine and model of the civilians, and of a judge.")] = None
    policy_version: Annotated[str | None, said("The version in the policy directory that wrote this.")] = None
    seed: Annotated[int | None, said("This game's own seed.")] = None
    turns: Annotated[list[SpyTurn] | None, said("What was asked and said, in order.")] = None
    votes: Annotated[list[SpyVote] | None, said("The votes.")] = None
    tally: Annotated[list[Count] | None, said("How many votes each player got, 1 to n.")] = None
    n_na: Annotated[Count | None, said("Votes for nobody.")] = None
    n_invalid: Annotated[Count | None, said("Votes that could not be read or name no player.")] = None
    accused: Annotated[Count | None, said("The player with more votes than any other; null where there is none.")] = (
        None
    )
    winner: Annotated[Literal["spy", "civilians", "nobody"] | None, said("Who won.")] = None
    rewards: Annotated[
        dict[str, list[float]] | None,
        said("What the game was worth: `clue`, of each player, and `decision`, of each of `votes`."),
    ] = None
    advantages: Annotated[
        dict[str, list[float]] | None, said("How much better than its like each was, with the names of `rewards`.")
    ] = None
    baselines: Annotated[
        dict[str, float] | None, said("The running mean reward of each role that the clues were compared with.")
    ] = None


class SpyTurnRow(SpyTurn, kw_only=True, frozen=True):
    """A turn as a row of its own, with what rewards are made of: spy-game --turns, spy-reward --turns."""

    id: Annotated[Id | None, said("Names the turn.")] = None
    sample: Annotated[Count | None, said("Number of the game among those of the pair, from 0.")] = None
    prompt_id: Annotated[Id | None, said("Names the stage of the game; its turns are a group.")] = None
    game_id: Annotated[str | None, said("Names the game.")] = None
    game_seed: Annotated[int | None, said("The seed of the game.")] = None
    game_version: Annotated[str | None, said("The version of the policy that plays in the game.")] = None
    n_players: Annotated[Count | None, said("Players, the spy included.")] = None
    rounds: Annotated[Count | None, said("Rounds of clues.")] = None
    spy: Annotated[Count | None, said("Number of the player who is the spy, from 1.")] = None
    votes: Annotated[list[SpyVote] | None, said("All votes of the game.")] = None
    reward: Annotated[float | None, said("What the turn was worth.")] = None
    advantage: Annotated[float | None, said("The row's advantage: how much better than its like it was.")] = None
    group_size: Annotated[Count | None, said("Rows the advantage was made from.")] = None


class SpyStats(Record, kw_only=True, frozen=True):
    """Many games in numbers, and who played what: what spy-stats writes."""

    n_games: Annotated[Count, said("Games.")]
    spy_win_rate: Annotated[float | None, said("Share of games that the spy won.")] = None
    civilian_win_rate: Annotated[float | None, said("Share of games that the civilians won.")] = None
    accuracy: Annotated[float | None, said("Share of games in which the spy got more votes than any other.")] = None
    n_undecided: Annotated[Count, said("Games without a player who got more votes than any other.")] = 0
    n_votes: Annotated[Count, said("Votes of those who are not the spy.")] = 0
    vote_accuracy: Annotated[float | None, said("Share of votes that name the spy.")] = None
    na_share: Annotated[float | None, said("Share of votes for nobody.")] = None
    invalid_share: Annotated[float | None, said("Share of votes that could not be read or name no player.")] = None
    n_clues: Annotated[Count, said("Clues, in the games that have their turns.")] = 0
    no_clue_share: Annotated[float | None, said("Share of clues that were missing or empty.")] = None


class SpyIteration(Record, kw_only=True, frozen=True):
    """How one iteration of training went: what spy-switch reads."""

    step: Annotated[Count | None, said("Number of the iteration; null counts on.")] = None
    accuracy: Annotated[float, said("Share of games in which the spy got more votes than any other.", ge=0, le=1)]
    na_share: Annotated[float, said("Share of votes for nobody.", ge=0, le=1)]


class SpyStage(Record, kw_only=True, frozen=True):
    """Which stage to train next: what spy-switch writes."""

    step: Annotated[Count, said("Number of the iteration.")]
    stage: Annotated[Stage, said("The stage to train next: clue or decision.")]
    switched: Annotated[bool, said("Whether it is another than before.")]
    why: Annotated[
        Literal["accuracy", "error", "na", "patience", "cycle"] | None, said("What made it change; null if nothing.")
    ] = None
    accuracy_ema: Annotated[float, said("Moving average of the accuracy.")]
    na_ema: Annotated[float, said("Moving average of the share of N/A.")]
    dwell: Annotated[Count, said("Iterations in the stage so far.")]
