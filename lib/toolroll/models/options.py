"""The options that choose and run a text model, the same in every command that uses one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.errors import UsageError
from toolroll.models.single_options import device_option, dtype_option, images_option, trust_option

if TYPE_CHECKING:
    from toolroll.models.answers import Prompter
    from toolroll.models.base import Message, Sampling, TextEngine
    from toolroll.models.pictures import ImageTextEngine


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The values of the model options; `open` loads the model, `open_image_text` one for conversations with images."""

    model: str
    backend: str = "auto"
    base_url: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int | None = None
    max_tokens: int = 8192
    tokenizer: str | None = None
    concurrency: int = 16
    timeout: float = 120.0
    api_key_file: str | None = None
    trust_remote_code: bool = False

    def open(self, notify: Callable[[str], None], *, cache: str | None = None, model: str | None = None) -> TextEngine:
        """Load the model (or another one, `model`, with the same settings); `notify` hears what was chosen."""
        from toolroll.models.open import open_text_engine

        return open_text_engine(model=model or self.model, cache=cache, notify=notify, **self._settings())

    def open_image_text(
        self,
        notify: Callable[[str], None],
        *,
        cache: str | None = None,
        model: str | None = None,
    ) -> ImageTextEngine:
        """Load the model (or another one, `model`) for conversations with images; else as `open`.

        Where no model was named, the embedded one is "sprite"; give `model="embedded"` for the one of text.
        """
        from toolroll.models.open import open_image_text

        name = model or ("sprite" if self.model == "embedded" else self.model)
        return open_image_text(model=name, cache=cache, notify=notify, **self._settings())

    def _settings(self) -> dict[str, Any]:
        return {
            "backend": self.backend,
            "base_url": self.base_url,
            "device": self.device,
            "dtype": self.dtype,
            "batch_size": self.batch_size,
            "max_context": self.max_tokens,
            "tokenizer": self.tokenizer,
            "concurrency": self.concurrency,
            "timeout_s": self.timeout,
            "api_key_file": self.api_key_file,
            "trust_remote_code": self.trust_remote_code,
        }


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """The values of the options that choose a model in this process, and where images are."""

    model: str
    device: str = "auto"
    dtype: str = "auto"
    images: Path | None = None
    trust_remote_code: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of a model in a folder, or its one file."""
        from toolroll.models.load import own_files

        return own_files(self.model)


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """The values of the sampling options."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def sampling(self, *, seed: int, max_tokens: int = 500) -> Sampling:
        """How one record's completions are drawn."""
        from toolroll.models.base import Sampling

        return Sampling(
            temperature=self.temperature, top_p=self.top_p, top_k=self.top_k, max_tokens=max_tokens, seed=seed
        )


@dataclass(frozen=True)
class PromptOptions:
    """The values of the options that say what a row asks."""

    prompt_file: Path | None = None
    raw_prompt: bool = False
    system: str | None = None

    def __post_init__(self) -> None:
        if self.raw_prompt and self.system is not None:
            raise UsageError("a system message needs the chat template: drop --raw-prompt", place="--system")

    def prompter(self, chat: Callable[[list[Message]], str]) -> Prompter:
        """How a row becomes a prompt; `chat` makes the text of messages."""
        from toolroll.models.answers import Prompter

        return Prompter(chat, self._template, self.system, self.raw_prompt)

    @cached_property
    def _template(self) -> str | None:
        """The text of the file, which is read once: it may be a pipe."""
        from toolroll.models.answers import read_template

        return read_template(self.prompt_file) if self.prompt_file is not None else None


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """The values of the options of commands that take their model from a policy directory."""

    policy: Path | None = None
    follow: bool = False

    def __post_init__(self) -> None:
        if self.follow and self.policy is None:
            raise UsageError("goes with --policy", place="--follow")


