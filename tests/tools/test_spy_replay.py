"""spy-replay: the page of games, what is on it, what cannot act on it, and how a browser shows it."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import browser
import frame
import pytest
from PIL import Image

NASTY = "</details><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def clue(player: int, number: int, role: str = "civilian", **more: Any) -> dict[str, Any]:
    said = {"clue": f"There is thing {number}{player}.", "thinking": f"thought {number}{player}", "response": "r"}
    return {"stage": "clue", "round": number, "player": player, "role": role, **said, **more}


def played(**more: Any) -> dict[str, Any]:
    """A game of three in two rounds; player 2 is the spy and found."""
    turns = [clue(p, r, "spy" if p == 2 else "civilian") for r in (1, 2) for p in (1, 2, 3)]
    votes = [{"voter": 1, "vote": 2}, {"voter": 3, "vote": "N/A"}]
    for number, vote in enumerate(votes):
        told = {"vote": vote["vote"], "vote_number": number, "thinking": f"vote thought {number}", "response": "r"}
        turns.append({"stage": "decision", "player": vote["voter"], "role": "civilian", **told})
    about = {"n_players": 3, "rounds": 2, "spy": 2, "spy_image": "modified", "spy_model": "m:a", "civ_model": "m:b"}
    images = {"original": "one.png", "modified": "two.png"}
    return {"id": "g", "sample": 0, **about, **images, "turns": turns, "votes": votes, "seed": 5, **more}


def replayed(folder: Path, *rows: dict[str, Any], args: tuple[str, ...] = (), images: bool = True) -> Any:
    """The page of these games, and what the command said."""
    if images:
        Image.new("RGB", (40, 30), "red").save(folder / "one.png")
        Image.new("RGB", (40, 30), "blue").save(folder / "two.png")
    (folder / "games.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = frame.run(["spy-replay", *args, "games.jsonl"], cwd=folder)
    assert result.rc == 0, result.err
    return result


def text_of(result: Any) -> str:
    return " ".join(browser.Parsed(result.out.decode()).text.split())


def test_a_game_is_told_in_order(tmp_path):
    result = replayed(tmp_path, played())
    told = text_of(result)
    places = [told.index(part) for part in ("Round 1", "thing 11", "thing 12", "Round 2", "thing 21", "Votes", "Tally")]
    assert places == sorted(places)
    assert "the spy is found: civilians won" in told
    assert "Player 1 player 2 ✓ the spy" in told
    assert "Player 3 N/A: nobody" in told
    assert "Besides, 1 for nobody." in told
    assert told.count("Player 2, the spy") == 3
    assert not result.complaints


def test_reasoning_is_folded(tmp_path):
    page = browser.Parsed(replayed(tmp_path, played()).out.decode())
    assert page.count("details") == page.count("summary") == 8
    assert not [attributes for tag, attributes in page.tags if tag == "details" and "open" in attributes]
    assert "thought 22" in page.text
    assert "vote thought 1" in page.text


def test_what_was_written_is_told_where_no_clue_is_in_it(tmp_path):
    game = played()
    game["turns"][0] |= {"clue": None, "thinking": "", "response": "I shall not tell."}
    told = text_of(replayed(tmp_path, game))
    assert "(no clue)" in told
    assert "all that was written" in told
    assert "I shall not tell." in told


def test_pictures_are_in_the_page(tmp_path):
    page = browser.Parsed(replayed(tmp_path, played()).out.decode())
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    for source, name in zip(sources, ("one.png", "two.png"), strict=True):
        head, _, data = source.partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data) == (tmp_path / name).read_bytes()


@pytest.mark.parametrize(
    ("spy_image", "turns_name", "shown"),
    [
        ("same", None, ["one.png", "one.png"]),
        ("blank", None, ["one.png"]),
        ("blank", "two.png", ["one.png", "two.png"]),
    ],
)
def test_the_spy_sees_what_it_saw(tmp_path, spy_image, turns_name, shown):
    game = played(spy_image=spy_image)
    if turns_name is not None:
        for turn in game["turns"]:
            turn["images"] = [turns_name if turn["role"] == "spy" else "one.png"]
    page = replayed(tmp_path, game).out.decode()
    data = [base64.b64encode((tmp_path / name).read_bytes()).decode() for name in shown]
    assert re.findall(r"base64,([^\"]+)", page) == data
    assert ("An empty picture" in page) == (len(shown) == 1)


def test_paths_are_those_of_the_games_file_or_of_images(tmp_path):
    replayed(tmp_path, played())
    (tmp_path / "elsewhere").mkdir()
    for args, lacking in (("../games.jsonl",), 0), (("--images", "..", "-"), 0), (("-",), 2):
        rows = (tmp_path / "games.jsonl").read_bytes()
        result = frame.run(["spy-replay", *args], cwd=tmp_path / "elsewhere", stdin=rows)
        assert (result.rc, result.out.count(b"Not shown: ")) == (0, lacking)
        assert len(result.complaints) == lacking


def test_a_picture_that_is_missing_or_none_is_told_and_not_read_into_the_page(tmp_path):
    (tmp_path / "secret").write_text("secret words")
    result = replayed(tmp_path, played(original="secret", modified="no/such.png"), images=False)
    assert result.complaints == [
        "spy-replay: games.jsonl:1: warning: secret: not an image",
        "spy-replay: games.jsonl:1: warning: no/such.png: No such file or directory",
    ]
    assert b"Not shown: secret" in result.out
    assert b"Not shown: no/such.png" in result.out
    assert base64.b64encode(b"secret words") not in result.out
    assert b"<img" not in result.out


def test_a_page_without_pictures(tmp_path):
    result = replayed(tmp_path, played(), args=("--no-images",), images=False)
    assert b"<img" not in result.out
    assert "Pictures are left out" in text_of(result)
    assert not result.complaints


def test_frames_mark_what_differs(tmp_path):
    boxes = {"original": [[10, 6, 30, 21]], "modified": []}
    page = replayed(tmp_path, played(width=40, height=30, boxes=boxes)).out.decode()
    assert '<i style="left:25.00%;width:50.00%;top:20.00%;height:50.00%"></i>' in page
    blank = replayed(tmp_path, played(width=40, height=30, boxes=boxes, spy_image="blank")).out.decode()
    assert "<i " not in blank


def test_rewards_and_advantages_of_spy_reward(tmp_path):
    (tmp_path / "plain.jsonl").write_text(json.dumps(played()))
    rewarded = frame.run(["spy-reward", "--advantages", "plain.jsonl"], cwd=tmp_path)
    (row,) = rewarded.rows
    told = text_of(replayed(tmp_path, row))
    assert "player reward of clues advantage votes got" in told
    assert "Player 2, the spy -0.100 -0.095 1" in told  # -0.1 (1 - 0), less 0.05 times that
    assert "✓ the spy (reward +1.000, advantage +1.000)" in told
    assert "N/A: nobody (reward -0.500, advantage -1.000)" in told
    assert "spy -0.005" in told
    bare = text_of(replayed(tmp_path, played()))
    assert "reward" not in bare


def test_votes_that_are_not_valid(tmp_path):
    game = played(votes=[{"voter": 1, "vote": None}, {"voter": 3, "vote": 7}])
    told = text_of(replayed(tmp_path, game))
    assert "Player 1 not valid all that was written r Player 3 not valid: 7" in told
    assert "no player has most votes: spy won" in told
    assert "2 not valid" in told


def test_the_summary_counts_all_games_and_shows_some(tmp_path):
    lost = {"votes": [{"voter": 1, "vote": 3}, {"voter": 3, "vote": 1}]}
    games = [played(), played(sample=1, **lost), played(sample=2, winner="nobody", **lost), played(spy_model="m:c")]
    result = replayed(tmp_path, *games, args=("--shown", "3"))
    told = text_of(result)
    assert "Who is the spy: 4 games" in told
    assert "The first 3 are shown (--shown)." in told
    assert "m:a m:b 3 0.333 (n=3) 0.333 (n=3) 0.333 (n=3)" in told
    assert "m:c m:b 1 0.000 (n=1) 1.000 (n=1)" in told
    assert "no player has most votes: nobody wins" in told
    page = browser.Parsed(result.out.decode())
    assert page.count("section") == 3
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links == [f"#{attributes['id']}" for tag, attributes in page.tags if tag == "h2"]


def test_games_that_failed_are_shown_as_far_as_they_went(tmp_path):
    game = played()
    cut = {name: value for name, value in game.items() if name != "votes"}
    cut |= {"turns": game["turns"][:4], "error": {"why": "player 2, round 2: the server is away", "where": "p:1"}}
    strange = {"id": 3, "n_players": "many", "error": {"why": "odd", "where": "p:2"}}
    result = replayed(tmp_path, cut, strange, played(sample=1))
    told = text_of(result)
    assert "2 games failed" in told
    assert "player 2, round 2: the server is away" in told
    assert "thing 21" in told
    assert "game 2 failed odd" in told
    assert "2 passed on" in result.err


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (
            {"id": "t", "stage": "clue", **{name: played()[name] for name in ("n_players", "spy", "votes")}},
            "a turn, not",
        ),
        ({"id": "t", "n_players": 3}, "no `spy`: not a game that was played to its end"),
        (played(spy=9), "`spy` is 9, not one of the 3 players"),
        (played(turns=[{"stage": "chat"}]), "`$.turns[0].stage`"),
    ],
)
def test_what_is_no_game(tmp_path, row, why):
    (tmp_path / "in").write_text(json.dumps(row) + "\n" + json.dumps(played()) + "\n")
    result = frame.run(["spy-replay", "--no-images", "in"], cwd=tmp_path)
    assert (result.rc, result.out, len(result.complaints)) == (1, b"", 1)
    assert result.complaints[0].startswith("spy-replay: in:1: ")
    assert why in result.complaints[0]
    kept = frame.run(["spy-replay", "--no-images", "--on-error", "skip", "in"], cwd=tmp_path)
    assert kept.rc == 0
    assert "Who is the spy: 2 games" in text_of(kept)


def hostile() -> dict[str, Any]:
    """A game in which all that a model, or a row, can say is markup."""
    game = played(id=NASTY, spy_model=NASTY, policy_version=NASTY, original=NASTY, seed=1)
    for turn in game["turns"]:
        turn |= {"thinking": f"</pre>{NASTY}", "response": NASTY}
        if turn["stage"] == "clue":
            turn["clue"] = NASTY
    return game


def test_nothing_that_was_written_acts_on_the_page(tmp_path):
    failed = {**hostile(), "error": {"why": NASTY, "where": NASTY}}
    (plain,) = (browser.Parsed(replayed(tmp_path, game).out.decode()) for game in [played()])
    page = browser.Parsed(replayed(tmp_path, hostile(), failed).out.decode())
    assert page.count("script") == 0
    assert not [1 for _, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    assert page.count("details") == 8 + 6
    assert {tag for tag, _ in page.tags} - {tag for tag, _ in plain.tags} == {"nav", "a"}
    assert page.text.count(NASTY) > 20


def test_characters_that_turn_the_text_around_are_spelt_out(tmp_path):
    game = played()
    game["turns"][0]["clue"] = "left \u202e thgir \x00 end"
    assert "left \\u202e thgir \\u0000 end" in text_of(replayed(tmp_path, game))


@browser.needs_chromium
def test_a_browser_runs_no_script_of_it_and_loads_nothing(tmp_path):
    (tmp_path / "page.html").write_bytes(replayed(tmp_path, hostile(), played(sample=1)).out)
    dom = browser.browse(tmp_path / "page.html", "--dump-dom").decode()
    assert "<title>Who is the spy</title>" in dom
    page = browser.Parsed(dom)
    assert page.count("script") == 0
    assert page.count("details") == 16
    assert {attributes["src"][:10] for tag, attributes in page.tags if tag == "img"} == {"data:image"}


@browser.needs_chromium
def test_a_browser_shows_the_pictures_on_light_and_on_dark(tmp_path):
    (tmp_path / "page.html").write_bytes(replayed(tmp_path, played(), played(sample=1)).out)
    for dark in (False, True):
        picture = Image.open(browser.screenshot(tmp_path / "page.html", dark=dark)).convert("RGB")
        assert picture.size == (1100, 1400)
        ground = max(picture.getpixel((3, 3)))
        assert ground < 64 if dark else ground == 255
        counts = {color: count for count, color in picture.getcolors(1 << 20)}
        for color in ((255, 0, 0), (0, 0, 255)):
            assert counts[color] == pytest.approx(240 * 180, rel=0.01)  # less the round corners


@browser.needs_chromium
@pytest.mark.parametrize("width", [500, 1100])
def test_long_words_do_not_widen_the_page(tmp_path, width):
    """The ground at the right edge, where text that overflows would be."""
    game = played(id="i" * 900)
    for turn in game["turns"]:
        turn |= {"clue": "c" * 900, "thinking": "t" * 900}
    page = replayed(tmp_path, game).out.replace(b"<details>", b"<details open>")
    (tmp_path / "page.html").write_bytes(page)
    picture = Image.open(browser.screenshot(tmp_path / "page.html", width=width, height=2500)).convert("RGB")
    edge = [picture.getpixel((width - 8, y)) for y in range(2500)]
    assert set(edge) == {(255, 255, 255)}
