# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Videos, images and frames to `pixel_values_videos`."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, Literal, cast

import numpy as np
import torch
import torchvision.transforms.v2.functional as tvF
from huggingface_hub.dataclasses import validate_typed_dict
from PIL import Image
from torch import Tensor
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import (
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
    ChannelDimension,
    PILImageResampling,
    SizeDict,
    infer_channel_dimension_format,
)
from transformers.processing_utils import Unpack, VideosKwargs
from transformers.utils import logging
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata, make_batched_metadata

from .configuration_checks import PROCESSOR_RANGES, check_ranges
from .media import (
    MediaError,
    MediaLimits,
    MediaSource,
    media_source,
    one_at_a_time,
    open_source,
    read_frames,
    read_image,
    segment_indices,
    source_name,
)


logger = logging.get_logger(__name__)

MAX_GROWTH = 2
"""`read` leaves frames to `prepare` that take at most so many times the bytes of prepared ones."""

PIXELS_AT_ONCE = {"cpu": 2**19}
"""Frames are resized together up to so many pixels, by the type of the device; elsewhere up to 2**23, 100 MB of floats."""


class ValorVideoProcessorKwargs(VideosKwargs, total=False):
    r"""sampling (`str`, *optional*, defaults to `"center"`):
        Which frame of each of the `num_frames` segments is taken: its `"center"` or a `"random"` one, for training.
    generator (`torch.Generator` or `int`, *optional*):
        Source, or seed, of the random numbers of `sampling`, `crop_scale` and `do_flip`.
    crop_scale (`tuple[float, float]`, *optional*):
        For training: cut a random square out of each video, the same out of all its frames, whose share of the frame's
        area lies between these, and resize it. Where no such square fits, as with wide frames, it is the largest one in
        the centre. The 2023 recipes use (0.8, 1.0).
    do_flip (`bool`, *optional*, defaults to `False`):
        Whether to mirror every second video, at random and as a whole.
    antialias (`bool`, *optional*, defaults to `True`):
        Whether resizing averages over the pixels that it skips. The 2023 code did not.
    media_limits (`dict`, *optional*):
        Which sources are accepted and what may be spent on them, where that is not the default of [`MediaLimits`], such
        as `{"public_only": True}`.
    backend (`str`, *optional*):
        The reader of video files: `"pyav"` (the default), `"torchcodec"` or `"decord"`. The latter two read only files
        of which they are known to give the right frames; PyAV reads the others, which is said once.
    """

    sampling: Literal["center", "random"] | None
    generator: torch.Generator | int | None
    crop_scale: tuple[float, float] | list[float] | None
    do_flip: bool | None
    antialias: bool | None
    media_limits: MediaLimits | dict[str, Any] | None
    backend: Literal["pyav", "torchcodec", "decord"] | None


