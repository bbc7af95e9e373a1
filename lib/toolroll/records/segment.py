"""Images, what is looked for in them, and masks: what is there, and what a model proposes."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from toolroll.records.base import Count, Id, Positive, Record, said

Unit = Annotated[float, Meta(ge=0, le=1)]  # null where it is of nothing


class RunLengths(Record, kw_only=True, frozen=True):
    """A mask, as COCO has it."""

    size: Annotated[list[int], said("Height and width in pixels.")]
    counts: Annotated[Any, said("COCO's text of the run lengths, column by column; a list of them is read, too.")]


class TrueSegment(Record, kw_only=True, frozen=True):
    """A segment that an image has."""

    prompt: Annotated[str, said("Its class: a name, or a synonym, among `prompts`.")]
    rle: Annotated[Any, said("Its mask: run lengths, or a list of polygons x, y, x, y, ...")]


class PromptedImage(Record, kw_only=True, frozen=True):
    """An image and what is looked for in it: what pmp-data writes, pmp-seg reads."""

    id: Annotated[Id | None, said("Names the record; stays the same through all commands.")] = None
    image: Annotated[str | None, said("Path of the image.")] = None
    prompts: Annotated[
        Any, said("What is looked for: names and lists of synonyms, or a text as `sky; road, street; car`.")
    ] = None
    truth: Annotated[
        list[TrueSegment] | None, said("The segments there are. Other pixels are none of the classes.")
    ] = None
    ignore: Annotated[RunLengths | None, said("Pixels of which nothing is known.")] = None


class FoundSegment(Record, kw_only=True, frozen=True):
    """A segment that a model proposes."""

    prompt: Annotated[str, said("The class it is most likely of, by its name.")]
    score: Annotated[Unit, said("How sure the model is.")]
    rle: Annotated[RunLengths, said("Its mask.")]
    area: Annotated[Count, said("Pixels of it.")]
    box: Annotated[list[int], said("Left, top, right, bottom in pixels; the last two are outside.")]
    score_decoder: Annotated[Unit | None, said("--clip: the decoder's own probability of the class.")] = None
    score_clip: Annotated[Unit | None, said("--clip: that of the encoder.")] = None


class SegmentedImage(PromptedImage, kw_only=True, frozen=True):
    """An image with its segments: what pmp-seg writes, pmp-eval reads. Masks depend on all of `prompts`."""

    width: Annotated[Count, said("Width of the images in pixels.")]
    height: Annotated[Count, said("Height of the images in pixels.")]
    mode: Annotated[Literal["semantic", "instance", "panoptic"], said("How queries become segments.")]
    segments: Annotated[list[FoundSegment], said("What was found, the best first.")]
    proposals: Annotated[list[RunLengths] | None, said("--proposals: the mask of every query.")] = None
    selected: Annotated[
        list[Count] | None, said("--proposals: for each prompt the number of the mask that is most likely of it.")
    ] = None
    segmenter: Annotated[str, said("The model, and 16 hex digits of its weights.")]
    mask_file: Annotated[
        str | None, said("--save-masks: path of a PNG; a pixel is the number of its prompt, from 1.")
    ] = None
    overlay_file: Annotated[str | None, said("--overlay: path of a picture with the segments and a legend.")] = None


class SegmentationScores(Record, kw_only=True, frozen=True):
    """How good segments are, over all images: what pmp-eval writes."""

    n_images: Annotated[Count, said("Images.")]
    n_classes: Annotated[Count, said("Classes that were asked for in any of them.")]
    n_segments: Annotated[Count, said("Segments there are, of classes that were asked for.")]
    miou: Annotated[Unit | None, said("Mean IoU of the classes, by `miou_rule`.")]
    miou_rule: Annotated[
        Literal["gt", "union", "all"],
        said("What the sum of IoUs is divided by: classes there are; those and the predicted ones; all asked for."),
    ]
    pixel_accuracy: Annotated[Unit | None, said("Share of pixels of these classes that are predicted right.")]
    proposal_recall: Annotated[
        Unit | None, said("Mean over segments of the IoU of the proposal that fits best, whatever its class.")
    ]
    recall_50: Annotated[Unit | None, said("Share of segments that a proposal fits with an IoU of 0.5 or more.")]
    n_proposals: Annotated[Positive | None, said("Proposals an image, on average.")]
    selected_iou: Annotated[
        Unit | None, said("Mean IoU of the mask selected for a prompt with a segment of it, where there is one.")
    ]
    other_iou: Annotated[
        Unit | None, said("Mean IoU of that mask with the segments of other classes: 0 if it shows the right thing.")
    ]
    class_iou: Annotated[dict[str, Unit | None], said("The IoU of each class; null where neither side has it.")]


class SegmenterStep(Record, kw_only=True, frozen=True):
    """Some updates of a segmenter: what pmp-train writes."""

    step: Annotated[Count, said("Number of the update, from 1.")]
    loss: Annotated[float, said("What was minimised: all parts, all layers; mean since the row before.")]
    class_loss: Annotated[float, said("Cross-entropy of the queries' classes, last layer.")]
    mask_loss: Annotated[float, said("Cross-entropy of the matched masks, last layer.")]
    dice_loss: Annotated[float, said("Dice loss of the matched masks, last layer.")]
    grad_norm: Annotated[Positive, said("Length of the gradient before it was cut.")]
    lr: Annotated[Positive, said("The learning rate.")]
