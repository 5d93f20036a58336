# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The frames of a clip: positions of the things over time, their shapes and textures, the backgrounds.

Lengths are fractions of the frame's side until something is painted. A thing is painted in all its frames at once, on the
smallest patch that holds it, from the signed distance to its outline (negative inside, in units of its radius).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .scenes import EVENTS, MOMENTS, SECONDS, TIMES, Scene, Thing


FRAME_RATE = 10
FRAME_SIZE = 128

RADII = {"small": 0.12, "large": 0.195}
RGB = {
    "red": (226, 32, 38),
    "orange": (255, 136, 16),
    "yellow": (250, 226, 32),
    "green": (44, 196, 64),
    "blue": (40, 84, 250),
    "purple": (140, 44, 206),
    "pink": (255, 140, 196),
    "white": (250, 250, 250),
}
MARGIN = 0.02  # distance between a thing and the edge of the frame, at least
TEXTURE_PERIOD = 10.0  # pixels, at the thing's own size


def render_frames(scene: Scene) -> np.ndarray:
    """The frames of a clip, uint8 (T, H, W, 3): 5 seconds at `FRAME_RATE`, `FRAME_SIZE` pixels square. About 30 ms."""
    rng = scene.generator("frames")
    times = np.arange(round(SECONDS * FRAME_RATE)) / FRAME_RATE
    backdrop = _draw_background(scene.background, rng)
    frames = np.repeat(backdrop[None], len(times), axis=0)
    for thing, track in zip(scene.things, _lay_out(scene, times, rng), strict=True):
        _paint(frames, thing, track, rng)
    return np.clip(frames + 0.5, 0, 255).astype(np.uint8)


def draw_still(thing: Thing, background: str, angle: float, rng: np.random.Generator) -> np.ndarray:
    """One frame with one thing, turned by `angle` radians, somewhere in it."""
    track = _still(thing, np.zeros(1), rng)
    track.angle = track.angle + angle
    _place([track], rng)
    frames = _draw_background(background, rng)[None]
    _paint(frames, thing, track, rng)
    return np.clip(frames[0] + 0.5, 0, 255).astype(np.uint8)


# --- Positions --------------------------------------------------------------------------------------------------------


@dataclass
class Track:
    """One thing through time, arrays (T,): centre, radius, angle in radians, seen or not; `phase` shifts its texture."""

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray
    visible: np.ndarray
    phase: np.ndarray


def _lay_out(scene: Scene, times: np.ndarray, rng: np.random.Generator) -> list[Track]:
    act = scene.acts[0]
    tracks = [_still(thing, times, rng) for thing in scene.things]
    if act.verb not in EVENTS:
        for act in scene.acts:
            _move(tracks[act.thing], act.verb, times, TIMES[act.when], rng)
    # Not exactly at the named moment, so that clips differ in their timing.
    moment = TIMES[act.when][0] + rng.uniform(-0.1, 0.1) if act.when in MOMENTS else 0.0
    if act.verb == "collide":
        _collide(tracks, times - moment, rng)
        return tracks
    if act.verb == "appear":
        tracks[1].visible = times >= moment
    elif act.verb == "vanish":
        tracks[1].visible = times < moment
    elif act.verb == "change":
        before = tracks[0]
        _place([before], rng)
        return [replace(before, visible=times < moment), replace(before, visible=times >= moment)]
    _place(tracks, rng)
    return tracks


def _still(thing: Thing, times: np.ndarray, rng: np.random.Generator) -> Track:
    zeros = np.zeros_like(times)
    radius = zeros + RADII[thing.size] * rng.uniform(0.95, 1.05)
    angle = zeros + rng.uniform(-0.12, 0.12)
    return Track(zeros, zeros, radius, angle, np.ones(len(times), bool), phase=rng.uniform(size=2).astype(np.float32))


def _move(track: Track, verb: str, times: np.ndarray, window: tuple[float, float], rng: np.random.Generator) -> None:
    """Sets what the motion changes; positions are relative to the start until the thing is placed.

    The rates (1.2 hops, 0.2 turns, 0.4 loops per second) are slow enough to be visible in 8 frames per clip.
    """
    start, stop = window
    seconds = stop - start
    progress = np.clip((times - start) / seconds, 0, 1)
    reach = (0.5 if seconds > 3 else 0.42) * rng.uniform(0.85, 1.0)
    turn = rng.choice((-1.0, 1.0)) * 2 * np.pi * progress
    if verb in ("left", "right"):
        track.x = progress * (reach if verb == "right" else -reach)
    elif verb in ("up", "down"):
        track.y = progress * (reach if verb == "down" else -reach)
    elif verb == "bounce":
        track.y = -0.24 * np.abs(np.sin(np.pi * round(1.2 * seconds) * progress))
    elif verb == "spin":
        track.angle = track.angle + turn * 0.2 * seconds * rng.uniform(0.9, 1.1)
    elif verb == "loop":
        begin, loop = rng.uniform(0, 2 * np.pi), turn * round(0.4 * seconds)
        track.x = 0.18 * (np.cos(begin + loop) - np.cos(begin))
        track.y = 0.18 * (np.sin(begin + loop) - np.sin(begin))
    elif verb == "grow":
        track.radius = track.radius * (1 + 0.6 * progress)
    elif verb == "shrink":
        track.radius = track.radius * (1 - 0.5 * progress)


