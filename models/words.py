"""The tokenizer of both models: byte-level BPE, so that every text can be told, and words of the scenes are one token.

It learns from what is said about the training pictures and from the prompts that toolroll's commands write.
"""

from __future__ import annotations

from collections.abc import Iterator

from sizes import ROOM, WORDS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from turns import turns_of

from toolroll.spygame import prompts
from toolroll.world.draws import Draws
from toolroll.world.scene import Scene
from toolroll.world.tables import Table

PAD, END, IMAGE, USER, ANSWER, SYSTEM = "<pad>", "<eos>", "<image>", "<|user|>", "<|assistant|>", "<|system|>"
SPECIAL = (PAD, END, IMAGE, USER, ANSWER, SYSTEM)
BEGIN = "<bos>"
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    "{% if m.role == 'assistant' %}<eos>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
HEARD = 1_500  #: pictures whose turns are read


def corpus(about: list[Scene | Table]) -> Iterator[str]:
    """Texts to learn words from."""
    for number, one in enumerate(about):
        for asked in turns_of(one, Draws(number), 10):
            yield asked.question
            yield asked.answer
    yield from (prompts.CLUE, prompts.VOTE, prompts.JUDGE)


def learned(about: list[Scene | Table]) -> Tokenizer:
    """The tokenizer, from what is shown by the first pictures and some charts."""
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS,
        special_tokens=[*SPECIAL, BEGIN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words.train_from_iterator(corpus([*about[:HEARD], *about[-HEARD // 10 :]]), trainer)
    return words


def for_chats(words: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer of sprite: it adds nothing of its own to a text."""
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens={"image_token": IMAGE},
        chat_template=TEMPLATE,
        model_max_length=ROOM,
        clean_up_tokenization_spaces=False,
    )
