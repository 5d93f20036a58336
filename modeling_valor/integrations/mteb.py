# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""VALOR as a model of mteb, the benchmark of embedding models, with its own score in place of a dot product.

    encoder = ValorEncoder("hub_configs/valor-tiny")
    mteb.evaluate(encoder, mteb.get_tasks(tasks=["VALOR32KT2VARetrieval"]))

mteb asks a model for an array of each side of a task, and ranks by the model's `similarity` of both. For tasks that rank, an
array holds the tokens of eq. 3, packed into one row for each item, and `similarity` is the model's own score of the modality
group that the columns of the task make: text against video and audio is t-av. Other tasks, such as classification by a
linear probe, get the mean of the tokens with their weights of eq. 3.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Audio, Video
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers.utils import logging


try:
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ScoringFunction
    from mteb.types import PromptType
except ImportError as error:
    raise ImportError('The benchmark needs mteb: pip install "modeling-valor[mteb]"') from error

from ..alignment import TokenSet, fine_similarity
from ..configuration_valor import ALIGNMENT_GROUPS, MEDIA, MODALITIES
from ..evaluation.models import evaluating
from ..evaluation.options import TEXT_LENGTH
from ..evaluation.runner import check_model, version_of
from ..modeling_valor import ValorModel
from ..modeling_valor_base import to_device
from ..processing_valor import ValorProcessor
from ..text_cleaning import clean_caption


__all__ = ["AbsTaskRetrieval", "RetrievalSplitData", "TaskMetadata", "ValorEncoder"]

logger = logging.get_logger(__name__)

Side = dict[str, tuple[Tensor, Tensor]]
"""The items of one side: for each modality tokens, (N, L, C), and which of them are there, (N, L) bool."""

ROWS_PER_BLOCK, COLUMNS_PER_BLOCK = 512, 8192
NAMES = tuple(modality.name for modality in MODALITIES)
GROUP_OF_SIDES = {
    (frozenset([query]), frozenset(candidates)): group for group, (query, candidates) in ALIGNMENT_GROUPS.items()
}


@dataclass(frozen=True)
class EncoderOptions:
    """What of each item is used.

    Args:
        num_frames, num_audio_clips: of each video and sound; None: the numbers of the checkpoint's processor.
        max_length: longest text, in tokens; longer ones are cut, with a warning.
    """

    num_frames: int | None = None
    num_audio_clips: int | None = None
    max_length: int = TEXT_LENGTH


