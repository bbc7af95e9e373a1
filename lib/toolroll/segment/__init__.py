"""Prompt-guided mask proposals: a mask decoder whose queries listen to the prompts (PMP, arXiv:2412.10292).

Prompts and text:

    prompts      what is looked for: classes, their synonyms, templates
    text         prompts as vectors: the packaged table of words, or a text encoder

The model, and what it says:

    attention    attention, and the block in which queries attend to text
    network      what a small model sees: convolutions, a feature pyramid
    decoder      queries that become masks, layer by layer; scores of classes
    model        the small model as a whole, its folder
    mask2former  any Mask2Former of transformers with the block
    predicting   a model at work, with a contrastive encoder or without
    proposals    what a model says of an image, read as segments

Data: `scenes` are images with named segments, of camvid and rows (`folders`), `coco`, `shapes` and `streets`; `masks`
has run lengths and polygons as COCO has them.

Training and measuring:

    sampling     scenes as examples: which prompts, which segments
    matching     which query takes which segment
    losses       what is minimised
    training     updates, checkpoints
    metrics      IoU and its means, recall of proposals; `evaluating` sums them up over rows

For commands: `inputs`, `scene_rows`, `writing`, `overlay`, `options`.
"""