def _collide(tracks: list[Track], time: np.ndarray, rng: np.random.Generator) -> None:
    """The first thing comes from the left, the second from the right; they meet at time 0 and move back more slowly."""
    apart = np.where(time < 0, np.clip(-time / 1.2, 0, 1), 1 - np.clip(1 - time / 1.6, 0, 1) ** 2)
    tilt = rng.uniform(-0.3, 0.3)
    for track, side in zip(tracks, (-1, 1), strict=True):
        near = 0.88 * track.radius
        distance = near + apart * (0.5 - MARGIN - track.radius - near)
        track.x = 0.5 + side * distance * np.cos(tilt)
        track.y = 0.5 + side * distance * np.sin(tilt)


def _place(tracks: list[Track], rng: np.random.Generator, attempts: int = 150) -> None:
    """Moves the tracks into the frame, so that things do not touch; if no attempt succeeds, the best one is used."""
    bounds = [(_starts(track.x, track.radius), _starts(track.y, track.radius)) for track in tracks]
    best: list[tuple[float, float]] = []
    clearance = -np.inf
    for _ in range(attempts):
        starts = [(rng.uniform(*x), rng.uniform(*y)) for x, y in bounds]
        if len(tracks) == 1:
            best = starts
            break
        (first, second), ((x1, y1), (x2, y2)) = tracks, starts
        distance = np.hypot(first.x + x1 - second.x - x2, first.y + y1 - second.y - y2)
        free = (distance - first.radius - second.radius).min()
        if free > clearance:
            best, clearance = starts, free
        if clearance > MARGIN:
            break
    for track, (x, y) in zip(tracks, best, strict=True):
        track.x, track.y = track.x + x, track.y + y


def _starts(offset: np.ndarray, radius: np.ndarray) -> tuple[float, float]:
    """The lowest and highest start at which a coordinate's whole track stays inside the frame."""
    low, high = (MARGIN + radius - offset).max(), (1 - MARGIN - radius - offset).min()
    return (low, high) if low < high else ((low + high) / 2,) * 2


# --- Shapes and textures ----------------------------------------------------------------------------------------------


def _polygon_distance(u: np.ndarray, v: np.ndarray, corners: int, inner: float) -> np.ndarray:
    """Regular star with `corners` points at distance 1 and notches at distance `inner`, one point up."""
    sector = np.pi / corners
    angle = np.abs((np.arctan2(u, -v) + sector) % (2 * sector) - sector)
    radius = np.hypot(u, v)
    edge_x, edge_y = inner * np.cos(sector) - 1.0, inner * np.sin(sector)
    x, y = radius * np.cos(angle) - 1.0, radius * np.sin(angle)
    return (edge_y * x - edge_x * y) / np.hypot(edge_x, edge_y)


def _heart_distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Two discs and, tangent to both, the corner of a square."""
    u, v = np.abs(u), -0.04 - v
    lobes = np.hypot(u - 0.46, v - 0.32) - 0.52
    corner = np.maximum((u - v) * np.sqrt(0.5) - 0.619, (u + v) * np.sqrt(0.5) - 0.5515)
    return np.minimum(lobes, np.maximum(corner, v - 0.32))


DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda u, v: np.hypot(u, v) - 0.92,
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) - 0.82,
    "triangle": lambda u, v: _polygon_distance(u, v - 0.15, 3, 0.5) - 0.08,
    "star": lambda u, v: _polygon_distance(u, v, 5, 0.45) - 0.06,
    "cross": lambda u, v: np.minimum(
        np.maximum(np.abs(u) - 0.95, np.abs(v) - 0.34), np.maximum(np.abs(u) - 0.34, np.abs(v) - 0.95)
    ),
    "heart": _heart_distance,
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.72) - 0.27,
    "crescent": lambda u, v: np.maximum(np.hypot(u, v) - 0.98, 0.78 - np.hypot(u - 0.48, v)),
}


def _ink(texture: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Share of dark ink, 0 to 1, at coordinates counted in texture periods."""
    if texture == "striped":
        return np.clip(0.2 + 1.6 * np.sin(2 * np.pi * b), 0, 1)
    row = np.floor(b)
    a = (a + 0.5 * (row % 2)) % 1 - 0.5
    return np.clip(0.5 + 8 * (0.28 - np.hypot(a, b - row - 0.5)), 0, 1)