class ValorEncoder(AbsEncoder):
    """A VALOR checkpoint as `mteb.evaluate` takes it.

    Videos and sounds are read by the checkpoint's processor, from the files of a task's columns: the frames and clips are
    those of `valor evaluate`. Instructions of tasks are not used. An encoded text of 40 tokens takes 80 kB of memory, a
    video with its sound 2 kB for each frame and audio clip.

    Args:
        model_name: folder or Hub name of a checkpoint.
        revision: of a checkpoint on the Hub.
        device, dtype: where and in which type it computes; by default an accelerator if there is one, and the checkpoint's
            own type. Scores are computed in the same type.
        training_datasets: names of mteb's tasks that the checkpoint was trained on, for its column "zero-shot".
        options: those of [`EncoderOptions`].

    Raises:
        ValueError: there is no such checkpoint.
    """

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        device: str | torch.device | None = None,
        *,
        dtype: torch.dtype | str | None = None,
        training_datasets: set[str] | None = None,
        **options: Any,
    ):
        check_model(model_name)
        self.options = EncoderOptions(**options)
        hub = {} if revision is None else {"revision": revision}
        device = device or torch.accelerator.current_accelerator(check_available=True) or "cpu"
        self.processor = ValorProcessor.from_pretrained(model_name, **hub)
        loaded: Any = ValorModel.from_pretrained(model_name, dtype=dtype, **hub)
        self.model: ValorModel = loaded.to(device=device).eval()
        changed = {
            name: value for name, value in asdict(self.options).items() if value != getattr(EncoderOptions, name)
        }
        if dtype is not None:
            changed["dtype"] = str(dtype).removeprefix("torch.")
        self.mteb_model_meta = self._meta(model_name, training_datasets, changed)

    def _meta(self, model_name: str, training_datasets: set[str] | None, changed: dict[str, Any]) -> ModelMeta:
        """What mteb keeps results under: another revision or other options have results of their own."""
        parameters = list(self.model.parameters())
        is_folder = Path(model_name).is_dir()
        return ModelMeta(
            loader=None if is_folder else cast(Any, type(self)),
            name=f"local/{Path(model_name).resolve().name}" if is_folder else model_name,
            revision=version_of(model_name, self.model),
            release_date=None,
            languages=["eng-Latn"],
            n_parameters=sum(parameter.numel() for parameter in parameters),
            n_embedding_parameters=self.model.get_input_embeddings().weight.numel(),
            memory_usage_mb=sum(parameter.nbytes for parameter in parameters) / 2**20,
            max_tokens=self.options.max_length,
            embed_dim=self.model.config.projection_dim,
            license=None,
            open_weights=None if is_folder else True,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch", "Transformers"],
            reference=None if is_folder else f"https://huggingface.co/{model_name}",
            similarity_fn_name=ScoringFunction.CUSTOM,
            use_instructions=False,
            training_datasets=training_datasets,
            modalities=["text", "video", "audio"],
            model_type=["late-interaction"],
            experiment_kwargs=changed or None,
        )

    def encode(
        self,
        inputs: DataLoader[Any],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Encodes the items of one side of a task by the modalities among its columns.

        Returns:
            On the CPU, float32: for tasks that rank (N, T * (C + 1)), T tokens of C numbers and a mark each, as
            `similarity` takes them; for other tasks (N, C), L2-normalised.

        Raises:
            ValueError: no column is text, video or audio, one is an image, or a file cannot be read.
        """
        dataset: Any = inputs.dataset
        columns = dataset.features
        names = [name for name in NAMES if name in columns]
        if not names or "image" in columns:
            raise ValueError(
                f"{task_metadata.name} has the columns {', '.join(columns)}; VALOR embeds text, video and audio."
            )
        loader: DataLoader[Any] = DataLoader(
            _undecoded(dataset),
            batch_size=kwargs.get("batch_size") or inputs.batch_size,
            collate_fn=_Collator(self.processor, names, self.options),
            num_workers=inputs.num_workers,
        )
        progress = tqdm(loader, desc=" and ".join(names), disable=not kwargs.get("show_progress_bar", True))
        finish = self._pack if ranks(task_metadata.type) else self._pool
        encoded, empty = [], 0
        with evaluating(self.model):
            for count, batch in progress:
                side = self._embed(count, batch, names)
                empty += count - int(_is_present(side).sum())
                encoded.append(finish(side).float().cpu())
        if empty:
            logger.warning(
                f"{task_metadata.name}: {empty} of {len(dataset)} items have no {' and no '.join(names)}. They are "
                "ranked last."
            )
        return torch.cat(encoded)

    def _embed(self, count: int, batch: Mapping[str, Tensor], names: Sequence[str]) -> Side:
        """Tokens of a batch; of a modality that no item of it has, a token that is not there."""
        weight = self.model.text_projection.weight
        batch = to_device(batch, weight.device, weight.dtype)
        side: Side = {}
        for modality in MODALITIES:
            if modality.name not in names:
                continue
            if modality.input not in batch:
                absent = torch.zeros(count, 1, dtype=torch.bool, device=weight.device)
                side[modality.name] = weight.new_zeros(count, 1, self.model.config.projection_dim), absent
                continue
            inputs, mask = batch[modality.input], batch.get(modality.mask)
            embeds = getattr(self.model, f"get_{modality.name}_embeds")(inputs, mask)
            present = (
                torch.ones(inputs.shape[:2], dtype=torch.bool, device=weight.device) if mask is None else mask.bool()
            )
            if modality.name == "video":
                present = cast(Tensor, self.model.encoded_frame_mask(present))
            if embeds.ndim == 2:  # coarse alignment: one vector for all tokens
                embeds, present = embeds[:, None], present.any(dim=1, keepdim=True)
            side[modality.name] = embeds, present
        return side

    def _pack(self, side: Side) -> Tensor:
        """One row for each item, of the same width for all items with these modalities, whatever the batch.

        The mark of a token is the number of its modality, negative where there is no token.
        """
        blocks = []
        for name, (embeds, present) in side.items():
            marks = torch.where(present, 1.0, -1.0).to(embeds.device) * (NAMES.index(name) + 1)
            block = torch.cat([embeds.float() * present.unsqueeze(-1), marks.unsqueeze(-1)], dim=-1)
            missing = max(0, self._length(name) - block.shape[1])
            padding = F.pad(block.new_zeros(1, missing, block.shape[-1] - 1), (0, 1), value=-(NAMES.index(name) + 1.0))
            blocks.append(torch.cat([block, padding.expand(len(block), -1, -1)], dim=1))
        return torch.cat(blocks, dim=1).flatten(1)

    def _length(self, name: str) -> int:
        """Number of tokens of an item, at most, where the processor decides."""
        if self.model.config.alignment == "coarse":
            return 1
        if name == "text":
            return self.options.max_length
        if name == "audio":
            return self.options.num_audio_clips or self.processor.feature_extractor.num_audio_clips
        frames = torch.ones(1, self.options.num_frames or self.processor.video_processor.num_frames, dtype=torch.bool)
        return cast(Tensor, self.model.encoded_frame_mask(frames)).shape[1]

    def _unpack(self, rows: Tensor) -> Side:
        """What `_pack` made one row of, on the model's device."""
        weight = self.model.text_projection.weight
        tokens = rows.reshape(len(rows), -1, self.model.config.projection_dim + 1)
        marks = tokens[..., -1].round()
        side = {}
        for number, name in enumerate(NAMES, start=1):
            kept = marks[0].abs() == number
            if kept.any():
                side[name] = tokens[:, kept, :-1].to(weight), (marks[:, kept] > 0).to(weight.device)
        return side

    def _pool(self, side: Side) -> Tensor:
        """(N, C): the mean of all tokens of an item with their weights of eq. 3, L2-normalised."""
        tokens = torch.cat([embeds for embeds, _ in side.values()], dim=1)
        present = torch.cat([mask for _, mask in side.values()], dim=1)
        logits = torch.zeros_like(tokens[..., 0])
        if self.model.config.alignment == "fine":
            logits = torch.cat([self._token_weight(name)(embeds) for name, (embeds, _) in side.items()], dim=1)
        least = torch.finfo(logits.dtype).min
        weights = logits.masked_fill(~present, least).softmax(dim=1) * present
        return F.normalize((weights.unsqueeze(-1) * tokens).sum(dim=1), dim=-1)

    def _token_weight(self, name: str) -> torch.nn.Module:
        module: torch.nn.Module = getattr(self.model, f"{name}_token_weight")
        return module

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Scores of what `encode` returns for two sides: S of eq. 3 of their modality group, or the cosine of pooled vectors.

        Returns:
            (items of the first side, items of the second), float32, on the CPU; -inf for an item that lacks all of its modalities.

        Raises:
            ValueError: with coarse alignment, the sides are not those of a modality group.
        """
        first, second = (torch.as_tensor(rows) for rows in (embeddings1, embeddings2))
        if first.ndim == 1 or second.ndim == 1:
            return self.similarity(first.reshape(-1, first.shape[-1]), second.reshape(-1, second.shape[-1]))
        if first.shape[1] == self.model.config.projection_dim:
            return first.float() @ second.float().mT
        scores = torch.empty(len(first), len(second))
        with evaluating(self.model):
            for columns in _slices(len(second), COLUMNS_PER_BLOCK):
                candidates = self._unpack(second[columns])
                for rows in _slices(len(first), ROWS_PER_BLOCK):
                    scores[rows, columns] = self._score(self._unpack(first[rows]), candidates)
        return scores

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Scores of the pairs of items in the same places, (N,)."""
        pairs = zip(torch.as_tensor(embeddings1), torch.as_tensor(embeddings2), strict=True)
        return torch.cat([self.similarity(*pair)[0] for pair in pairs])

    def _score(self, queries: Side, candidates: Side) -> Tensor:
        """(queries, candidates), by the modality group of the sides, read in either direction."""
        for rows, columns in ((queries, candidates), (candidates, queries)):
            group = GROUP_OF_SIDES.get((frozenset(rows), frozenset(columns)))
            if group is not None and (self.model.config.alignment == "fine" or rows.keys() == {"text"}):
                scores = self._group_score(group, {**rows, **columns})
                return scores if rows is queries else scores.mT
        names = [" and ".join(side) for side in (queries, candidates)]
        if self.model.config.alignment == "coarse":
            raise ValueError(f"With coarse alignment, {names[0]} cannot be compared with {names[1]}.")
        logger.warning_once(
            f"{names[0]} against {names[1]} is no modality group of the paper: eq. 3 is computed for all their tokens."
        )
        return fine_similarity(self._token_sets(queries), self._token_sets(candidates))

    def _group_score(self, group: str, modalities: Side) -> Tensor:
        embeds, masks = {}, {}
        for modality in MODALITIES:
            if modality.name in modalities:
                tokens, masks[modality.mask] = modalities[modality.name]
                embeds[f"{modality.name}_embeds"] = tokens if self.model.config.alignment == "fine" else tokens[:, 0]
        return self.model.compute_similarities([group], **embeds, **masks)[group]

    def _token_sets(self, side: Side) -> list[TokenSet]:
        zero = self.model.config.padded_similarity == "zero"
        return [
            TokenSet(embeds, present, self._token_weight(name)(embeds), zero_padding=zero and name == "text")
            for name, (embeds, present) in side.items()
        ]


@dataclass(frozen=True)
class _Collator:
    """Rows of a task -> inputs of the model, in the process that loads them."""

    processor: ValorProcessor
    names: Sequence[str]
    options: EncoderOptions

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> tuple[int, dict[str, Tensor]]:
        """Number of rows, and the inputs."""
        inputs: dict[str, Tensor] = {}
        if "text" in self.names:
            if missing := [row.get("id") for row in rows if not isinstance(row["text"], str)]:
                raise ValueError(f"Row {missing[0]} has no text.")
            texts = [clean_caption(row["text"]) for row in rows]
            inputs.update(self.processor(text=texts, max_length=self.options.max_length, return_tensors="pt"))
        if not {"video", "audio"}.isdisjoint(self.names):
            inputs.update(self.processor.pad([self._read(row) for row in rows]))
        return len(rows), inputs

    def _read(self, row: Mapping[str, Any]) -> dict[str, Tensor]:
        """Frames and sound of a row, as far as there are any."""
        given = {modality: row[modality.name] for modality in MEDIA if row.get(modality.name) is not None}
        if not given:
            return {}
        sources = {"videos" if modality.name == "video" else "audio": [part] for modality, part in given.items()}
        options = {name: getattr(self.options, name) for name in ("num_frames", "num_audio_clips")}
        options = {name: value for name, value in options.items() if value is not None}
        options["modalities"] = "".join(sorted(modality.letter for modality in given))
        try:
            # With a text it is no error that a file has no such track
            read = self.processor(text="", **sources, **options, load_audio_from_video=False, return_tensors="pt")
        except Exception as error:
            raise ValueError(f"Row {row.get('id')} cannot be read: {error}") from error
        return {name: value for name, value in read.items() if name not in ("input_ids", "attention_mask")}


def ranks(task_type: str) -> bool:
    """Whether a task of this type of mteb only ranks by `similarity`, and needs no single vector of an item."""
    return task_type.lower().endswith(("retrieval", "reranking", "zeroshotclassification", "centricqa"))


def _is_present(side: Side) -> Tensor:
    """(N,) bool: whether an item has anything."""
    return torch.stack([present.any(dim=1) for _, present in side.values()]).any(dim=0)


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


def _undecoded(dataset: Any) -> Any:
    """The dataset with the files of its videos and sounds as they are: the processor decodes only what is used."""
    for name, kind in (("video", Video), ("audio", Audio)):
        if isinstance(dataset.features.get(name), kind):
            dataset = dataset.cast_column(name, kind(decode=False))
    return dataset
