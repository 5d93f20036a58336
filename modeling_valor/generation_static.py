# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Decoding steps over tensors of fixed size and place, which a GPU repeats as one CUDA graph (`cache_implementation="static"`).

A step of decoding is many small kernels: launched from Python one by one, they leave a GPU idle most of the time. As a
CUDA graph they are launched together. A graph reads and writes the same places in memory at every replay, so here the
keys and values of all words have places from the start, and [MASK] gives its place to the next word.
"""

import functools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.utils import logging
from transformers.utils.output_capturing import OutputRecorder

from .configuration_valor import CAPTIONING_GROUPS
from .modeling_valor_text import ConditionCache, ValorConditions, ValorTextLayer


if TYPE_CHECKING:
    from .modeling_valor_decoder import ValorDecoderModel

logger = logging.get_logger(__name__)

GRAPH_DEVICE = "cuda"

COLLECTING_HOOKS = OutputRecorder.__module__
"""Of hooks that collect attentions and hidden states: they stay once these were asked for, and do nothing otherwise."""

MAX_GRAPHS = 2
"""CUDA graphs that are kept for each model, with the keys and values that they read: the last two shapes of a batch."""

_RECORDING = Lock()
"""CUDA records one graph of a process at a time."""


@functools.cache
def recording_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of a device in which its graphs are recorded: one for all, because cuBLAS keeps memory for each stream."""
    return torch.cuda.Stream(device)


def in_default_stream(device: torch.device) -> bool:
    """Whether work goes to the stream in which graphs run: in one stream they may share memory of cuBLAS, and be freed."""
    return torch.cuda.current_stream(device) == torch.cuda.default_stream(device)


def is_hooked(module: nn.Module) -> bool:
    """Whether more happens, or something else, when the module is called than its class says."""
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return "forward" in vars(module) or any(getattr(hook, "__module__", None) != COLLECTING_HOOKS for hook in hooks)


class WordSlots(Cache):
    """Keys and values of prompt and words, (layers, 2, rows, heads, slots, head_dim); a step fills the slots at `position`."""

    def __init__(self, words: DynamicCache, slots: int, width: int) -> None:
        super().__init__(layers=[])
        filled = torch.stack([torch.stack([layer.keys, layer.values]) for layer in cast(Any, words.layers)])
        length = filled.shape[-2]
        self.states = F.pad(filled, (0, 0, 0, slots - length))
        self.position = torch.arange(length, length + width, device=filled.device)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self.states[layer_idx]
        keys.index_copy_(2, self.position, key_states)
        values.index_copy_(2, self.position, value_states)
        return keys, values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self.states.copy_(self.states.index_select(2, beam_idx))


