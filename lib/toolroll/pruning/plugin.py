"""The plug-in: carries out a plan on a transformers model that is loaded, and takes itself out again.

It hangs on what transformers offers: an attention function of its own, forward hooks, and the cache's layers. No
weight is copied or changed. In a pass with images

    the attention      looks at what the plan leaves, for text and for visual queries apart (`attention`)
    q, k, v, o         are computed for visual tokens in active heads only (`linear`)
    the net            for visual tokens in its first neurons only (`linear`)
    layers from a cut  get text tokens only; the last norm gives zeros in the place of the others

and in every later pass, of a token or of another prompt, the cache holds for each layer what it may look at.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Self, cast

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from toolroll.errors import RowError, ToolrollError
from toolroll.pruning.attention import Heads, View, heads_of, kept, split_heads
from toolroll.pruning.authors import simulated
from toolroll.pruning.cached import Held, KeptLayer, Memory, Record, SplitLayer, split
from toolroll.pruning.choosing import chosen, looked_at
from toolroll.pruning.linear import sliced_net, split_input, split_output
from toolroll.pruning.plan import Plan
from toolroll.pruning.spans import SIZES, Marks, image_token, marked_again
from toolroll.pruning.stages import between, their_own, turns_of
from toolroll.pruning.support import PROJECTIONS, parts_of, window_of
from toolroll.pruning.tokens import Stage, first_stage

_IMAGES = ("pixel_values", "image_hidden_states", "mm_encoder_outputs")  # without them, no token is visual
NAME = "vprune"  #: of the attention function among those of transformers


class Pass:
    """One call of the model: its stages so far, and the memories that these add to."""

    def __init__(self, record: Record, plan: Plan, stage: Stage) -> None:
        self.record, self.plan = record, plan
        self.views = [self._view(0, stage)]
        self.scores: Tensor | None = None  # how much the text looks at each token of the stage, for a drop

    def add(self, stage: Stage) -> None:
        """The next stage begins."""
        self.views.append(self._view(len(self.views), stage))

    def _view(self, number: int, stage: Stage) -> View:
        self.record.memories[number].read(stage)
        return View(stage, self.record.memories[number], self.plan, first=self.record.seen == 0)


class Pruner:
    """A plan at work on a model. Use as a context manager, or `remove` it.

    Raises ToolrollError for a model or a plan that cannot be (see `support`). One plan at a time on a model. Not for
    several threads. `now` is the pass under way, or the last one.
    """

    def __init__(self, model: Any, plan: Plan) -> None:
        self.parts = parts_of(model, plan)
        self.plan = plan.checked(self.parts.shape)
        shape, device = self.parts.shape, next(self.parts.text.parameters()).device
        self.heads: list[Heads] = [heads_of(plan.active(i, shape), shape.group, device) for i in range(shape.layers)]
        self.window = window_of(self.parts.text.config)
        self.turns = turns_of(plan, shape.layers)
        self.stage_of = [sum(layer >= turn for turn in self.turns) for layer in range(shape.layers)]
        self.now: Pass | None = None
        self._sizes: dict[str, Any] = {}  # of the images last encoded: `generate` does that before the first pass
        self._undo: list[Callable[[], None]] = []
        if any(hasattr(layer.self_attn, NAME) for layer in self.parts.layers):
            raise ToolrollError("the model is pruned already", place=type(model).__name__)
        self._install()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Take it out: the model is what it was."""
        for undo in reversed(self._undo):
            undo()
        self._undo, self.now = [], None

    def splits(self, layer: int) -> bool:
        """Whether a layer's attention is not the model's own: it has a window, or heads that see no visual tokens."""
        if self.stage_of[layer] or self.plan.softmax == "authors":
            return False
        return self.plan.window is not None or not self.heads[layer].all_active

    # --- in and out

    def _install(self) -> None:
        parts = self.parts
        before = parts.text.config._attn_implementation
        if before not in ("sdpa", "eager"):
            raise ToolrollError(f"its attention is {before}; load it with sdpa", place=type(parts.model).__name__)
        AttentionInterface.register(NAME, attend)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        parts.model.set_attn_implementation({parts.text_key: NAME})
        self._undo.append(lambda: parts.model.set_attn_implementation({parts.text_key: before}))
        self._hook(parts.inner.register_forward_pre_hook(self._begin, with_kwargs=True))
        self._hook(parts.inner.register_forward_hook(self._end))
        if hasattr(parts.inner, "get_image_features"):
            self._undo.append(lambda: delattr(parts.inner, "get_image_features"))
            parts.inner.get_image_features = self._encoding(parts.inner.get_image_features)
        for number, layer in enumerate(parts.layers):
            setattr(layer.self_attn, NAME, self)
            self._undo.append(functools.partial(delattr, layer.self_attn, NAME))
            if self.stage_of[number]:
                self._hook(layer.register_forward_pre_hook(self._later(number), with_kwargs=True))
            if self.plan.softmax == "renorm" and not self.stage_of[number] and not self.heads[number].all_active:
                for name in PROJECTIONS:
                    self._replace(getattr(layer.self_attn, name), self._projection(number, name))
            if self.plan.ffn != 1:
                self._replace(layer.mlp, self._net(number))
        if self.turns:
            self._hook(parts.text.norm.register_forward_pre_hook(self._whole))

    def _hook(self, handle: Any) -> None:
        self._undo.append(handle.remove)

    def _replace(
        self, module: Any, make: Callable[[Any, Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]
    ) -> None:
        module.forward = make(module, module.forward)
        self._undo.append(lambda: delattr(module, "forward"))

    def _encoding(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        names = inspect.signature(encode)

        @functools.wraps(encode)
        def noted(*args: Any, **kwargs: Any) -> Any:
            given = names.bind_partial(*args, **kwargs).arguments
            self._sizes = {name: given[name] for name in SIZES if given.get(name) is not None}
            return encode(*args, **kwargs)

        return noted

    # --- a pass

    def _begin(
        self, inner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        names = inspect.signature(inner.forward).parameters
        given = dict(zip(names, args, strict=False)) | kwargs
        ids, embedded = given.get("input_ids"), given.get("inputs_embeds")
        if ids is None:
            raise ToolrollError("a pruned model needs input_ids, to know which tokens are visual")
        if embedded is not None:
            raise ToolrollError("a pruned model takes input_ids, not embeddings")
        kwargs = dict(given)
        cache_name = "cache" if "cache" in names else "past_key_values"
        record = self._record(kwargs, cache_name, ids)
        mask = kwargs.get("attention_mask")
        if mask is not None and (not isinstance(mask, Tensor) or mask.ndim != 2):
            raise ToolrollError("a pruned model needs a mask of tokens, [B, T]")
        own = None if mask is None else mask[:, -ids.shape[1] :]
        marks = self._marks(ids, own, kwargs)
        batch, tokens = ids.shape
        if self.window is not None and record.seen + tokens > self.window:
            why = f"{record.seen + tokens} tokens are more than the {self.window} that its layers look back"
            raise RowError(f"{why}, within which alone it can be pruned")
        stage = first_stage(marks, batch, tokens, record.seen, own, ids.device)
        self.now = Pass(record, self.plan, stage)
        if not stage.any_visual:
            for _ in self.turns:
                self.now.add(stage)
        return (), kwargs

    def _marks(self, ids: Tensor, mask: Tensor | None, given: dict[str, Any]) -> Marks | None:
        config = self.parts.model.config
        pictured = any(given.get(name) is not None for name in _IMAGES)
        if not (self.plan.prunes and pictured) or not bool((ids == image_token(config)).any()):
            return None
        marks = marked_again(
            config, ids, mask, self._sizes | {name: one for name, one in given.items() if one is not None}
        )
        return marks if bool(marks.visual.any()) else None

    def _record(self, kwargs: dict[str, Any], name: str, ids: Tensor) -> Record:
        cache = kwargs.get(name)
        if cache is None and self._caches(kwargs):
            cache = kwargs[name] = DynamicCache(config=self.parts.text.config)
        fresh = Record([Memory(ids.shape[0], ids.device) for _ in range(len(self.turns) + 1)])
        if cache is None:
            return fresh
        if type(cache) is not DynamicCache:
            raise ToolrollError(f"a pruned model needs a DynamicCache, not a {type(cache).__name__}")
        found = getattr(cache, NAME, None)
        if isinstance(found, tuple) and cache.layers and cache.layers[0] is found[0].layers[0]:
            record, plan = found
            if plan != self.plan:
                raise ToolrollError("the cache was begun under another plan")
            return cast("Record", record)
        if cache.get_seq_length():
            raise ToolrollError("the cache was begun without the plan")
        leads = [0, *self.turns]
        cache.layers = [self._layer(fresh, number, number in leads) for number in range(len(self.parts.layers))]
        fresh.layers = cache.layers
        cache.layer_class_to_replicate = None
        setattr(cache, NAME, (fresh, self.plan))
        return fresh

    def _caches(self, kwargs: dict[str, Any]) -> bool:
        wanted = kwargs.get("use_cache")
        text = self.parts.text
        checkpointing = text.training and getattr(text, "gradient_checkpointing", False)
        return bool(getattr(text.config, "use_cache", True) if wanted is None else wanted) and not checkpointing

    def _layer(self, record: Record, number: int, leads: bool) -> KeptLayer:
        stage = self.stage_of[number]
        if not self.splits(number):
            return KeptLayer(record, stage, leads)
        heads = self.heads[number]
        return SplitLayer(record, stage, leads, heads.used.index, heads.others.index, lambda: self._view(number).stage)

    def _end(self, _inner: Any, _args: Any, _output: Any) -> None:
        if self.now is not None:
            self.now.record.seen += self.now.views[0].stage.tokens

    def _view(self, layer: int) -> View:
        assert self.now is not None
        return self.now.views[self.stage_of[layer]]

    # --- a layer that visual tokens do not enter, or only some

    def _later(self, number: int) -> Callable[..., Any]:
        stage = self.stage_of[number]

        def before(_layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            assert self.now is not None
            hidden = args[0] if args else kwargs["hidden_states"]
            if len(self.now.views) == stage:
                last = self.now.views[-1].stage
                self.now.add(chosen(last, self.plan, number, self.now.scores))
                hidden = between(hidden, last, self.now.views[-1].stage)
            view = self.now.views[stage]
            kwargs = {**kwargs, **their_own(view.stage, kwargs)}
            if args:
                return (hidden, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hidden}

        return before

    def _whole(self, _norm: Any, args: tuple[Any, ...]) -> Any:
        """Hidden states [B, T, d] of the last stage as those of all tokens, 0 where they were not computed."""
        assert self.now is not None
        first, last = self.now.views[0].stage, self.now.views[-1].stage
        if last.index is None:
            return args
        hidden = args[0]
        made = hidden.new_zeros(hidden.shape[0], first.tokens, hidden.shape[2])
        rows = torch.arange(hidden.shape[0], device=hidden.device)[:, None].expand_as(last.index)
        sound = last.cells.valid
        made[rows[sound], last.index[sound]] = hidden[sound]
        return (made, *args[1:])

    # --- parts of a layer

    def _projection(
        self, number: int, name: str
    ) -> Callable[[Any, Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]:
        heads, dim = self.heads[number], self.parts.shape.head_dim
        chosen_heads = (heads.used if name in ("k_proj", "v_proj") else heads.active).index
        inside = torch.arange(dim, device=chosen_heads.device)
        columns = (chosen_heads[:, None] * dim + inside).flatten()
        compute = split_input if name == "o_proj" else split_output

        def make(layer: Any, whole: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            def forward(x: Tensor) -> Tensor:
                stage = self._view(number).stage
                return compute(x, layer, stage, columns) if stage.any_visual else whole(x)

            return forward

        return make

    def _net(self, number: int) -> Callable[[Any, Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]:
        neurons = self.plan.neurons(self.parts.shape)

        def make(net: Any, whole: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            def forward(x: Tensor) -> Tensor:
                stage = self._view(number).stage
                return sliced_net(x, net, stage, neurons) if stage.any_visual else whole(x)

            return forward

        return make


def attend(
    module: Any,
    query: Tensor,
    key: Any,
    value: Any,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls: [B, T, Hq, D] of queries [B, Hq, T, D]."""
    pruner: Pruner = getattr(module, NAME)
    layer: int = module.layer_idx
    view = pruner._view(layer)
    settings = {"dropout": dropout, "scaling": scaling, **others}
    if pruner.plan.softmax == "authors":
        made = simulated(view, pruner.plan, layer, query, key, value, attention_mask, dropout, scaling)
        return (
            (made, None)
            if made is not None
            else sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        )
    if pruner.splits(layer):
        heads = pruner.heads[layer]
        held = key if isinstance(key, Held) else split(key, value, view.stage, heads.used.index, heads.others.index)
        if not isinstance(key, Held):
            held.plain = (key, value)
        return split_heads(view, heads, query, held, attention_mask, dropout, scaling), None
    if layer + 1 in pruner.turns and pruner.plan.drops and view.stage.any_visual:
        assert pruner.now is not None
        pruner.now.scores = looked_at(view, query, key, scaling, pruner.parts.shape.group)
    if pruner.stage_of[layer]:
        return kept(module, view, query, key, value, **settings)
    made_so: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    return made_so
