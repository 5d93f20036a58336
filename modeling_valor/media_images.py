# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Still images, and animations and folders of frames as videos."""

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps

from .media_limits import MediaError, reason
from .media_sources import LocalFile, MediaSource, list_frame_files, open_source


MAX_IMAGE_PIXELS = 2**28
"""The largest image that is decoded; the photographs of large cameras have up to 180 million pixels."""

_IMAGE_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")


@dataclass
class VideoFrames:
    """The chosen frames of one video, image or folder of frames.

    `frames` is uint8 RGB of shape (F, 3, H, W), upright. `timestamps` are the frames' times in seconds from the first
    frame. `indices` are frame numbers out of `num_available` where the rate is constant; otherwise steps of a grid that
    cuts the video into as many equal time steps as it has frames. `duration` is in seconds, `backend` names the reader,
    and `decoded` says how many frames it decoded to get these, where it can tell.
    """

    frames: torch.Tensor
    timestamps: list[float]
    indices: list[int]
    num_available: int
    duration: float
    backend: str
    decoded: int | None = None


def read_image(source: MediaSource) -> torch.Tensor:
    """A still image as uint8 RGB (3, H, W), upright by its EXIF orientation; the first frame of an animated one.

    Transparency is dropped, as `PIL.Image.convert("RGB")` does.

    Raises:
        MediaError: not an image, a truncated one, or one of more than `MAX_IMAGE_PIXELS` or the limit of memory, which
            is not decoded.
    """
    with open_source(source) as path:
        name = path.name
        image = None if os.path.isdir(path) else open_image(path, name)
        if image is None:
            empty = os.path.isfile(path) and os.path.getsize(path) == 0
            raise MediaError(f"{name} is {'empty' if empty else 'not an image that can be read'}.")
        with image, damage_of_image(name):
            return _image_tensor(image)


def open_image(path: LocalFile, name: str) -> Image.Image | None:
    """The image at `path`, its header read; None for a file of another kind."""
    try:
        with path.budget.charged(), damage_of_image(name):
            image = Image.open(path, formats=_IMAGE_FORMATS)
    except Image.UnidentifiedImageError:
        return None
    try:
        if image.width * image.height > MAX_IMAGE_PIXELS:
            raise MediaError(too_large(name, image.width, image.height, MAX_IMAGE_PIXELS))
        check_memory(path, image.width, image.height)
    except MediaError:
        image.close()
        raise
    return image


def check_memory(path: LocalFile, width: int, height: int, count: int = 1) -> None:
    """Checks that `count` pictures of this size fit into the memory that the file may take.

    Raises:
        MediaError: pictures of this size, in RGB, need more memory than the file may take.
    """
    what = f"a picture of {width} x {height}" if count == 1 else f"{count} pictures of {width} x {height}"
    path.budget.check_memory(3 * width * height * count, what)


@contextlib.contextmanager
def damage_of_image(name: str) -> Iterator[None]:
    """Makes a `MediaError` of what Pillow raises, except for files that are no images."""
    try:
        yield
    except (Image.UnidentifiedImageError, MediaError):
        raise
    except Exception as error:  # PIL raises whatever a broken file leads it to
        raise MediaError(f"{name} cannot be read as an image: {reason(error)}.") from error


def too_large(name: str, width: int, height: int, limit: int) -> str:
    return f"{name} measures {width} x {height}, more than the limit of {limit} pixels."


def _image_tensor(image: Image.Image) -> torch.Tensor:
    image.load()  # some formats have their EXIF data at the end
    # PIL would copy what is upright, and RGB, already
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def read_image_frames(path: LocalFile, image: Image.Image, choose: Callable[[int], list[int]]) -> VideoFrames:
    """A still image as one frame; an animation as a video, sampled by frame number."""
    available, step = animation(path, image)
    indices = choose(available) if available > 1 else [0]
    wanted = list(dict.fromkeys(indices))
    check_memory(path, image.width, image.height, len(indices))
    return VideoFrames(
        frames=stack_pictures(path, zip(wanted, animation_pictures(path, image, wanted), strict=True), indices),
        timestamps=[index * step for index in indices],
        indices=indices,
        num_available=available,
        duration=available * step if available > 1 else 0.0,
        backend="pillow",
        decoded=len(wanted),
    )


def stack_pictures(
    path: LocalFile, pictures: Iterable[tuple[int, torch.Tensor]], indices: Sequence[int]
) -> torch.Tensor:
    """Numbered pictures (3, H, W) of one size as frames (F, 3, H, W), without holding all of them a second time.

    Raises:
        MediaError: the frames, of which many may be the same picture, need more memory than the file may take.
    """
    frames: Any = None  # until there is a picture
    rows: defaultdict[int, list[int]] = defaultdict(list)
    for row, index in enumerate(indices):
        rows[index].append(row)
    for number, picture in pictures:
        if frames is None:
            check_memory(path, picture.shape[2], picture.shape[1], len(indices))
            frames = picture.new_empty(len(indices), *picture.shape)
        for row in rows[number]:
            np.copyto(frames[row].numpy(), picture.numpy())  # torch would share so little work among threads
    return frames


def animation(path: LocalFile, image: Image.Image) -> tuple[int, float]:
    """Number of frames of an animation (GIF, WebP, PNG) and the time between them in seconds; 1 for a still image."""
    with path.budget.charged():
        # Of the other formats, further pictures are pages, previews or the other eye's.
        available = getattr(image, "n_frames", 1) if image.format in ("GIF", "WEBP", "PNG") else 1
    return available, image.info.get("duration", 0) / 1000 or 0.1


def animation_pictures(path: LocalFile, image: Image.Image, indices: Iterable[int]) -> Iterator[torch.Tensor]:
    """Frames of an animation, fastest by ascending numbers."""
    for index in indices:
        with path.budget.charged():
            if image.tell() > index:
                image.seek(0)
            while image.tell() < index:
                image.seek(image.tell() + 1)  # each is drawn over the one before
                path.budget.check_time()
        yield _image_tensor(image)


def read_folder(folder: LocalFile, choose: Callable[[int], list[int]]) -> VideoFrames:
    """Frames out of a folder of extracted ones, a second apart; only the chosen files are opened."""
    files = list_frame_files(folder)
    indices = choose(len(files))
    wanted = list(dict.fromkeys(indices))

    def pictures() -> Iterator[tuple[int, torch.Tensor]]:
        shape = None
        for index in wanted:
            path = str(files[index])
            picture = read_image(LocalFile(path, path, folder.budget.limits))
            shape = shape or picture.shape
            if picture.shape != shape:
                raise MediaError(
                    f"{folder.name} holds images of different sizes, and a folder is read as the frames of one video: "
                    "give the images by themselves, if they are not."
                )
            yield index, picture

    return VideoFrames(
        frames=stack_pictures(folder, pictures(), indices),
        timestamps=[float(index) for index in indices],
        indices=indices,
        num_available=len(files),
        duration=float(len(files)),
        backend="pillow",
        decoded=len(wanted),
    )
