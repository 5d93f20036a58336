# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Checkpoint files read without running code or filling the memory, and folders written whole or not at all."""

import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from .options import ConversionError


def read_checkpoint(file: str | PathLike[str]) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` or a PyTorch file by name, without running code from it and without reading them yet.

    Raises:
        `ConversionError`: the file is missing, empty, cut off, holds pickled code, or is something else.
    """
    file = Path(file)
    if file.suffix == ".safetensors":
        check_is_checkpoint(file)
        try:
            return safetensors.torch.load_file(file)
        except Exception as error:
            raise _unreadable(file, "safetensors", error) from error
    state_dict = read_torch_file(file)
    if not isinstance(state_dict, Mapping) or not all(isinstance(value, Tensor) for value in state_dict.values()):
        raise ConversionError(f"The checkpoint {file} is no dictionary of tensors, as the 2023 program saves it.")
    return dict(state_dict)


def read_torch_file(file: str | PathLike[str]) -> Any:
    """What `torch.save` wrote, mapped into memory where the file is of PyTorch's present format.

    Raises:
        `ConversionError`: the file is missing, empty, cut off, holds pickled code or packed data, or is something else.
    """
    file = Path(file)
    check_is_checkpoint(file)
    try:
        packed = zipfile.is_zipfile(file)
        if packed:
            _check_directory(file)
        return torch.load(file, map_location="cpu", weights_only=True, mmap=packed or None)
    except ConversionError:
        raise
    except pickle.UnpicklingError as error:
        raise ConversionError(
            f"The checkpoint {file} is no file of tensors: it is cut off, or holds pickled code, which is never run."
        ) from error
    except Exception as error:
        raise _unreadable(file, "PyTorch", error) from error


def check_is_checkpoint(file: Path) -> None:
    """Raises a `ConversionError` for a file that is missing, empty, or begins like no file of tensors."""
    if not file.is_file() or file.stat().st_size == 0:
        raise ConversionError(f"The checkpoint {file} {'is empty' if file.is_file() else 'does not exist'}.")
    with file.open("rb") as opened:
        start = opened.read(9)
    # PyTorch's zip archives and its pickles of before 1.6; safetensors have eight bytes of length and JSON
    if file.suffix != ".safetensors" and not start.startswith((b"PK", b"\x80")) and start[8:] != b"{":
        raise ConversionError(f"{file} is no checkpoint: it is neither a PyTorch nor a safetensors file.")


def _check_directory(file: Path) -> None:
    """PyTorch stores tensors as they are; what is packed, or overlaps, could fill any memory when it is read."""
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    if packed or unpacked > file.stat().st_size:
        raise ConversionError(
            f"The checkpoint {file} has {file.stat().st_size / 1e6:,.1f} MB and would unpack to {unpacked / 1e6:,.1f} MB: "
            "PyTorch writes tensors unpacked. Save it again with `torch.save`."
        )


def _unreadable(file: Path, kind: str, error: Exception) -> ConversionError:
    reason = str(error).split("\n")[0]
    return ConversionError(f"The checkpoint {file} cannot be read as {kind} data, it may be cut off: {reason}")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder of this process to write to, whose files are moved to `folder` when the block ends well.

    What an error leaves is removed, and `folder` is as it was before.

    Raises:
        `ConversionError`: the disk is full or read-only, or the folder not this user's.
    """
    folder = folder.absolute()
    hidden = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        hidden.mkdir(parents=True)
        yield hidden
        folder.mkdir(exist_ok=True)
        written = sorted(hidden.iterdir())
        for stale in set(folder.glob("model*.safetensors*")) - {folder / file.name for file in written}:
            stale.unlink()
        for file in written:
            os.replace(file, folder / file.name)
    except (OSError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise ConversionError(
            f"The output folder {folder} cannot be written: {reason}. Free some space or choose another folder; nothing "
            "was written."
        ) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


__all__ = ["read_checkpoint", "read_torch_file", "whole_folder"]
