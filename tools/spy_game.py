"""spy-game: let models play who is the spy, about pairs of images.

Games: toolroll.spygame.game and play; what players are told: toolroll.spygame.prompts. Paper: arXiv:2509.25541.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import GroupedOption, command, declares, option_group, uses_images, uses_model, uses_policy, uses_seed
from toolroll.models.options import ModelOptions, PolicyOptions, SamplingOptions, sampling_options
from toolroll.models.single_options import length_option
from toolroll.records import field_types, view
from toolroll.records.spygame import SpyGame, SpyPair

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.run.log import Log
    from toolroll.run.manifest import Manifest
    from toolroll.run.rows import Rows
    from toolroll.run.signals import StopFlag

EXAMPLES = """
  Without a model, to see how it goes:
    pair-make scenes -n 2 --size 96x72 --out images -o pairs.jsonl
    spy-game --model rules --spy-image modified pairs.jsonl | spy-stats --table
  A short game of the embedded image-text model on all seats:
    head -n 1 pairs.jsonl | spy-game --civilians 2 --rounds 1 --voters all --response-tokens 12 -o games.jsonl
  The game of the paper's code; a policy in training is the spy, the model it began as the others:
    spy-game --preset code --wording short --policy POLICY --civ-model sprite PAIRS.jsonl > against.jsonl
  Rows to train on:
    spy-game --model rules --turns pairs.jsonl | spy-reward --advantages > train.jsonl
"""

NOTES = """
A row of the input is a pair of images, as pair-make writes it: paths `original` and `modified`, of which the spy sees
the second. Each game has one spy, drawn by the game's seed. Players 1 to n tell a clue each, round by round, in this
order; then all vote at once. A player is told whether it is the spy; it sees its image, the clues of all, and what
itself thought in earlier turns, never what others thought. Voters see clues alone, and the first image.

  --preset            paper       code
  --spy-image         blank       modified
  --civilians         4           3
  --rounds            2           2
  --voters            civilians   judge
  --votes-per-judge   8           8

An earlier version of the paper has the modified image for the spy; its tables have 4 civilians and, in its ablations,
3. --voters all lets the spy vote, too. A judge is the model of the civilians. --spy-image same is an edit that failed:
all see one image. A pair whose edit was `blank` is played as with --spy-image blank, for which a white image of the
same size is put beside the first one, or into --blanks.

All prompts are in our words; which the authors have for charts and photos, they do not say. --wording short says
little, for small models. What a template of your own, --clue-prompt and --vote-prompt, may name: {player}, {players},
{round}, {rounds}, {role} (spy, civilian, judge), {role_text}, {difference} (how the odd picture differs), {said} (the
clues so far), {examples}. Write {{ and }} for braces: \\boxed{{}}.

