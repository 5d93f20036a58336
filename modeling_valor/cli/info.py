# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor info`: versions, devices, decoding backends that work, and installed extras."""

import importlib.metadata
import json
import platform
import tempfile
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import torch
from packaging.requirements import Requirement

from ..media_container import Track, open_container, survey
from ..media_video import BACKENDS
from .arguments import Json, new_app


PACKAGES = ("modeling-valor", "transformers", "torch", "torchvision", "torchaudio", "av", "torchcodec", "decord")

app = new_app()


@app.command()
def info(as_json: Json = False) -> int:
    """Show versions, devices, decoding backends that work, and installed extras; put it into a report of a fault."""
    found = describe_installation()
    if as_json:
        print(json.dumps(found))
        return 0
    for title, content in found.items():
        print(f"{title}: {content}" if isinstance(content, str) else f"{title}:")
        for name, value in content.items() if isinstance(content, dict) else ():
            print(f"  {name}: {value}")
    return 0


def describe_installation() -> dict[str, Any]:
    """What `valor info` shows: title -> text, or name -> text."""
    return {
        "python": f"{platform.python_version()} on {platform.platform()}",
        "packages": {name: version_of(name) or "not installed" for name in PACKAGES},
        "ffmpeg libraries of av": {
            name: ".".join(map(str, version)) for name, version in sorted(av.library_versions.items())
        },
        "devices": describe_devices(),
        "decoding backends": describe_backends(),
        "extras": describe_extras(),
    }


def version_of(package: str) -> str | None:
    """The version of an installed distribution."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def describe_devices() -> dict[str, str]:
    """Name of each device that `--device` takes -> what it is."""
    devices = {"cpu": f"{platform.machine()}, {torch.get_num_threads()} threads"}
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return devices
    for index in range(torch.accelerator.device_count()):
        name = f"{accelerator.type}:{index}"
        devices[name] = name
        if accelerator.type == "cuda":
            properties = torch.cuda.get_device_properties(index)
            devices[name] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return devices


def describe_backends() -> dict[str, str]:
    """Each decoding backend -> "works" or what it fails with, on a small video that is written for this."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "video.mp4"))
        _write_video(path)
        with open_container(path, path) as container:
            track = cast(Track, survey(container, container.streams.video[0], path, path, head=32))
            for name, read in BACKENDS.items():
                try:
                    read(track, [0.1])
                    found[name] = "works"
                except ModuleNotFoundError:
                    found[name] = "not installed"
                except Exception as error:  # other libraries raise whatever they like
                    found[name] = f"fails: {' '.join(str(error).split())[:200]}"
    return found


def _write_video(path: str) -> None:
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))))
        container.mux(stream.encode())


def describe_extras() -> dict[str, str]:
    """Each extra of this package -> "installed", or what lacks of it."""
    metadata = importlib.metadata.metadata("modeling-valor")
    requirements = [Requirement(text) for text in importlib.metadata.requires("modeling-valor") or []]
    extras = {}
    for extra in metadata.get_all("Provides-Extra") or []:
        wanted = {
            requirement.name
            for requirement in requirements
            if requirement.marker
            and requirement.marker.evaluate({"extra": extra})
            and not requirement.marker.evaluate({"extra": ""})
        }
        missing = sorted(name for name in wanted if version_of(name) is None)
        extras[extra] = f"lacks {', '.join(missing)}" if missing else "installed"
    return extras