def prompt_options(option: Callable[..., click.Option]) -> list[click.Option]:
    """The options of `PromptOptions`, made by `option`, which is click.Option or one with a `section`."""
    return [
        option(
            ["--prompt-file"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="What to ask; {name} in it stands for the row's field of that name.",
        ),
        option(["--raw-prompt"], is_flag=True, help="Do not use the model's chat template."),
        option(["--system"], metavar="TEXT", help="System message, for prompts that have none."),
    ]


def policy_options(option: Callable[..., click.Option]) -> list[click.Option]:
    """The options of `PolicyOptions`, made by `option`, which is click.Option with a `section`."""
    return [
        option(
            ["--policy"],
            section="Model",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            help="Take the model from a policy directory's current version.",
        ),
        option(
            ["--follow"],
            section="Model",
            is_flag=True,
            help="With --policy: go on with a new version as soon as there is one, when the samples under way have "
            "ended.",
        ),
    ]


def sampling_options(option: Callable[..., click.Option], *, temperature: float = 1.0) -> list[click.Option]:
    """The options of `SamplingOptions`, made by `option`, which is click.Option with a `section`.

    `temperature` is the default of that option.
    """

    def make(name: str, kind: click.ParamType[Any], default: float, text: str) -> click.Option:
        return option([name], section="Model", type=kind, default=default, show_default=True, help=text)

    return [
        make("--temperature", click.FloatRange(min=0), temperature, "Temperature of sampling; 0 is greedy."),
        make(
            "--top-p",
            click.FloatRange(min=0, max=1, min_open=True),
            1.0,
            "Sample from the likeliest tokens of this much probability.",
        ),
        make("--top-k", click.IntRange(min=0), 0, "Sample from this many likeliest tokens; 0 is all."),
    ]


def model_options(option: Callable[..., click.Option]) -> list[click.Option]:
    """The options, made by `option`, which is click.Option with a `section`."""
    in_section = partial(option, section="Model")

    def make(*names: str, **settings: Any) -> click.Option:
        return in_section(list(names), **settings)

    return [
        make(
            "--model",
            default="embedded",
            show_default=True,
            metavar="NAME",
            help="A Hugging Face folder or hub id, a .gguf file, or `embedded`: SmolLM2-135M-Instruct, good for "
            "format and plumbing, not for facts. For a server, the name it knows the model by.",
        ),
        make(
            "--backend",
            type=click.Choice(["auto", "hf", "vllm", "openai", "scripted"]),
            default="auto",
            show_default=True,
            help="What runs the model. auto: openai with --base-url, vllm where CUDA and vLLM are, else hf "
            "(transformers in process).",
        ),
        make("--base-url", metavar="URL", help="An OpenAI-compatible server, for example http://127.0.0.1:8000/v1."),
        device_option(in_section),
        dtype_option(in_section),
        make(
            "--batch-size",
            type=click.IntRange(min=1),
            help="Sequences at a time; chosen from the memory when not given.",
        ),
        make(
            "--max-tokens",
            type=click.IntRange(min=1),
            default=8192,
            show_default=True,
            help="Longest sequence, prompt and all, in tokens.",
        ),
        make(
            "--tokenizer",
            metavar="NAME",
            help="Folder or hub id of the tokenizer, for a server whose token ids are wanted.",
        ),
        make(
            "--concurrency",
            type=click.IntRange(min=1),
            default=16,
            show_default=True,
            help="Requests under way at a server at a time.",
        ),
        make(
            "--timeout",
            type=click.FloatRange(min=0, min_open=True),
            default=120.0,
            show_default=True,
            help="Seconds to wait for a server's answer.",
        ),
        make(
            "--api-key-file",
            type=click.Path(),
            metavar="FILE",
            help="File with the server's key; else TOOLROLL_API_KEY or OPENAI_API_KEY. Never given on the command "
            "line.",
        ),
        trust_option(in_section),
    ]


#: What may be chosen in this process, for `local_options`: the default, and the help.
ANY_MODEL = (
    "embedded",
    "A language or image-text model: a Hugging Face folder, a hub id, a .gguf file, or `embedded`, of texts alone.",
)
IMAGE_TEXT_MODEL = (
    "sprite",
    "An image-text model: a Hugging Face folder or hub id, or `sprite`, the embedded one.",
)


def local_options(option: Callable[..., click.Option], models: tuple[str, str]) -> list[click.Option]:
    """The options of `LocalOptions`, made by `option`, which is click.Option with a `section`."""
    in_section = partial(option, section="Model")
    default, text = models
    return [
        in_section(["--model"], default=default, show_default=True, metavar="NAME", help=text),
        device_option(in_section),
        dtype_option(in_section),
        images_option(in_section),
        trust_option(in_section),
    ]
