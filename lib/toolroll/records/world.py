"""Small pictures with known contents: pairs of images, and what they are made from."""

from typing import Annotated, Any, Literal

from toolroll.records.base import Arm, Count, Id, Record, said

Box = Annotated[list[int], said("Left, top, right, bottom in pixels; the last two are outside.")]


class Boxes(Record, kw_only=True, frozen=True):
    """Where the edited things are in two images."""

    original: Annotated[list[Box], said("In the first image; what was added has none there.")]
    modified: Annotated[list[Box], said("In the second image; what was removed has none there.")]


class Edit(Record, kw_only=True, frozen=True):
    """One thing that was changed. Which of the fields there are depends on the kind of pair."""

    op: Annotated[str, said("What was done: replace, recolor, reshape, resize, move, remove, add, insert, swap.")]
    said: Annotated[str, said("The same in words.")]
    before: Annotated[Count | None, said("Scenes: the object's number in the first scene; null if it is new.")] = None
    after: Annotated[Count | None, said("Scenes: its number in the second scene; null if it is gone.")] = None
    was: Annotated[Any, said("What it was: of objects the attributes that changed, of charts the two values.")] = None
    now: Annotated[Any, said("What it is: likewise; of photos the box of what was put in.")] = None
    box: Annotated[Box | None, said("Photos: the box of the thing.")] = None
    series: Annotated[str | None, said("Charts: the series with the swapped values.")] = None
    categories: Annotated[list[str] | None, said("Charts: the two categories.")] = None


class PairSource(Record, kw_only=True, frozen=True):
    """What a pair of images is made from: a row of a FILE of pair-make.

    For scenes a row of CLEVR's JSON, for charts a table, for photos a path.
    """

    image: Annotated[str | None, said("Photos: path of the photo.")] = None
    mask: Annotated[str | None, said("Photos: path of a mask of the thing to edit, black elsewhere.")] = None
    bbox: Annotated[list[float] | None, said("Photos: left, top, right, bottom of the thing, in pixels.")] = None
    objects: Annotated[list[Any] | None, said("Scenes: the objects, as CLEVR has them.")] = None
    categories: Annotated[list[Any] | None, said("Charts: the categories.")] = None
    series: Annotated[Any, said("Charts: an object with a list of values for each series, or one list.")] = None


class ImagePair(Record, kw_only=True, frozen=True):
    """Two images that differ in a known way: what pair-make writes."""

    id: Id
    kind: Annotated[Literal["scenes", "charts", "photos"], said("What the images show.")]
    edit: Annotated[str, said("How they differ: the kind of edit; `same` and `blank` have none.")]
    original: Annotated[str, said("Path of the first image, a PNG.")]
    modified: Annotated[str, said("Path of the second image, of the same size.")]
    width: Annotated[Count, said("Width of the images in pixels.")]
    height: Annotated[Count, said("Height of the images in pixels.")]
    changes: Annotated[list[Edit], said("What was changed, thing by thing: all that differs.")]
    boxes: Annotated[Boxes, said("Where the edited things are.")]
    share: Annotated[float, said("Share of pixels in which a channel differs by more than 8 of 255.", ge=0, le=1)]
    difficulty: Annotated[
        float,
        said("How hard the change is to find, by its size: 0 for the largest, 1 where nothing changed.", ge=0, le=1),
    ]
    seed: Annotated[int, said("This pair's own seed.")]
    source: Annotated[str | None, said("The file, and the place in it, that the pair was made from.")] = None
    original_scene: Annotated[dict[str, Any] | None, said("Scenes: what the first image shows, as CLEVR's JSON.")] = (
        None
    )
    modified_scene: Annotated[dict[str, Any] | None, said("Scenes: what the second image shows.")] = None
    original_table: Annotated[dict[str, Any] | None, said("Charts: the values that the first image shows.")] = None
    modified_table: Annotated[dict[str, Any] | None, said("Charts: the values that the second image shows.")] = None


class QuizItem(Record, kw_only=True, frozen=True):
    """A question about an image with its answer: what pair-quiz writes, image-rollout answers, answer-check checks."""

    id: Annotated[Id, said("Names the question: the pair's id, and behind a / the kind of question.")]
    pair: Annotated[Id, said("The pair of images it is about.")]
    kind: Annotated[Literal["scenes", "charts"], said("What the images show.")]
    distribution: Annotated[Arm, said("The distribution (the arm) a task belongs to.")]
    prompt: Annotated[str, said("What the model is asked.")]
    images: Annotated[list[str], said("Paths of the prompt's images, in order.")]
    answer: Annotated[str, said("The right answer, or several that are accepted.")]
