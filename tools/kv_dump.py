"""kv-dump: write the keys and values that a model holds of a prompt.

What is recorded and how: toolroll.kvcache.dump; the files: toolroll.kvcache.kvfile. Paper: arXiv:2502.14882.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from toolroll.cli import GroupedOption, command, option_group, uses_prompt
from toolroll.models.options import ANY_MODEL, LocalOptions, PromptOptions, local_options
from toolroll.records import IMAGE_FIELDS, field_types, view
from toolroll.records.kvcache import KvDump, KvPrompt

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows

LONGEST = 255  #: a name of a file, in bytes

EXAMPLES = """
  The caches of prompts about images, with a model that this package has:
    pair-make scenes -n 1 --size 96x72 --out pictures -o pairs.jsonl
    pair-quiz pairs.jsonl -n 1 | jq -c '.id = "p0"' > prompts.jsonl
    kv-dump prompts.jsonl --model sprite --out kv/ > dumped.jsonl
    kv-quant kv/p0.safetensors --bits 1 --table
  A language model, and a passage in each prompt in place of an image:
    kv-dump PASSAGES.jsonl --pack text --out kv/
"""

NOTES = """
Each row becomes a file in the folder --out, named after its `id`, with `layers.{l}.k` and `layers.{l}.v` [1, H, T, D]
as attention reads them (behind the rotation, of key heads only), in the model's own type; --kv-dtype takes another.
`span` says which tokens are marked: with --pack images those that stand for images, with text those within the first
place of the row's `packed_text`, with all every token but the last. `packed_spans` in a row go before.

Queries: `layers.{l}.q` [1, Hq, N, D] of at most --queries tokens behind the last one that is marked, evenly spread, the
last of the prompt among them; `q_at` says where they are, the header by what their scores are multiplied. They are what
kv-quant and kv-calibrate measure attention with. Layers with a window, or without keys and values of all tokens, are
left out, and a message says so.

The prompt is read in one pass and nothing is written behind it. A file of the same name is replaced.
"""


@command(
    "kv-dump",
    system="CalibQuant",
    reads=view(KvPrompt, "id", "prompt", "messages", *IMAGE_FIELDS, "packed_text", "packed_spans"),
    adds=field_types(KvDump, *KvDump.__struct_fields__),
    key=("id",),
    slow=True,
    epilog="See kv-quant(1), kv-calibrate(1), kv-eval(1), toolroll-records(5).",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The folder of the files.")
@click.option(
    "--kv-dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="The type of keys and values in the file."
)
@click.option(
    "--pack",
    type=click.Choice(["images", "text", "all"]),
    default="images",
    show_default=True,
    help="Which tokens are marked as visual.",
)
@click.option(
    "--queries", type=click.IntRange(min=0), default=16, show_default=True, metavar="N", help="Queries a head to keep."
)
@option_group("running", LocalOptions, local_options(GroupedOption, ANY_MODEL))
@uses_prompt
def main(
    rows: Rows[Any],
    *,
    asking: PromptOptions,
    out: Path,
    running: LocalOptions,
    kv_dtype: str | None,
    pack: str,
    queries: int,
    log: Log,
) -> Iterator[Row[Any]]:
    """Write the keys and values that a model holds of a prompt.

    Reads rows with `prompt` or `messages`, and `images` for a model that takes them. Writes a file for each.
    """
    from toolroll.cli import each
    from toolroll.errors import RowError, ToolrollError
    from toolroll.kvcache.dump import dump, recording
    from toolroll.kvcache.running import Prompts, open_model, visual_tokens
    from toolroll.models.asked import PromptReader
    from toolroll.models.base import Sampling
    from toolroll.models.device import choose_device
    from toolroll.models.load import introduced

    device = choose_device(running.device, running.dtype)
    loaded = open_model(running.model, device, trust_remote_code=running.trust_remote_code, notify=log.note)
    log.note(introduced(running.model, f"transformers on {device.text}"))
    prompts = Prompts(loaded)
    read = PromptReader(loaded.codec, loaded.processor, asking.prompter, most=prompts.most, folder=running.images)
    find = visual_tokens(loaded, pack)
    kind = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}.get(kv_dtype or "")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolrollError(error.strerror or str(error), place=str(out)) from error
    told: set[int] = set()

    def written(row: Row[Any], kept: Any) -> Row[Any]:
        if row.view.id is None:
            raise RowError("no `id` to name its file by")
        asked = read(row, Sampling(max_tokens=1))
        mask = find(asked, row.view)
        path = out / f"{quote(str(row.view.id), safe=' ')}.safetensors"
        if len(f"{path.name}.part") > LONGEST:
            raise RowError("its `id` is too long to name a file by")
        left = dump(prompts, kept, asked, mask, path, queries=queries, kind=kind, about={"model": loaded.name})
        if new := sorted(set(left) - told):
            told.update(new)
            log.note(f"layers that do not hold all tokens are left out: {', '.join(map(str, new))}")
        counts = {"kv_tokens": len(asked.ids), "kv_visual_tokens": int(mask.sum())}
        return row.add(kv=path.name, **counts, kv_bytes=path.stat().st_size)

    with recording(loaded.model) as kept:
        yield from each(rows, lambda row: written(row, kept))