class ValorVideoProcessor(BaseVideoProcessor):
    r"""Samples `num_frames` frames of each video, resizes them (to `size`, or its shorter edge and a centre crop), and
    normalises them.

    ```python
    >>> processor = ValorVideoProcessor(num_frames=8)
    >>> processor("clip.mp4", return_tensors="pt").pixel_values_videos.shape
    torch.Size([1, 8, 3, 224, 224])
    ```

    Frames are chosen by the rule of the 2023 code: the centres of equal segments; a video of fewer frames repeats its
    last one. `ValorVideoProcessor(antialias=False)` is the resizing of the 2023 checkpoints, which
    `size={"shortest_edge": 224}` with `do_center_crop=True`, or the default size, complete.
    """

    resample = PILImageResampling.BILINEAR
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    size = {"height": 224, "width": 224}
    crop_size = {"height": 224, "width": 224}
    do_resize = True
    do_center_crop = False
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    do_sample_frames = True
    crop_scale = None
    do_flip = False
    num_frames = 8
    sampling = "center"
    antialias = True
    media_limits = None
    backend = None
    model_input_names = ["pixel_values_videos"]
    valid_kwargs = ValorVideoProcessorKwargs

    def __init__(self, **kwargs: Unpack[ValorVideoProcessorKwargs]):
        super().__init__(**kwargs)
        check_ranges(self, PROCESSOR_RANGES)
        self.media_limits = MediaLimits.checked(self.media_limits)

    def preprocess(self, videos: Any, **kwargs: Any) -> BatchFeature:
        """Gives `pixel_values_videos` (B, F, 3, H, W) float32, and `frame_mask` (B, F) bool where a frame is missing.

        Args:
            videos: one video or a list of videos. A video is a file, as [`open_source`] takes it, or an entry of a
                `datasets` column; a folder of extracted frames; an array or tensor (F, H, W, C) or (F, C, H, W); a list
                of frames (images or arrays) or of image files; a pair of these frames and their `VideoMetadata`; a
                `VideoDecoder` of torchcodec or `VideoReader` of decord, sampled by frame number; a single image, which
                is one frame; or `None`, a missing video: zeros, and False in `frame_mask`. A list of images or of
                arrays of three dimensions is one video, as everywhere in transformers: put it in a list to make it a
                batch. Next to longer videos, an image is padded with zeros. A folder of videos is a collection, of
                which `list_media` gives the files.
            num_frames (`int`, *optional*): frames per video. A video that has fewer repeats its last one.
            do_sample_frames (`bool`, *optional*): `False` keeps all frames of arrays and lists of frames. Files,
                folders and decoders are always sampled.
            fps (`float`, *optional*): instead of `num_frames`, for arrays with `video_metadata`.

        Raises:
            NoVideoError: a file with sound only.
            MediaError: a file that cannot be read, named.
            ValueError: input of another kind, or videos of different sizes where one tensor is asked for.
            TypeError: an argument of another name.
        """
        self._check(kwargs)
        return_tensors = kwargs.pop("return_tensors", None)
        return_metadata = self._option("return_metadata", kwargs)

        videos = _as_batch(videos)
        given: Any = kwargs.pop("video_metadata", None)
        given = [None] * len(videos) if given is None else make_batched_metadata(videos, given)
        loaded = [self._load(video, known, kwargs) for video, known in zip(videos, given, strict=True)]
        clips, metadata = zip(*loaded, strict=True)

        processed: Iterator[Tensor] = iter(())
        if present := [clip for clip in clips if clip is not None]:
            processed = iter(super().preprocess(present, **{**kwargs, **_AS_LOADED})["pixel_values_videos"])
        rows = [None if clip is None else next(processed) for clip in clips]
        data = self._join(rows, kwargs, as_tensor=return_tensors is not None)
        if return_metadata:
            data["video_metadata"] = list(metadata)
        return BatchFeature(data, tensor_type=return_tensors, skip_tensor_conversion=["video_metadata"])

    def read(self, video: Any, **kwargs: Any) -> Tensor | None:
        """The first half of `preprocess`, of one video: everything that reads, and everything that is random.

        Args:
            video, kwargs: as for `preprocess`.

        Returns:
            Frames as they were decoded, uint8 (F, 3, H, W), for `prepare`. Where these are none, or would take more than
            `MAX_GROWTH` times the bytes of prepared frames, the prepared ones, float32. None for a missing video.

        Raises:
            NoVideoError, MediaError, ValueError, TypeError: as `preprocess`.
        """
        self._check(kwargs)
        kwargs.pop("return_tensors", None)
        (video,) = _as_batch([video])
        frames, _ = self._load(video, None, {**kwargs, "keeps_small": True})
        if frames is None:
            return None
        scale, generator = self._option("crop_scale", kwargs), kwargs.get("generator")
        frames = _augmented(frames, self._option("do_flip", kwargs), scale, generator)
        is_raw = frames.dtype == torch.uint8 and frames.shape[1] == 3 and self._is_small(frames, kwargs)
        return frames.contiguous() if is_raw else self.prepare(frames, **kwargs)

    def prepare(self, frames: Tensor, **kwargs: Any) -> Tensor:
        """The second half of `preprocess`: resizes, crops and normalises what `read` gave, on the device where it is.

        Args:
            frames: (F, 3, H, W); prepared ones, of floats, are returned as they are.
            kwargs: the same as those of `read`.

        Returns:
            float32 (F, 3, height, width).
        """
        if self._option("crop_scale", kwargs) is not None:  # a square was cut out
            kwargs = {**kwargs, "size": dict(zip(("height", "width"), self._output_size(kwargs), strict=True))}
            kwargs["do_center_crop"] = False
        kwargs = {name: value for name, value in kwargs.items() if name not in ("generator", "return_tensors")}
        done = {"do_flip": False, "crop_scale": None}
        prepared: Tensor = super().preprocess([frames], **{**kwargs, **_AS_LOADED, **done})["pixel_values_videos"][0]
        return prepared

    def _check(self, kwargs: dict[str, Any]) -> None:
        """Checks the arguments of a call, and makes a generator of a seed."""
        validate_typed_dict(cast(Any, self.valid_kwargs), kwargs)
        check_ranges(kwargs, PROCESSOR_RANGES)
        if isinstance(kwargs.get("generator"), int):
            kwargs["generator"] = torch.Generator().manual_seed(kwargs["generator"])

    def _is_small(self, picture: Tensor, kwargs: dict[str, Any]) -> bool:
        """Whether bytes of a picture (..., H, W) take little more than the floats that it is resized to."""
        height, width = self._output_size(kwargs)
        return picture.shape[-2] * picture.shape[-1] <= MAX_GROWTH * 4 * height * width

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: int | float | None = None,
        sampling: str | None = None,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Indices of the frames to take out of `metadata.total_num_frames`: one of each of `num_frames` equal segments.

        With `fps`, as many segments as that rate gives in the video's time, which `metadata.fps` must tell.
        """
        if fps is not None:
            if metadata.fps is None:
                raise ValueError(
                    "`fps` needs the frame rate of the video: pass it in `video_metadata`, or use `num_frames`."
                )
            num_frames = max(1, int(metadata.total_num_frames / metadata.fps * fps))
        wanted = self.num_frames if num_frames is None else num_frames
        return np.array(segment_indices(metadata.total_num_frames, wanted, sampling or self.sampling, generator))

    def _load(
        self, video: Any, metadata: VideoMetadata | None, kwargs: dict[str, Any]
    ) -> tuple[Tensor | None, VideoMetadata | None]:
        """The sampled frames of one video, (F, C, H, W), and where they are from; None for a missing video."""
        if video is None:
            return None, None
        if isinstance(video, (list, tuple)) and len(video) == 1:
            video = video[0]
        if (source := media_source(video)) is not None:
            return self._read(source, kwargs)
        if _is_decoder(video):
            return self._decode(video, kwargs)
        if has_metadata(video):
            metadata = VideoMetadata(total_num_frames=cast(int, None))  # until it is updated
            metadata.update(video[1])
            video = video[0]
        if isinstance(video, (list, tuple)) and video and None not in (sources := list(map(media_source, video))):
            return self._read_images(cast(list[MediaSource], sources), kwargs)

        frames = _as_frames(video, self._option("do_convert_rgb", kwargs), kwargs.get("input_data_format"))
        if frames.is_floating_point():
            _check_values(frames, self._option("do_rescale", kwargs))
        if _is_frame(video) or not self._option("do_sample_frames", kwargs):
            return frames, metadata or VideoMetadata(total_num_frames=len(frames))
        metadata, indices = self._sampled(metadata, len(frames), kwargs)
        return frames[torch.as_tensor(indices)], metadata

    def _read_images(self, sources: Sequence[MediaSource], kwargs: dict[str, Any]) -> tuple[Tensor, VideoMetadata]:
        """The sampled frames of a video that is a list of image files, each read once."""
        limits = self._option("media_limits", kwargs)
        metadata, indices = self._sampled(None, len(sources), kwargs)
        images: dict[int, Tensor] = {}
        for index in indices:
            if index not in images:
                with open_source(sources[index], limits) as file:
                    images[index] = read_image(file)
        return _stack([images[index] for index in indices]), metadata

    def _sampled(
        self, metadata: VideoMetadata | None, available: int, kwargs: dict[str, Any]
    ) -> tuple[VideoMetadata, list[int]]:
        """Which of the available frames are taken, and metadata that say where in the video they are from.

        The frames may be all of a video or, where its metadata count more, some of them at equal distances.
        """
        metadata = dataclasses.replace(metadata) if metadata else VideoMetadata(total_num_frames=available)
        total, numbers = metadata.total_num_frames or available, metadata.frames_indices
        if metadata.fps and not (isinstance(metadata.fps, Real) and metadata.fps > 0):
            raise ValueError(f"`fps` of a video's metadata must be a positive number, got {metadata.fps!r}.")
        fps = metadata.fps and metadata.fps * available / total
        choice = {name: kwargs.get(name) for name in ("num_frames", "fps", "sampling", "generator")}
        indices = self.sample_frames(VideoMetadata(total_num_frames=available, fps=fps), **choice).tolist()
        metadata.total_num_frames = total
        if numbers is not None and len(numbers) == available:
            metadata.frames_indices = [int(numbers[index]) for index in indices]
        else:
            metadata.frames_indices = indices
        return metadata, indices

    def _decode(self, decoder: Any, kwargs: dict[str, Any]) -> tuple[Tensor, VideoMetadata]:
        """Frames of a torchcodec or decord decoder, by their numbers."""
        rate = decoder.get_avg_fps() if hasattr(decoder, "get_avg_fps") else decoder.metadata.average_fps
        metadata, indices = self._sampled(VideoMetadata(len(decoder), fps=rate), len(decoder), kwargs)
        metadata.video_backend = type(decoder).__module__.partition(".")[0]
        metadata.duration = len(decoder) / rate if rate else None
        try:
            with one_at_a_time(decoder):
                if hasattr(decoder, "get_frames_at"):
                    frames = decoder.get_frames_at(indices).data
                else:
                    frames = decoder.get_batch(indices)
        except Exception as error:  # each decoder has its own
            raise MediaError(f"{source_name(decoder)} cannot be decoded: {error}.") from error
        frames = frames.asnumpy() if hasattr(frames, "asnumpy") else frames
        return _as_frames(frames, None, None), metadata

    def _read(self, source: MediaSource, kwargs: dict[str, Any]) -> tuple[Tensor, VideoMetadata]:
        if kwargs.get("fps") is not None:
            raise ValueError("`fps` samples arrays with `video_metadata`; for files use `num_frames`.")
        sizes = []

        def shrink(picture: Tensor) -> Tensor:
            sizes.append(picture.shape[-2:])
            is_kept = kwargs.get("keeps_small") and self._is_small(picture, kwargs)
            return picture if is_kept else self._resized(picture, kwargs)

        with open_source(source, self._option("media_limits", kwargs)) as file:
            video = read_frames(
                file,
                self._option("num_frames", kwargs),
                sampling=self._option("sampling", kwargs),
                generator=kwargs.get("generator"),
                backend=self._option("backend", kwargs),
                # A random square is cut out first
                shrink=shrink
                if self._option("do_resize", kwargs) and not self._option("crop_scale", kwargs)
                else None,
            )
        height, width = sizes[0] if sizes else video.frames.shape[-2:]
        metadata = VideoMetadata(
            total_num_frames=video.num_available,
            fps=video.num_available / video.duration if video.duration else None,
            height=height,
            width=width,
            duration=video.duration,
            video_backend=video.backend,
            frames_indices=video.indices,
        )
        return video.frames, metadata

    def _resized(self, picture: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """A picture (3, H, W) as `_preprocess` resizes it, which then leaves it as it is."""
        names = ("size", "resample", "antialias", "default_to_square")
        options = self._standardize_kwargs(**{name: self._option(name, kwargs) for name in names})
        return self.resize(
            picture.float(), options["size"], resample=options["resample"], antialias=options["antialias"]
        )

    def _option(self, name: str, kwargs: dict[str, Any]) -> Any:
        """What was asked for in the call, or else the processor's own setting."""
        return getattr(self, name) if kwargs.get(name) is None else kwargs[name]

    def _preprocess(
        self,
        videos: list[Tensor],
        do_resize: bool,
        size: SizeDict,
        resample: PILImageResampling | int | None,
        antialias: bool,
        do_center_crop: bool,
        crop_size: SizeDict,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: float | list[float] | None,
        image_std: float | list[float] | None,
        do_flip: bool,
        crop_scale: tuple[float, float] | None = None,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        clips = []
        for clip in videos:
            clip = _augmented(clip, do_flip, crop_scale, generator)
            if crop_scale is not None:
                size, do_center_crop = SizeDict(**_frame_size(size, crop_size, do_center_crop)), False
            if do_resize:
                # Of float pixels, as in 2023, and a few at a time, as float frames take four times the memory.
                pixels = PIXELS_AT_ONCE.get(clip.device.type, 2**23)
                few = max(1, pixels // (clip.shape[-2] * clip.shape[-1]))
                clip = torch.cat(
                    [
                        self.resize(frames.float(), size, resample=resample, antialias=antialias)
                        for frames in clip.split(few)
                    ]
                )
            if do_center_crop:
                clip = self.center_crop(clip, crop_size)
            clips.append(
                self.rescale_and_normalize(
                    clip.float(), do_rescale, rescale_factor, do_normalize, image_mean, image_std
                )
            )
        return BatchFeature({"pixel_values_videos": clips})

    def center_crop(self, image: Tensor, size: SizeDict, **kwargs: Any) -> Tensor:
        """The centre of an image, padded where it is smaller; half a pixel is rounded as torchvision rounds it."""
        return tvF.center_crop(image, [size.height, size.width])

    def _join(self, rows: list[Tensor | None], kwargs: dict[str, Any], as_tensor: bool) -> dict[str, Any]:
        """Rows (F, 3, H, W) of one batch, lengthened with zeros, and the mask that tells these from frames."""
        present = [row for row in rows if row is not None]
        if len({row.shape[1:] for row in present}) > 1:
            if as_tensor or len(present) < len(rows) or len({len(row) for row in present}) > 1:
                sizes = sorted({tuple(row.shape[-2:]) for row in present})
                raise ValueError(
                    f"The videos have different sizes {sizes} after resizing. Give `size` a height and a width, or crop "
                    "them with `do_center_crop`, to put them in one batch."
                )
            return {"pixel_values_videos": present}
        length = max(map(len, present), default=self._option("num_frames", kwargs))
        template = present[0] if present else torch.zeros(1, 3, *self._output_size(kwargs))
        pixels = template.new_zeros(len(rows), length, *template.shape[1:])
        mask = torch.zeros(len(rows), length, dtype=torch.bool, device=pixels.device)
        for index, row in enumerate(rows):
            if row is not None:
                pixels[index, : len(row)] = row
                mask[index, : len(row)] = True
        return {"pixel_values_videos": pixels} if mask.all() else {"pixel_values_videos": pixels, "frame_mask": mask}

    def _output_size(self, kwargs: dict[str, Any]) -> tuple[int, int]:
        """Height and width of frames that are not there; a square where they would depend on the frames."""
        names = ("size", "crop_size", "do_center_crop", "default_to_square")
        options = self._standardize_kwargs(**{name: self._option(name, kwargs) for name in names})
        size = _frame_size(options["size"], options["crop_size"], options["do_center_crop"])
        return size["height"], size["width"]


_AS_LOADED = {"do_sample_frames": False, "input_data_format": ChannelDimension.FIRST, "return_metadata": False}
"""Options for frames that are sampled already, (F, C, H, W)."""


def _augmented(
    clip: Tensor, do_flip: bool, crop_scale: tuple[float, float] | None, generator: torch.Generator | None
) -> Tensor:
    """A clip (F, C, H, W) mirrored and cut out at random, where that is asked for."""
    if do_flip and torch.rand((), generator=generator) < 0.5:
        clip = clip.flip(-1)
    return clip if crop_scale is None else random_square(clip, crop_scale, generator)


def random_square(clip: Tensor, scale: tuple[float, float], generator: torch.Generator | None = None) -> Tensor:
    """A square part of a clip (F, C, H, W) at random, with a share of its area between the two of `scale`."""
    height, width = clip.shape[-2:]
    largest = min(height, width)
    for _ in range(10):
        share, across, down = torch.rand(3, generator=generator).tolist()
        side = round(math.sqrt((scale[0] + share * (scale[1] - scale[0])) * height * width))
        if 0 < side <= largest:
            top, left = int(down * (height - side + 1)), int(across * (width - side + 1))
            return clip[..., top : top + side, left : left + side]
    return tvF.center_crop(clip, [largest, largest])


def _frame_size(size: SizeDict, crop_size: SizeDict | None, do_center_crop: bool | None) -> dict[str, Any]:
    """Height and width of the frames that come out; a square where they would depend on what goes in."""
    size = crop_size if do_center_crop and crop_size is not None else size
    edge = size.shortest_edge or size.longest_edge
    return {"height": size.height or edge, "width": size.width or edge}


def _as_batch(videos: Any) -> list:
    """One entry per video."""
    if isinstance(videos, (np.ndarray, Tensor)) and videos.ndim == 5:
        return list(videos)
    if not isinstance(videos, (list, tuple)) or has_metadata(videos):
        return [videos]
    if not videos:
        raise ValueError("No video was given: the list is empty. Pass `None` for a sample without a video.")
    return [videos] if all(map(_is_frame, videos)) else list(videos)


def _is_decoder(video: Any) -> bool:
    return hasattr(video, "__len__") and (hasattr(video, "get_frames_at") or hasattr(video, "get_avg_fps"))


def has_metadata(video: Any) -> bool:
    """Whether a video is a pair of frames and what they are from, as `transformers.video_utils.load_video` gives it."""
    if not isinstance(video, (list, tuple)) or len(video) != 2:
        return False
    frames, metadata = video
    is_metadata = isinstance(metadata, Mapping) and "array" not in set(metadata) and media_source(metadata) is None
    return is_metadata and isinstance(frames, (np.ndarray, Tensor, list, tuple))


def _is_frame(frame: Any) -> bool:
    return isinstance(frame, Image.Image) or (isinstance(frame, (np.ndarray, Tensor)) and frame.ndim in (2, 3))


def _as_frames(video: Any, do_convert_rgb: bool | None, data_format: str | ChannelDimension | None) -> Tensor:
    """An array, a list of frames or one frame as a tensor (F, C, H, W)."""
    if _is_frame(video):
        video = [video]
    if isinstance(video, (list, tuple)) and video and all(map(_is_frame, video)):
        if isinstance(video[0], Image.Image):
            data_format = ChannelDimension.LAST
            video = [np.array(image.convert("RGB") if do_convert_rgb else image) for image in video]
        video = _stack([_as_tensor(frame) for frame in video])
        video = video[..., None] if video.ndim == 3 and data_format == ChannelDimension.LAST else video
        video = video[:, None] if video.ndim == 3 else video
    if not isinstance(video, (np.ndarray, Tensor)) or video.ndim != 4 or 0 in video.shape:
        shape = f" of shape {tuple(video.shape)}" if hasattr(video, "shape") else ""
        raise ValueError(
            f"A video cannot be made of {type(video).__name__}{shape}. Give a file, a folder of frames, an array or tensor "
            "(F, H, W, C) or (F, C, H, W), a list of images, an image, or `None` for a missing video; sound by itself is "
            '`(waveform, rate)` or `{"audio": ...}`.'
        )
    video = _as_tensor(video)
    data_format = data_format or infer_channel_dimension_format(video, num_channels=(1, 3, 4))
    return video.permute(0, 3, 1, 2) if data_format == ChannelDimension.LAST else video


def _check_values(frames: Tensor, do_rescale: bool) -> None:
    """Refuses frames of floats that are not finite, and says once where they seem to be rescaled already."""
    lowest, highest = frames.aminmax()
    if not (lowest.isfinite() and highest.isfinite()):
        raise ValueError(
            "The frames of a video hold NaN or infinite values. Repair them, or pass `None` in their place."
        )
    if do_rescale and (highest <= 1 or lowest < 0):
        logger.warning_once(
            f"Frames of floats between 0 and 255 are expected, but these lie between {lowest:.3g} and {highest:.3g}: if "
            "they are rescaled already, pass `do_rescale=False`."
        )


def _as_tensor(array: np.ndarray | Tensor) -> Tensor:
    """A tensor of its own memory, as NumPy's may run backwards or be read-only."""
    return torch.from_numpy(np.array(array, order="C")) if isinstance(array, np.ndarray) else array


def _stack(frames: list[Tensor]) -> Tensor:
    if len({frame.shape for frame in frames}) > 1:
        shapes = sorted({tuple(frame.shape) for frame in frames})
        raise ValueError(f"The frames of a video must be of one size, but these have the shapes {shapes}.")
    return torch.stack(frames)


__all__ = ["ValorVideoProcessor"]
