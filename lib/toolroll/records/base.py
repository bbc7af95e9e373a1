"""What all records are made of, and the part of one that a command reads."""

import typing
from functools import cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta


def said(description: str, **limits: Any) -> Any:
    """What a field means, and its limits (`ge`, `le`, `min_length`, ...)."""
    return Meta(description=description, **limits)


Id = Annotated[str | int, said("Names the record; stays the same through all commands.")]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[float, Meta(ge=0)]
Safe = Annotated[float, Meta(ge=-1e100, le=1e100)]  # sums and squares of it are finite
Arm = Annotated[str, Meta(min_length=1)]

Images = Annotated[list[str] | None, said("Paths of the prompt's images, in order.")]
Image = Annotated[Any, said("Where there are no `images`: the path of one image, or an object with its `path`.")]
ImagePath = Annotated[str | None, said("Another name for `image`.")]
IMAGE_FIELDS = ("images", "image", "image_path")  #: which `models.images.image_names` reads together

PromptIds = Annotated[list[int] | None, said("Token ids of the prompt.")]
ResponseIds = Annotated[
    list[int] | None, said("Token ids of the response, as sampled and injected, never re-tokenized.")
]
LossMask = Annotated[list[int] | None, said("For each response token: 1 = written by the model, 0 = injected.")]
Logprobs = Annotated[
    list[float] | None,
    said(
        "For each response token: log-probability in nats under the policy at the sampling temperature; "
        "0 where injected."
    ),
]


class Record(msgspec.Struct, kw_only=True, frozen=True, gc=False, omit_defaults=True):
    """A kind of row, or a part of one."""


@cache
def _hints(record: type[Record]) -> dict[str, Any]:
    return typing.get_type_hints(record, include_extras=True)


@cache
def view(record: type[Record], *names: str, required: tuple[str, ...] = ()) -> type[msgspec.Struct]:
    """The part of a record that a command reads: its fields `names`, of which `required` must be there.

    Types, limits and defaults are the record's.
    """
    fields = {field.name: field for field in msgspec.structs.fields(record)}
    hints = _hints(record)
    chosen: list[Any] = []
    for name in names:
        field = fields[name]
        if name in required or field.required:
            chosen.append((name, hints[name]))
        elif field.default_factory is not msgspec.NODEFAULT:
            chosen.append((name, hints[name], msgspec.field(default_factory=field.default_factory)))
        else:
            chosen.append((name, hints[name], field.default))
    return msgspec.defstruct(record.__name__, chosen, kw_only=True, frozen=True, gc=False)


def field_types(record: type[Record], *names: str) -> dict[str, Any]:
    """The types of a record's fields `names`, for a command that adds them."""
    hints = _hints(record)
    return {name: hints[name] for name in names}
