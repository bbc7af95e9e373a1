"""Games at a table of models: batches, seats, pictures, and what becomes of a player who fails."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from toolroll.errors import RowError, Stopped
from toolroll.io.rows import Row
from toolroll.models.base import Completion, Sampling
from toolroll.models.pictures_scripted import ScriptedPictures
from toolroll.models.policy import PolicyVersion
from toolroll.records import view
from toolroll.records.spygame import SpyPair
from toolroll.spygame.game import Ask, Game, Remark, Rules
from toolroll.spygame.pictures import EMPTY, Picture, Pictures, scene_in_words, table_in_words
from toolroll.spygame.play import Match, Seats, game_fields, play
from toolroll.spygame.players import ModelPlayer, RulePlayer, Turn, named
from toolroll.spygame.prompts import Templates
from toolroll.spygame.session import Casting, Session

VIEW = view(SpyPair, *SpyPair.__struct_fields__)
CUBE = {"shape": "cube", "size": "small", "color": "red", "material": "metal"}
BALL = {"shape": "sphere", "size": "large", "color": "blue", "material": "rubber"}


class Engine(ScriptedPictures):
    """A scripted engine that remembers its batches."""

    def __init__(self, replies, *, sees=True):
        super().__init__(replies)
        self.takes_images = sees
        self.batches: list[int] = []

    def answer(self, requests):
        requests = list(requests)
        self.batches.append(len(requests))
        return super().answer(requests)


def speak(text):
    if "it is time to vote" in text or "Who is the spy?" in text:
        return r"They do not agree. \boxed{1}"
    player = re.search(r"You are player (\d+)", text)[1]
    return rf"My thoughts. \boxed{{Clue of {player}.}}"


def pair(tmp_path: Path, name="p", **more):
    for which, color in (("original", "red"), ("modified", "blue")):
        path = tmp_path / f"{name}_{which}.png"
        if not path.exists():
            Image.new("RGB", (8, 6), color).save(path)
    about = {"id": name, "kind": "photos", "original": f"{name}_original.png", "modified": f"{name}_modified.png"}
    return VIEW(**{**about, **more})


def match(tmp_path, name="p", *, rules=Rules(3, rounds=2), seed=0, spy_image="modified", **more):  # noqa: B008
    seen = pair(tmp_path, name, **more)
    return Match(
        Row(b"{}", seen), 0, Game(rules, seed), Pictures(spy_image).pair(seen, str(tmp_path / "pairs.jsonl:1"))
    )


def model(engine, **more):
    return ModelPlayer(engine, Templates(), Sampling(max_tokens=200), **more)


def seats(spy, civilians=None):
    return Seats({"spy": spy, "civilians": civilians or spy}, {"spy": None, "civilians": None})


def run(matches, table):
    play(matches, table, status=lambda _: None)


# --- batches and seats


def test_each_turn_of_all_games_is_one_batch(tmp_path):
    engine = Engine(speak)
    matches = [match(tmp_path, f"p{i}", seed=i) for i in range(10)]
    run(matches, seats(model(engine)))
    assert engine.batches == [10] * 6 + [20]
    assert all(one.game.votes == [1, 1] for one in matches)


def test_mixed_seats_are_two_batches_and_each_model_plays_its_side(tmp_path):
    spy, others = Engine(speak), Engine(speak)
    spy.name, others.name = "one", "two"
    matches = [match(tmp_path, f"p{i}", seed=i) for i in range(12)]
    table = seats(model(spy), model(others))
    run(matches, table)
    assert sum(spy.batches) == 12 * 2
    assert sum(others.batches) == 12 * (4 + 2)
    for one in matches:
        assert {(turn["role"], turn["model"]) for turn in one.turns} == {("spy", "one"), ("civilian", "two")}
        fields = game_fields(one, table, spy_image="modified", undecided="spy")
        assert (fields["spy_model"], fields["civ_model"]) == ("one", "two")


def test_who_sees_which_image(tmp_path):
    engine = Engine(speak)
    one = match(tmp_path)
    run([one], seats(model(engine)))
    for text, request in engine.requests:
        is_spy = "You are the SPY" in text
        assert [path.name for path in request.images] == [f"p_{'modified' if is_spy else 'original'}.png"]
    assert [turn["images"] for turn in one.turns if turn["player"] == one.game.spy] == [["p_modified.png"]] * 2


def test_games_do_not_depend_on_those_beside_them(tmp_path):
    def by_seed(requests):
        return [Completion(f"\\boxed{{{r.sampling.seed}}}", None, None, "eos") for r in requests]

    def played(numbers):
        engine = SimpleNamespace(name="x", takes_images=True, codec=None, answer=by_seed, weights_id="")
        matches = [match(tmp_path, f"p{i}", seed=i) for i in numbers]
        run(matches, seats(model(engine)))
        return {one.row.view.id: one.turns for one in matches}

    together = played([0, 1, 2, 3])
    alone = {name: turns for i in (3, 1, 0, 2) for name, turns in played([i]).items()}
    assert together == alone


def test_nobody_reads_thoughts_of_others_in_what_models_are_given(tmp_path):
    def think(text):
        if "it is time to vote" in text:
            return r"\boxed{N/A}"
        player, number = re.search(r"player (\d+) of", text)[1], re.search(r"This is round (\d+)", text)[1]
        return rf"thought<{player}.{number}> \boxed{{clue<{player}.{number}>}}"

    engine = Engine(think)
    games = [match(tmp_path, f"p{i}", seed=i, rules=Rules(4, rounds=12)) for i in range(2)]
    run(games, seats(model(engine)))
    assert len(engine.requests) == 2 * (48 + 3)
    for text, _ in engine.requests:
        own = "" if "it is time to vote" in text else re.search(r"player (\d+) of", text)[1]
        assert set(re.findall(r"thought<(\d+)\.", text)) <= {own}
    last = [text for text, _ in engine.requests if "This is round 12" in text]
    assert all(len(re.findall(r"thought<", text)) == 11 for text in last)


def test_a_player_who_fails_ends_its_own_game_only(tmp_path):
    def fail(text):
        return RowError("the model broke") if "Clue of 1" in text and "You are the SPY" in text else speak(text)

    games = [match(tmp_path, f"p{i}", seed=i) for i in range(8)]
    run(games, seats(model(Engine(fail))))
    failed = [one for one in games if one.why]
    assert 0 < len(failed) <= 8
    assert all(re.fullmatch(r"player \d, round \d: the model broke", one.why) for one in failed)
    assert all(0 < len(one.turns) < 6 for one in failed)
    assert all(len(one.turns) == 8 for one in games if not one.why)
    fields = game_fields(failed[0], seats(model(Engine(fail))), spy_image="modified", undecided="spy")
    assert "votes" not in fields
    assert "winner" not in fields


def test_another_exception_ends_everything(tmp_path):
    engine = SimpleNamespace(name="x", takes_images=True, codec=None, answer=lambda _: [ValueError("a defect")] * 1)
    with pytest.raises(ValueError, match="a defect"):
        run([match(tmp_path)], seats(model(engine)))


def test_a_run_that_is_to_stop_stops_between_turns(tmp_path):
    engine = Engine(speak)
    with pytest.raises(Stopped):
        play([match(tmp_path)], seats(model(engine)), status=lambda _: None, stopped=lambda: len(engine.batches) == 3)
    assert len(engine.batches) == 3


def test_what_training_needs(tmp_path):
    one = match(tmp_path, original_text="A red wall.", modified_text="A blue wall.")
    engine = Engine(speak, sees=False)
    run([one], seats(model(engine, system="Be brief.")))
    turn = one.turns[0]
    assert turn["response"] == speak("You are player 1")
    assert len(turn["response_ids"]) == len(turn["logprobs"]) == len(turn["loss_mask"])
    assert set(turn["loss_mask"]) == {1}
    assert bytes(turn["prompt_ids"]).decode() == engine.requests[0][0]
    assert [message["role"] for message in turn["messages"]] == ["system", "user"]
    assert "images" not in turn
    assert (turn["thinking"], turn["clue"], turn["finish"]) == ("My thoughts.", "Clue of 1.", "eos")


# --- pictures


def test_a_model_without_eyes_is_told_in_words(tmp_path):
    scenes = {"original_scene": {"objects": [CUBE]}, "modified_scene": {"objects": [BALL]}}
    engine = Engine(speak, sees=False)
    run([match(tmp_path, kind="scenes", **scenes)], seats(model(engine)))
    for text, request in engine.requests:
        assert not request.images
        assert ("a large blue rubber sphere" in text) == ("You are the SPY" in text)
        assert ("a small red metal cube" in text) == ("You are the SPY" not in text)


def test_a_photo_that_nobody_describes(tmp_path):
    one = match(tmp_path)
    run([one], seats(model(Engine(speak, sees=False))))
    assert "nothing says in words what the picture shows" in one.why


def test_words_on_request_and_images_on_request(tmp_path):
    engine = Engine(speak)
    run([match(tmp_path, original_text="A wall.", modified_text="A door.")], seats(model(engine, sight="words")))
    assert not any(request.images for _, request in engine.requests)
    blind = Engine(speak, sees=False)
    run([match(tmp_path)], seats(model(blind, sight="images")))
    assert all(request.images for _, request in blind.requests)


@pytest.mark.parametrize("missing", ["original", "modified"])
def test_an_image_that_is_not_there(tmp_path, missing):
    one = match(tmp_path, **{missing: None})
    run([one], seats(model(Engine(speak))))
    assert "no image" in one.why
    other = match(tmp_path, **{missing: "nowhere.png"})
    run([other], seats(model(Engine(speak))))
    assert "nowhere.png: no such file" in other.why


def test_equal_images_are_refused_unless_that_is_the_game(tmp_path):
    same = {"modified": "p_original.png"}
    with pytest.raises(RowError, match="two images are equal"):
        match(tmp_path, **same)
    (tmp_path / "p_copy.png").write_bytes((tmp_path / "p_original.png").read_bytes())
    with pytest.raises(RowError, match="two images are equal"):
        match(tmp_path, modified="p_copy.png")
    assert match(tmp_path, edit="same", **same).pair.spy.name == "p_original.png"
    assert match(tmp_path, spy_image="same").pair.spy.name == "p_original.png"
    with pytest.raises(RowError, match="two images are equal"):
        match(tmp_path, original=None, modified=None, original_scene={"objects": []}, modified_scene={"objects": []})


@pytest.mark.parametrize("files", [{"original": None, "modified": None}, {"original": "nope.png"}])
@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ("scene", {"objects": [CUBE]}),
        ("table", {"categories": ["a"], "series": {"s": [1]}}),
        ("text", "A cube."),
    ],
)
def test_pictures_without_files_are_equal_where_they_show_the_same(tmp_path, field, shown, files):
    with pytest.raises(RowError, match="two images are equal"):
        match(tmp_path, **files, **{f"original_{field}": shown, f"modified_{field}": shown})
    other = f"{shown} Or none." if field == "text" else {**shown, "objects": [BALL], "kind": "pie"}
    assert match(tmp_path, **files, **{f"original_{field}": shown, f"modified_{field}": other}).pair
    assert match(tmp_path, **{f"original_{field}": shown, f"modified_{field}": shown}).pair, "files that differ"


def test_an_empty_image_is_made_beside_the_first(tmp_path):
    found = match(tmp_path, spy_image="blank").pair
    assert (found.domain, found.spy.name, found.spy.told()) == ("blank", "blank_8x6.png", EMPTY)
    with Image.open(tmp_path / "blank_8x6.png") as image:
        assert (image.size, image.getcolors()) == ((8, 6), [(48, (255, 255, 255))])
    seen = pair(tmp_path)
    elsewhere = Pictures("blank", blanks=tmp_path / "new").pair(seen, str(tmp_path / "pairs.jsonl:1")).spy
    assert elsewhere.file == tmp_path / "new" / "blank_8x6.png"
    assert elsewhere.file.exists()


@pytest.mark.parametrize(
    ("original", "why"), [("nope.png", "nope.png: no such file"), (None, "the row has no path of it")]
)
def test_who_misses_the_image_of_an_empty_one_is_told_which(tmp_path, original, why):
    """The spy is looked at first, and has the empty picture."""
    player = model(Engine(speak))
    run_ = session(lambda *_: seats(player), lambda: None, pictures=Pictures("blank", tmp_path), samples=1)
    (row,) = run_.run(Given([pair(tmp_path, original=original)]), lambda _: None)
    assert row.error["why"].endswith(why)
    assert not player.engine.batches


def test_a_pair_whose_edit_was_blank_is_played_as_one(tmp_path):
    found = match(tmp_path, edit="blank").pair
    assert (found.domain, found.spy.name, found.spy.told()) == ("blank", "p_modified.png", EMPTY)


def test_images_in_another_folder(tmp_path):
    seen = pair(tmp_path)
    assert Pictures("modified", tmp_path).pair(seen, "stdin:1").civilian.file == tmp_path / "p_original.png"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"kind": "videos"}, "`kind` is 'videos'"),
        ({"original_scene": {"things": 3}}, "no list of objects"),
        ({"original_scene": {"objects": ["cube"]}}, "no list of objects"),
    ],
)
def test_rows_that_are_no_pairs(tmp_path, more, why):
    with pytest.raises(RowError, match=why):
        match(tmp_path, **more)


def test_scenes_and_tables_in_words():
    assert scene_in_words([]) == EMPTY
    assert scene_in_words([CUBE]) == "Your picture shows a small red metal cube."
    assert scene_in_words([{**CUBE, "pixel_coords": ["x"]}]) == "Your picture shows a small red metal cube."
    with pytest.raises(RowError, match="no categories"):
        table_in_words({"series": []})


# --- players by rules


def turn(role, stage, things, heard=(), seed=1, player=1):
    ask = Ask(stage, role, player, seed, tuple(heard), 1 if stage == "clue" else None)
    return Turn(ask, Rules(3), Picture(None, None, things), "scenes", "scenes")


def text_of(*args, copy=0.0, **more):
    (said,) = RulePlayer(copy=copy).answer([turn(*args, **more)])
    return said.text


def test_a_civilian_names_what_nobody_named():
    heard = [Remark(1, 2, "There is a red cube.", None)]
    assert r"\boxed{There is a blue sphere.}" in text_of("civilian", "clue", [CUBE, BALL], heard)
    assert r"\boxed{There is a red cube.}" in text_of("civilian", "clue", [CUBE], heard)


def test_a_spy_repeats_what_another_said():
    heard = [Remark(1, 2, "There is a red cube.", None), Remark(1, 1, "There is a gray cube.", "Hm.")]
    assert r"\boxed{There is a red cube.}" in text_of("spy", "clue", [BALL], heard, copy=1.0)
    assert r"\boxed{There is a blue sphere.}" in text_of("spy", "clue", [BALL], heard)
    assert r"\boxed{There is a blue sphere.}" in text_of("spy", "clue", [BALL], copy=1.0)
    made_up = {text_of("spy", "clue", [], seed=seed) for seed in range(30)}
    assert len(made_up) > 10


def test_a_voter_names_who_names_what_is_not_there():
    true, false = "There is a red cube.", "There is a blue sphere."
    heard = [Remark(1, 1, true, None), Remark(1, 2, false, None), Remark(1, 3, None, None)]
    assert r"\boxed{2}" in text_of("civilian", "decision", [CUBE], heard)
    assert r"\boxed{N/A}" in text_of("civilian", "decision", [CUBE, BALL], heard)
    tied = [*heard, Remark(2, 3, false, None)]
    assert r"\boxed{N/A}" in text_of("civilian", "decision", [CUBE], tied)
    assert r"\boxed{2}" in text_of("civilian", "decision", [CUBE], [*tied, Remark(2, 2, false, None)])


def test_players_by_rules_need_scenes():
    (said,) = RulePlayer().answer([turn("civilian", "clue", None)])
    assert isinstance(said, RowError)
    assert named("Nothing to see.") == ()


# --- a run


class Given:
    """Rows as a command gets them; `done` are the keys that were written before."""

    def __init__(self, views, done=()):
        self._rows = [Row(b"{}", seen, index) for index, seen in enumerate(views)]
        self._done = set(done)

    def __iter__(self):
        return iter(self._rows)

    def ready(self):
        return False

    def done(self, *key):
        return key in self._done and not self._done.remove(key)

    def more_written(self):
        return bool(self._done)


def session(seats_of, version, **more):
    casting = SimpleNamespace(version=version, seats=seats_of, policy=SimpleNamespace(follow=True))
    settings = {"samples": 2, "seed": 0, "at_once": 9, "as_turns": False, "undecided": "spy", "stop": False}
    log = SimpleNamespace(status=lambda _: None, counts=SimpleNamespace(skipped=0))
    settings["pictures"] = Pictures("same")
    return Session(rules=Rules(3, 1), casting=casting, log=log, **{**settings, **more})


def test_a_new_version_plays_from_the_next_games_on():
    versions = iter(["v1", "v1", "v2", "v2"])
    opened = []

    def seats_of(version, log, before=None):
        opened.append((version, before is not None))
        return Seats({"spy": RulePlayer(), "civilians": RulePlayer()}, {"spy": version, "civilians": None})

    scenes = {"kind": "scenes", "original_scene": {"objects": [CUBE]}}
    rows = Given([VIEW(id=f"p{i}", **scenes) for i in range(3)])
    made = list(session(seats_of, lambda: next(versions)).run(rows, lambda _: None))
    fields = [row._added for row in made]
    assert [(one["policy_version"], one["sample"]) for one in fields] == [
        ("v1", 0),
        ("v1", 1),
        ("v2", 0),
        ("v2", 1),
        ("v2", 0),
        ("v2", 1),
    ]
    assert opened == [("v1", False), ("v2", True)]
    assert {turn["policy_version"] for turn in fields[-1]["turns"] if turn["role"] == "spy"} == {"v2"}
    assert {turn["policy_version"] for turn in fields[-1]["turns"] if turn["role"] == "civilian"} == {None}


def test_only_the_seat_of_the_policy_is_opened_again():
    closed, opened = [], []

    def open_one(*_, model, **__):
        opened.append(model)
        engine = Engine(speak)
        engine.close = lambda: closed.append(model)
        return engine

    options = SimpleNamespace(model="embedded", open_image_text=open_one)
    policy = SimpleNamespace(policy=Path("policy"), follow=True)
    casting = Casting({"spy": None, "civilians": "frozen"}, options, policy, Templates(), Sampling())
    log = SimpleNamespace(note=None)
    first = casting.seats(PolicyVersion(Path("one"), "v1"), log)
    second = casting.seats(PolicyVersion(Path("two"), "v2"), log, first)
    assert opened == ["one", "frozen", "two"]
    assert closed == ["one"]
    assert second.players["civilians"] is first.players["civilians"]
    second.close()
    assert sorted(closed) == ["frozen", "one", "two"]
    both = Casting({"spy": None, "civilians": None}, options, policy, Templates(), Sampling())
    seats = both.seats(PolicyVersion(Path("three"), "v3"), log)
    assert seats.players["spy"] is seats.players["civilians"]


def test_games_begin_with_players_who_remember_nothing():
    engine, forgotten = Engine(speak), []
    player = model(engine)
    player.begin()  # a model that keeps nothing
    engine.forget = lambda: forgotten.append(1)
    Seats({"spy": player, "civilians": player}, {}).begin()
    assert forgotten == [1]


def test_games_that_are_done_are_not_played():
    def seats_of(*_):
        return seats(RulePlayer())

    scenes = {"kind": "scenes", "original_scene": {"objects": [CUBE]}}
    views = [VIEW(id="p", **scenes)]
    turns = session(seats_of, lambda: None, as_turns=True)
    whole = [row.raw for row in turns.run(Given(views), lambda _: None)]
    names = [json.loads(line)["id"] for line in whole]
    assert len(names) == 2 * 5
    rest = session(seats_of, lambda: None, as_turns=True)
    done = [(names[0], 0), (names[3], 0), *((name, 1) for name in names[5:])]
    again = [row.raw for row in rest.run(Given(views, done), lambda _: None)]
    assert again == [whole[1], whole[2], whole[4]]
    assert rest.log.counts.skipped == 1
    assert [*session(seats_of, lambda: None).run(Given(views, [("p", 0), ("p", 1)]), lambda _: None)] == []


def test_a_run_that_is_asked_to_stop_plays_the_games_in_hand_to_their_end_and_no_more():
    stop = []

    class Slow(RulePlayer):
        def answer(self, turns):
            stop.append(1)
            return super().answer(turns)

    views = [VIEW(id=f"p{i}", kind="scenes", original_scene={"objects": [CUBE]}) for i in range(3)]
    run_ = session(lambda *_: seats(Slow()), lambda: None, stop=stop, samples=1)
    (row,) = run_.run(Given(views), lambda _: None)
    assert (row.view.id, row.error, len(row._added["votes"])) == ("p0", None, 2)
    assert len(stop) == 3 + 1


def test_a_resumed_run_plays_the_games_that_were_in_hand_again_and_side_by_side():
    """Blocks of 3 games: [p0 p1 p2] [p3 p4 p5] [p6]. What was written is company, and is not written again."""
    scenes = {"kind": "scenes", "original_scene": {"objects": [CUBE]}}
    views = [VIEW(id=f"p{i}", **scenes) for i in range(7)]

    class Company(RulePlayer):
        def __init__(self):
            super().__init__()
            self.blocks = []

        def begin(self):
            self.blocks.append(0)

        def answer(self, turns):
            self.blocks[-1] = max(self.blocks[-1], len({turn.ask.seed for turn in turns if turn.ask.stage == "clue"}))
            return super().answer(turns)

    def resumed(*done):
        player = Company()
        given = Given(views, [(name, 0) for name in done])
        given.ready = lambda: True
        run_ = session(lambda *_: seats(player), lambda: None, samples=1, at_once=3)
        return [row.view.id for row in run_.run(given, lambda _: None)], player.blocks, run_.log.counts.skipped

    assert resumed() == (["p0", "p1", "p2", "p3", "p4", "p5", "p6"], [3, 3, 1], 0)
    assert resumed("p0", "p1", "p2", "p3") == (["p4", "p5", "p6"], [3, 1], 4)  # killed in the second block
    assert resumed("p0", "p1", "p3") == (["p2", "p4", "p5", "p6"], [1, 3, 1], 3)  # p2 had failed, and was skipped
    assert resumed("p0") == (["p1", "p2", "p3", "p4", "p5", "p6"], [3, 3, 1], 1)
    assert resumed("p0", "p1", "p2", "p3", "p4", "p5", "p6") == ([], [], 7)
