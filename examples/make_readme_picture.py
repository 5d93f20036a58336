# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Writes README's picture: a frame and the sound of an example video, with what valor-tiny says about them.

    python examples/make_readme_picture.py

The texts are the model's own, generated when the picture is made.
"""

import argparse
import textwrap
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from transformers import pipeline

from modeling_valor import ValorProcessor


REPOSITORY = Path(__file__).resolve().parents[1]
VIDEO = REPOSITORY / "examples" / "media" / "clip-00000.mp4"
CHECKPOINT = REPOSITORY / "hub_configs" / "valor-tiny"
QUESTIONS = ("which shape is pink?", "what is heard just as the triangle and the cross collide?")
FRAME = 24
"""The frame that is shown: the two shapes collide."""

SIDE, MARGIN, WIDTH = 320, 24, 900
STRIP = 72
"""Height of the spectrogram in pixels."""

INK, GREY, PAPER = (30, 34, 42), (110, 116, 128), (255, 255, 255)


def read_frame(video: Path, index: int) -> Image.Image:
    """Frame `index` of a video file."""
    with av.open(str(video)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number == index:
                return frame.to_image()
    raise ValueError(f"{video} has no frame {index}.")


def draw_spectrogram(video: Path) -> Image.Image:
    """The log-mel spectrogram that the model gets of a video's sound, low frequencies at the bottom, in greys."""
    inputs = ValorProcessor.from_pretrained(CHECKPOINT)(videos=str(video), return_tensors="np")
    mel = inputs["input_features"][0, 0][::-1]
    low, high = np.percentile(mel, [2, 99.5])
    grey = 255 * (1 - np.clip((mel - low) / (high - low), 0, 1))
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def ask_model(video: Path) -> list[tuple[str, str]]:
    """(What the model was asked, what it wrote): its caption, and its answers to `QUESTIONS`."""
    captioner = pipeline("audiovisual-captioning", model=str(CHECKPOINT))
    answerer = pipeline("audiovisual-question-answering", model=str(CHECKPOINT))
    answers = [(question, answerer(str(video), question=question)[0]["answer"]) for question in QUESTIONS]
    return [("caption", captioner(str(video))[0]["generated_text"]), *answers]


def compose(frame: Image.Image, spectrogram: Image.Image, rows: list[tuple[str, str]]) -> Image.Image:
    """Frame above spectrogram on the left, one paragraph for each row on the right."""
    picture = Image.new("RGB", (WIDTH, SIDE + STRIP + 2 * MARGIN + 8), PAPER)
    picture.paste(frame.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (MARGIN, MARGIN))
    picture.paste(spectrogram.resize((SIDE, STRIP), Image.Resampling.LANCZOS), (MARGIN, MARGIN + SIDE + 8))
    draw = ImageDraw.Draw(picture)
    small, large = ImageFont.load_default(size=17), ImageFont.load_default(size=24)
    x, y = SIDE + 2 * MARGIN + 8, MARGIN
    for asked, written in rows:
        draw.text((x, y), asked, fill=GREY, font=small)
        y += 30
        for line in textwrap.wrap(written, 44):
            draw.text((x, y), line, fill=INK, font=large)
            y += 33
        y += 24
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes README's picture.")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs" / "readme.png")
    output = parser.parse_args().output
    picture = compose(read_frame(VIDEO, FRAME), draw_spectrogram(VIDEO), ask_model(VIDEO))
    picture.save(output, optimize=True)
    print(f"{output}: {output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
