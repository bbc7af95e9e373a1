"""The page and the picture: what they show, and that nothing in rows becomes markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from compared import gathered, run

from toolroll.errors import ToolrollError, UsageError
from toolroll.numerics.page import write_page
from toolroll.numerics.picture import draw
from toolroll.numerics.report import rows_of_report

TINY = Path(__file__).resolve().parents[2] / "data" / "tiny-llama"
TAGS = {
    *("html", "meta", "title", "style", "h1", "h2", "p", "div", "table", "tr", "th", "td"),
    *("details", "summary", "b", "br", "span", "pre", "mark"),
}
HOSTILE = '<script>alert(1)</script><img src=x onerror="a()"> &amp; \'"</pre></style>\u202e\x00'


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data):
        self.text += data


def page(rows, tmp_path, **settings):
    runs = gathered(rows, whole=True)
    write_page(runs, list(rows_of_report(runs)), str(tmp_path / "page.html"), **settings)
    return (tmp_path / "page.html").read_text()


def marks(text):
    return re.findall(r"<mark>(.*?)</mark>", text)


def test_nothing_of_a_row_becomes_markup(tmp_path):
    rows = [
        run(HOSTILE, [1, 2], name=HOSTILE, text=HOSTILE + "a"),
        run("b", [1, 3], name=HOSTILE, text=HOSTILE + "<b"),
    ]
    text = page(rows, tmp_path)
    parsed = Page(text)
    assert parsed.tags <= TAGS
    assert parsed.attributes <= {"lang", "charset", "http-equiv", "content", "name", "class", "open", "title"}
    assert parsed.text.count("<script>alert(1)</script>") >= 4
    assert "\u202e" not in text
    assert "\x00" not in text
    assert "default-src 'none'" in text
    assert "url(" not in text


def test_tokens_of_texts_are_not_markup_either(tmp_path):
    text = page([run(1, ["<b>", "<i>"]), run(2, ["<b>", "<u>"])], tmp_path)
    assert marks(text) == ["&lt;i&gt;", "&lt;u&gt;"]


def test_texts_are_marked_where_they_part(tmp_path):
    text = page([run(1, [1, 2], text="one two"), run(2, [1, 3], text="one three")], tmp_path)
    assert marks(text) == ["w", "h"]
    assert "one t<mark>w</mark>o" in text


def test_texts_that_are_the_same_are_told(tmp_path):
    text = page([run(1, [1, 2], text="ab"), run(2, [3], text="ab")], tmp_path)
    assert text.count("the tokens differ, their texts do not") == 2


def test_without_texts_there_are_ids_and_an_answer_that_ends_has_a_mark(tmp_path):
    text = page([run(1, [11, 12]), run(2, [11, 12, 13])], tmp_path)
    assert "11 12 <mark>13 </mark>" in text
    assert "the answer ends here" in text


def test_a_tokenizer_spells_tokens(tmp_path):
    text = page([run(1, [9, 10, 1]), run(2, [9, 11, 999])], tmp_path, tokenizer=str(TINY))
    assert "<pre>" in text
    assert not re.search(r"<pre>9", text)
    assert "&lt;999&gt;" in text
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ToolrollError, match="cannot be loaded as a tokenizer"):
        page([run(1, [9]), run(2, [9])], tmp_path, tokenizer=str(tmp_path))


def test_what_is_known_of_the_token_stands_there(tmp_path):
    rows = [
        run(1, [1, 2], top1_prob=[1, 0.5], top2_prob=[0, 0.25], correct=1),
        run(2, [1, 3], top1_prob=[1, 0.5], top2_prob=[0, 0.125], correct=0),
    ]
    text = page(rows, tmp_path)
    assert "p(top 1) 0.5, gap 0.25, 2 tokens, right" in text
    assert "p(top 1) 0.5, gap 0.375, 2 tokens, wrong" in text


def test_the_first_to_part_stands_on_the_right_unless_chosen(tmp_path):
    rows = [run(1, [1, 2, 3]), run(2, [1, 2, 4]), run(3, [1, 5, 3]), run(4, [1, 2, 3])]
    assert re.findall(r"<div><b>precision=bf16 batch_size=(\d)", page(rows, tmp_path)) == ["1", "3"]
    chosen = page(rows, tmp_path, sides=("batch_size=3", "batch_size=2"))
    assert re.findall(r"<div><b>precision=bf16 batch_size=(\d)", chosen) == ["3", "2"]
    right = page(rows, tmp_path, sides=(None, "precision=bf16 batch_size=1"))
    assert re.findall(r"<div><b>precision=bf16 batch_size=(\d)", right) == ["2", "1"]
    same = page(rows, tmp_path, sides=("batch_size=1", "batch_size=4"))
    assert "1 more diverge, but not between these two" in same
    for wrong in ("batch_size=9", "9"):
        with pytest.raises(UsageError, match=f"^--left: no configuration has {wrong}$"):
            page(rows, tmp_path, sides=(wrong, None))
    rows = [{"id": 1, "config": text, "tokens": [i]} for i, text in enumerate(("my first", "my second", "my third"))]
    chosen = page(rows, tmp_path, sides=("my third", "my second"))
    assert re.findall(r"<div><b>my (\w+)", chosen) == ["third", "second"]


def test_long_answers_and_many_problems_are_cut(tmp_path):
    rows = [
        run(size, [*range(5000), size, *range(5000)], name=f"p{i}", text=f"{'w ' * 5000}{size}{' w' * 5000}")
        for i in range(30)
        for size in (1, 2)
    ]
    text = page(rows, tmp_path, most=10)
    assert "30 problems diverge; the first 10 are shown" in text
    assert text.count("<details") == 10
    assert len(text) < 50_000
    assert "[9760 characters]" in text


def test_nothing_diverges(tmp_path):
    assert "No problem diverges." in page([run(1, [1]), run(2, [1])], tmp_path)
    assert "<td>0</td>" in page([], tmp_path)


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(ToolrollError, match="No such file"):
        page([], tmp_path / "none")
    with pytest.raises(ToolrollError, match="No such file"):
        draw(gathered([run(1, [1])]), str(tmp_path / "none" / "a.png"))


# --- the picture


@pytest.mark.parametrize(
    "rows",
    [
        [run(1, [1, 2], top1_prob=[1, 0.5], top2_prob=[0, 0.4]), run(2, [1, 3], top1_prob=[1, 1], top2_prob=[0, 0])],
        [run(1, [1]), run(2, [1])],
        [run(1, [])],
        [{"id": 1, "config": f"precision={i} tp={tp}", "n_tokens": i * tp} for i in range(12) for tp in (1, 2)],
        [{"id": 1}],
    ],
    ids=["all", "tokens", "one", "lengths", "nothing"],
)
def test_a_picture_can_be_drawn_of_anything(rows, tmp_path):
    draw(gathered(rows), str(tmp_path / "a.png"))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_told(tmp_path):
    with pytest.raises(ToolrollError, match="there are no answers"):
        draw(gathered([]), str(tmp_path / "a.png"))
    with pytest.raises(UsageError, match="xyz"):
        draw(gathered([run(1, [1])]), str(tmp_path / "a.xyz"))