class StaticSteps:
    """The steps of decoding after the first one: each runs the newest word and [MASK], (rows, 2) ids, to logits.

    Everything that a step reads or writes is a tensor made here, so that a step can be recorded and repeated.

    Args:
        model: the head that decodes.
        cache: of the first step, without [MASK].
        words: words that a text may have, [CLS] included.
        conditions, group: what is attended to, as in `forward`.
        prompt: ids and mask of the prompt or the question, as the head's `text_prompt` returns them.
    """

    def __init__(
        self,
        model: "ValorDecoderModel",
        cache: EncoderDecoderCache,
        words: int,
        conditions: ValorConditions,
        group: str,
        prompt: tuple[torch.Tensor | None, torch.Tensor | None],
    ) -> None:
        self.text_model, self.lm_head = model.valor.text_model, model.lm_head
        self.length = cache.get_seq_length()
        filled = cast(Any, cache.self_attention_cache).layers[0].keys
        rows, width = filled.shape[0], 2 if model.config.captioning_objective == "masked" else 1
        self.input_ids = torch.zeros(rows, width, dtype=torch.long, device=filled.device)

        is_merged = self.text_model.config.cross_attention_type == "merge"
        merged, attended = (conditions, None) if is_merged else (None, conditions)
        groups = [CAPTIONING_GROUPS[group]]
        self.prefix_length, self.prefix_mask = self.text_model.prefix_mask(*prompt, merged, groups, rows)
        # Longer texts are refused, and kernels of masked attention want rows of a multiple of 8
        words = min(words, self.text_model.config.max_position_embeddings)
        slots = -(-(self.prefix_length + words + 1) // 8) * 8
        self.plan = None
        if attended is not None:
            states = filled.new_empty(rows, width, self.text_model.config.hidden_size)
            self.plan = self.text_model.plan_cross_attention(attended, groups, states)
        self.words = WordSlots(cache.self_attention_cache, slots, width)
        self.cache = EncoderDecoderCache(self.words, cache.cross_attention_cache)
        self.cache.is_updated = cache.is_updated
        self.logits: torch.Tensor | None = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.recorded_as: tuple[Any, ...] = ()

    def __call__(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Logits of the next word, (rows, 1, vocab_size), which the next call overwrites."""
        # Positions are looked up on the device, where one too many would be no readable error
        self.text_model.check_length(self.length - self.prefix_length + self.input_ids.shape[1])
        self.input_ids.copy_(input_ids)
        if self.graph is None:
            self.run()
        else:
            self.graph.replay()
        self.length += 1
        return cast(torch.Tensor, self.logits)

    def run(self) -> None:
        """One step, of operations on tensors only: nothing here may wait for a value or depend on one."""
        position, states = self.words.position, self.words.states
        hidden_states = self.text_model.embeddings(self.input_ids, position - self.prefix_length)
        slots = torch.arange(states.shape[-2], device=states.device)
        allowed = (slots <= position[:, None])[None]
        if self.prefix_mask is not None:
            after = slots.shape[0] - self.prefix_length
            allowed = allowed & F.pad(self.prefix_mask, (0, after), value=True)[:, None]
        mask = torch.zeros(allowed.shape, dtype=hidden_states.dtype, device=hidden_states.device)
        mask = mask.masked_fill(~allowed, torch.finfo(mask.dtype).min)[:, None]
        for layer in cast(Sequence[ValorTextLayer], self.text_model.layers):
            hidden_states = layer(
                hidden_states,
                *[None for _ in (self.plan.blocks if self.plan is not None else ())],
                attention_mask=mask,
                cross_attention_plan=self.plan,
                cache=self.cache,
                is_causal=True,
            )
        self.logits = self.lm_head(hidden_states[:, -1:])
        position.add_(1)

    def tensors(self) -> Iterator[torch.Tensor]:
        """Everything that a step reads, but for the weights."""
        yield from (self.input_ids, self.words.states, self.words.position)
        for layer in cast(Any, self.cache.cross_attention_cache).layers:
            yield from (layer.keys, layer.values)
        steps = [step for group in self.plan.groups for step in group] if self.plan is not None else []
        optional = [self.prefix_mask, *(mask for step in steps for mask in (step.attention_mask, step.present))]
        yield from (cast(torch.Tensor, mask) for mask in optional if mask is not None)

    def weights(self) -> Iterator[torch.Tensor]:
        for module in (self.text_model, self.lm_head):
            yield from module.parameters()
            yield from module.buffers()

    def signature(self) -> tuple[Any, ...]:
        """Steps of equal signatures differ in the values of their tensors only."""
        plan = None
        if self.plan is not None:
            plan = [
                [(step.block, step.tokens, step.attention_mask is None, step.present is None) for step in group]
                for group in self.plan.groups
            ]
        shapes = [(tuple(tensor.shape), tensor.stride(), tensor.dtype) for tensor in self.tensors()]
        weights = [(weight.data_ptr(), weight.dtype, weight.shape, weight.stride()) for weight in self.weights()]
        modes = (
            self.text_model.config._attn_implementation,
            # `torch.get_float32_matmul_precision` raises an error where this was set
            torch.backends.cuda.matmul.fp32_precision,
            torch.is_inference_mode_enabled(),
        )
        return repr(plan), self.prefix_length, self.prefix_mask is None, *modes, *shapes, *weights

    def take(self, other: "StaticSteps") -> None:
        """Goes on where `other`, of an equal signature, is."""
        torch._foreach_copy_(list(self.tensors()), list(other.tensors()))
        self.text_model, self.lm_head = other.text_model, other.lm_head
        self.length = other.length

    def release_modules(self) -> None:
        """Leaves the modules out, which keep these steps: a model that refers to itself is not freed with its last name."""
        del self.text_model, self.lm_head

    def record(self) -> None:
        """Records a step as a CUDA graph; the next steps launch it."""
        start = self.words.position.clone()
        current, side = torch.cuda.current_stream(start.device), recording_stream(start.device)
        # Selects the device of the model, and its stream again where recording fails
        with _RECORDING, torch.cuda.stream(current):
            side.wait_stream(current)
            with torch.cuda.stream(side):
                for _ in range(2):  # what is allocated, chosen or compiled at a first run must not be recorded
                    self.run()
                    self.words.position.copy_(start)
            current.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Other threads may prepare the next batch
            with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                self.run()
        self.graph = graph

    def can_be_recorded(self) -> bool:
        """Whether a CUDA graph of a step would be right, and stay right as long as the signature is the same."""
        if torch.is_autocast_enabled(GRAPH_DEVICE):
            return False
        own = ("torch.nn.", "transformers.", __name__.rpartition(".")[0] + ".")
        for module in (*self.text_model.modules(), *self.lm_head.modules()):
            # Only Python runs hooks, and modules that are not ours, such as adapters, may be switched off
            if module.training or is_hooked(module) or not type(module).__module__.startswith(own):
                return False
        tensors = [*self.weights(), *self.tensors()]
        if not all(type(tensor.data) is torch.Tensor for tensor in tensors):  # sharded or quantised
            return False
        devices = {tensor.device for tensor in tensors}
        (device,) = devices if len(devices) == 1 else (torch.device("meta"),)
        return device.type == GRAPH_DEVICE and in_default_stream(device)


class DecodingGraphs:
    """The last CUDA graphs of a model's steps, by signature. One that is in use is not here, and copies of a model have none."""

    def __init__(self) -> None:
        self.steps: OrderedDict[tuple[Any, ...], StaticSteps] = OrderedDict()
        self.failed: set[int] = set()
        """Hashes of the signatures of steps that could not be recorded."""
        self.lock = Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> "DecodingGraphs":
        return DecodingGraphs()

    def __reduce__(self) -> tuple[type["DecodingGraphs"], tuple[()]]:
        return DecodingGraphs, ()

    def record(self, steps: StaticSteps) -> StaticSteps:
        """Steps with a CUDA graph that go on where `steps` are; those given, without one, where that fails."""
        signature = steps.signature()
        with self.lock:
            kept = self.steps.pop(signature, None)
        if kept is not None:
            kept.take(steps)
            return kept
        if hash(signature) in self.failed:
            return steps
        start = steps.words.position.clone()
        try:
            steps.record()
            steps.recorded_as = signature
        except RuntimeError as error:
            self.failed.add(hash(signature))
            steps.words.position.copy_(start)
            reason = str(error).strip().split("\n")[0]
            logger.warning_once(f"Decoding runs without a CUDA graph, which is slower: {reason}")
        return steps

    def keep(self, steps: StaticSteps) -> None:
        """Keeps steps that are done for the next `generate`."""
        steps.release_modules()
        with self.lock:
            self.steps[steps.recorded_as] = steps
            while len(self.steps) > MAX_GRAPHS:
                self.steps.popitem(last=False)


def graphs_of(text_model: nn.Module) -> DecodingGraphs:
    return cast(DecodingGraphs, text_model.__dict__.setdefault("_decoding_graphs", DecodingGraphs()))


class StaticDecodingCache(EncoderDecoderCache):
    """The cache of `cache_implementation="static"`: dynamic at first, [`StaticSteps`] after the first step.

    With ways of decoding that call the model themselves it stays dynamic, so they work as with any other cache.

    max_words (`int`): words that a text may have, [CLS] included.
    may_record (`bool`): whether the steps may become a CUDA graph.
    """

    max_words: int
    may_record: bool

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(DynamicCache(config=config), ConditionCache())
        self.steps: StaticSteps | None = None

    def start(self, model: "ValorDecoderModel", *inputs: Any) -> StaticSteps:
        """The steps that go on from here, as a CUDA graph where that is possible."""
        self.steps = StaticSteps(model, self, self.max_words, *inputs)
        if self.may_record and self.steps.can_be_recorded():
            self.steps = graphs_of(self.steps.text_model).record(self.steps)
        # The steps have both; here they would only take memory
        self.self_attention_cache, self.cross_attention_cache = DynamicCache(), ConditionCache()
        return self.steps

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return super().get_seq_length(layer_idx) if self.steps is None else self.steps.length

    def crop(self, tokens_to_remove: int) -> None:
        if self.steps is None:  # a static step leaves [MASK] out by itself
            super().crop(tokens_to_remove)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        if self.steps is None:
            super().reorder_cache(cast("torch.LongTensor", beam_idx))
        else:
            self.steps.words.reorder_cache(beam_idx)

    def close(self) -> None:
        """Gives a recorded graph to the next `generate` of the model."""
        if self.steps is not None and self.steps.graph is not None:
            graphs_of(self.steps.text_model).keep(self.steps)
        self.steps = None


__all__ = ["StaticDecodingCache", "StaticSteps", "is_hooked"]