def _paint(frames: np.ndarray, thing: Thing, track: Track, rng: np.random.Generator) -> None:
    color = np.array(RGB[thing.color], np.float32) + rng.uniform(-10, 10, size=3).astype(np.float32)
    (seen,) = np.nonzero(track.visible)
    size = frames.shape[1]
    x, y, radius = (values[seen] * size for values in (track.x, track.y, track.radius))
    half = int(np.ceil(1.15 * radius.max())) + 1
    corner_x, corner_y = np.floor(x).astype(int) - half, np.floor(y).astype(int) - half
    pixel = np.arange(2 * half + 1, dtype=np.float32) + 0.5

    def unit(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float32)[:, None, None]

    u = (unit(corner_x - x) + pixel[None, None, :]) / unit(radius)
    v = (unit(corner_y - y) + pixel[None, :, None]) / unit(radius)
    cos, sin = unit(np.cos(track.angle[seen])), unit(np.sin(track.angle[seen]))
    u, v = u * cos + v * sin, v * cos - u * sin
    distance = DISTANCES[thing.shape](u, v) * unit(radius)
    cover = np.clip(0.5 - distance, 0, 1)
    shade = np.clip(-0.8 - distance, 0.1, 1)  # a dark outline, 1.5 pixels
    if thing.texture != "plain":
        periods = track.radius[seen[0]] * size / TEXTURE_PERIOD
        shade *= 1 - 0.72 * _ink(thing.texture, u * periods + track.phase[0], v * periods + track.phase[1])
    for frame, left, top, alpha, light in zip(seen, corner_x, corner_y, cover, shade, strict=True):
        rows, columns = slice(max(top, 0), top + len(pixel)), slice(max(left, 0), left + len(pixel))
        patch = frames[frame, rows, columns]
        inside = slice(rows.start - top, rows.start - top + patch.shape[0])
        across = slice(columns.start - left, columns.start - left + patch.shape[1])
        alpha, light = alpha[inside, across, None], light[inside, across, None]
        patch += alpha * (light * color - patch)


# --- Backgrounds ------------------------------------------------------------------------------------------------------


Background = tuple[tuple[int, int, int], np.ndarray]
"""A color, and the light that is added to it at each pixel."""


def _noise(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Smooth noise about 0: a coarse grid of (rows, columns) normal numbers, stretched linearly to the frame."""
    grid = rng.standard_normal((rows, columns)).astype(np.float32)
    for axis, count in enumerate((rows, columns)):
        at = np.linspace(0, count - 1, FRAME_SIZE, dtype=np.float32)
        low = np.minimum(at.astype(int), count - 2)
        weight = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        grid = np.take(grid, low, axis) * (1 - weight) + np.take(grid, low + 1, axis) * weight
    return grid


def _grass(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> Background:
    return (74, 112, 58), 14 * _noise(rng, 24, 64) + 8 * np.sin(0.9 * x + 3 * _noise(rng, 8, 8))


def _sky(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> Background:
    clouds = np.clip(_noise(rng, 9, 5) - 0.4, 0, 1)
    return (140, 178, 214), 26 * (y / FRAME_SIZE - 0.5) + 60 * clouds


def _night(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> Background:
    stars = np.zeros((FRAME_SIZE, FRAME_SIZE), np.float32)
    stars[rng.integers(FRAME_SIZE, size=45), rng.integers(FRAME_SIZE, size=45)] = rng.uniform(80, 190, size=45)
    return (16, 18, 40), stars + 10 * (y / FRAME_SIZE)


def _sand(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> Background:
    return (208, 180, 132), 12 * np.sin(0.42 * y + 5 * _noise(rng, 5, 5)) + 4 * _noise(rng, 40, 40)


def _bricks(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> Background:
    row = np.floor(y / 16)
    column = x / 32 + 0.5 * (row % 2)
    mortar = (y % 16 < 2) | (column % 1 < 0.065)
    tone = rng.uniform(-14, 14, size=(10, 8)).astype(np.float32)
    tone = tone[row.astype(int) % 10, np.floor(column).astype(int) % 8]
    return (126, 78, 66), np.where(mortar, 58, tone)


def _tiles(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> Background:
    return (150, 150, 154), np.where((x // 16 + y // 16) % 2 < 1, 34, -34)


def _water(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> Background:
    return (52, 112, 128), 22 * np.sin(0.5 * y + 1.4 * np.sin(0.12 * x) + 3 * _noise(rng, 6, 4)) ** 3


def _wood(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> Background:
    plank = np.floor(x / 22)
    tone = rng.uniform(-16, 16, size=8).astype(np.float32)[plank.astype(int) % 8]
    grain = 7 * np.sin(0.7 * x + 2 * _noise(rng, 5, 16))
    return (132, 96, 62), np.where(x % 22 < 1.5, -60, tone + grain)


DRAW_BACKGROUND: dict[str, Callable[[np.random.Generator, np.ndarray, np.ndarray], Background]] = {
    "grass": _grass,
    "sky": _sky,
    "night": _night,
    "sand": _sand,
    "bricks": _bricks,
    "tiles": _tiles,
    "water": _water,
    "wood": _wood,
}


def _draw_background(name: str, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:FRAME_SIZE, 0:FRAME_SIZE].astype(np.float32)
    dx, dy = rng.uniform(0, 32, size=2).astype(np.float32)
    color, light = DRAW_BACKGROUND[name](rng, x + dx, y + dy)
    tint = np.array(color, np.float32) * np.float32(rng.uniform(0.92, 1.08))
    return np.clip(tint + np.asarray(light, np.float32)[..., None], 0, 255)