--parse strict reads the last \\boxed{...} with balanced braces, or else the last <answer>...</answer>; of a response
with </think> only what comes behind that. A clue becomes one line of at most 500 characters; in a vote there may be one
number, of a player, or N/A, none, unsure or abstain. compat reads what the authors' code reads, in thoughts, too: the
first \\boxed{ up to the first brace that closes, then one digit from 1 to 9, whoever that is, or N/A; so with it nobody
votes for player 10. A turn without a valid clue stands as "(no clue)".

Players are models behind any --backend. One that takes no images is told in words what is in a scene or a chart, or
what `original_text` and `modified_text` say; --sight words does that with any model, and servers, which do not say what
they take, get images. `rules` in place of a model's name is a player that reads the scene itself: it names an object of
its own, or as a spy repeats another's clue (--spy-copy), and votes for who named most that is not in its scene.

A game in which a player fails, such as by a missing image, is an error row that keeps the turns so far; others go on.

A game has an id (the pair's), a sample and a seed, which are all that a game depends on besides the models, so order,
batches and shards change nothing but the last bits of log-probabilities, which move with the games beside it. A run
that is resumed plays those games anew that were in hand, --at-once of them as before, so that of the same files the
output has the same bytes. One that is asked to stop plays the games in hand to their end; a smaller --at-once makes
that shorter. `winner` is who won: the civilians where the spy has more votes than any
other, the spy where another has, and --undecided where several have most or nobody any, which the paper leaves open.

The authors draw at temperature 0.8, clues of 20 and votes of 100 tokens or more and with a penalty on repetition in
votes; the latter two are not offered here. policy-train wants to know the --temperature.

--turns writes a row for each turn with what training needs, as far as the back end tells: `prompt` and `prompt_ids` of
a prompt with images are known where the model runs in this process. Rows of a player who is not in training have no
`policy_version`; policy-train would learn from them all the same, and jq -c 'select(.policy_version)' leaves them out.
Paths in `images` are those of the pairs, so keep the rows in the same folder, or use --images there.
"""

_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"spy_image": "blank", "civilians": 4, "rounds": 2, "voters": "civilians", "votes_per_judge": 8},
    "code": {"spy_image": "modified", "civilians": 3, "rounds": 2, "voters": "judge", "votes_per_judge": 8},
}


@command(
    "spy-game",
    system="Vision-Zero",
    reads=view(
        SpyPair,
        *("id", "kind", "edit", "original", "modified", "original_scene", "modified_scene"),
        *("original_table", "modified_table", "original_text", "modified_text", "draw"),
    ),
    adds=field_types(
        SpyGame,
        *("sample", "prompt_id", "spy_image", "n_players", "rounds", "voters", "spy", "spy_model", "civ_model"),
        *("policy_version", "seed", "turns", "votes", "tally", "n_na", "n_invalid", "accused", "winner"),
    ),
    slow=True,
    expands=True,
    epilog="See pair-make(1), spy-reward(1), spy-stats(1), policy-train(1), toolroll-records(5).",
)
@click.option(
    "--preset",
    type=click.Choice(["paper", "code"]),
    default="paper",
    show_default=True,
    help="The game of the paper or of its code: what the following are where they are not given; see NOTES.",
)
@click.option("--spy-image", type=click.Choice(["modified", "blank", "same"]), help="What the spy sees.")
@click.option("--civilians", type=click.IntRange(1, 998), metavar="N", help="Players besides the spy.")
@click.option("--rounds", type=click.IntRange(min=1), metavar="N", help="Rounds of clues.")
@click.option("--voters", type=click.Choice(["civilians", "judge", "all"]), help="Who votes.")
@click.option("--votes-per-judge", type=click.IntRange(min=1), metavar="N", help="How often a judge votes.")
@click.option("--samples", type=click.IntRange(min=1), default=1, show_default=True, help="Games a pair.")
@click.option("--spy-model", metavar="NAME", help="Who plays the spy, if not --model; `rules` is no model.")
@click.option("--civ-model", metavar="NAME", help="Who plays civilians and judge, if not --model.")
@click.option(
    "--spy-copy",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="With `rules`: probability that the spy repeats a clue.",
)
@click.option(
    "--sight",
    type=click.Choice(["auto", "images", "words"]),
    default="auto",
    show_default=True,
    help="How models get the pictures; auto: as images if they take them.",
)
@click.option(
    "--wording",
    type=click.Choice(["auto", "full", "short"]),
    default="auto",
    show_default=True,
    help="Our prompts in full, or the short ones that sprite, the embedded model, was trained with; auto: short where "
    "sprite plays all seats.",
)
@click.option("--clue-prompt", type=click.Path(path_type=Path), metavar="FILE", help="What to ask for a clue.")
@click.option("--vote-prompt", type=click.Path(path_type=Path), metavar="FILE", help="What to ask for a vote.")
@click.option("--system", metavar="TEXT", help="System message of all prompts.")
@click.option(
    "--parse",
    type=click.Choice(["strict", "compat"]),
    default="strict",
    show_default=True,
    help="How answers are read: carefully, or as the authors' code does.",
)
@click.option(
    "--undecided",
    type=click.Choice(["spy", "civilians", "nobody"]),
    default="spy",
    show_default=True,
    help="Who wins when no player has more votes than any other.",
)
@declares(length_option(GroupedOption, 1024))
@click.option("--turns", "as_turns", is_flag=True, help="Write a row for each turn instead of one for each game.")
@uses_images
@click.option(
    "--blanks",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where to put empty images; else beside the others.",
)
@click.option(
    "--at-once",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    metavar="N",
    help="Games played side by side.",
)
@uses_seed
@option_group("sampling", SamplingOptions, sampling_options(GroupedOption, temperature=0.8))
@uses_policy
@uses_model
def main(
    rows: Rows[Any],
    *,
    model: ModelOptions,
    policy: PolicyOptions,
    sampling: SamplingOptions,
    preset: str,
    samples: int,
    spy_model: str | None,
    civ_model: str | None,
    as_turns: bool,
    at_once: int,
    seed: int,
    log: Log,
    stop: StopFlag,
    manifest: Manifest | None,
    **options: Any,
) -> Iterator[Row[Any]]:
    """Let models play who is the spy, about pairs of images.

    Reads rows of pair-make; writes a row for each game, with all turns, token ids and log-probabilities, votes, and
    who won.
    """
    from toolroll.models.answers import read_template
    from toolroll.spygame.game import Rules
    from toolroll.spygame.pictures import Pictures
    from toolroll.spygame.prompts import Templates
    from toolroll.spygame.session import Casting, Session
    from toolroll.world import game

    chosen = {name: value if options[name] is None else options[name] for name, value in _PRESETS[preset].items()}
    files = (options["clue_prompt"], options["vote_prompt"])
    played = {"sprite" if name == "embedded" else name for name in (spy_model or model.model, civ_model or model.model)}
    sprites = policy.policy is None and played - {"rules"} == {"sprite"}
    short = options["wording"] == "short" or (options["wording"] == "auto" and sprites)
    ours = (game.CLUE, game.VOTE) if short else (None, None)
    texts = [read_template(file) if file is not None else text for file, text in zip(files, ours, strict=True)]
    session = Session(
        rules=Rules(
            chosen["civilians"] + 1, chosen["rounds"], chosen["voters"], chosen["votes_per_judge"], options["parse"]
        ),
        pictures=Pictures(chosen["spy_image"], options["images"], options["blanks"]),
        casting=Casting(
            names={"spy": spy_model, "civilians": civ_model},
            model=model,
            policy=policy,
            templates=Templates(*texts),
            sampling=sampling.sampling(seed=0, max_tokens=options["response_tokens"]),
            sight=options["sight"],
            system=options["system"],
            copy=options["spy_copy"],
        ),
        samples=samples,
        seed=seed,
        at_once=at_once,
        as_turns=as_turns,
        undecided=options["undecided"],
        log=log,
        stop=stop,
    )

    def note(players: dict[str, Any]) -> None:
        if manifest is not None:
            manifest.notes["players"] = players

    yield from session.run(rows, note)
