# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What happens in a video: things, acts and sounds, the scene they make up, and how scenes are sampled for each split."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np


T = TypeVar("T")

SPLITS = ("train", "val", "test")

SIZES = ("small", "large")
TEXTURES = ("plain", "striped", "spotted")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
SHAPES = ("circle", "square", "triangle", "star", "cross", "heart", "ring", "crescent")
BACKGROUNDS = ("grass", "sky", "night", "sand", "bricks", "tiles", "water", "wood")

MOTIONS = ("left", "right", "up", "down", "bounce", "spin", "loop", "grow", "shrink")
EVENTS = ("collide", "appear", "vanish", "change")

STRIKES = ("bell", "drum", "horn", "whistle", "dog", "clap", "knock", "frog")
STREAMS = ("engine", "rain", "man", "birds", "piano", "siren", "woman", "clock")
BEDS = ("engine", "rain", "birds", "siren", "clock")  # streams that all other sounds can be heard over
# Strikes and streams alternate, so that any four neighbours (the sounds of a thing in the test split) contain both.
SOUNDS = (*(name for pair in zip(STRIKES, STREAMS, strict=True) for name in pair), "silence")

SECONDS = 5.0
# Named times of acts and sounds, in seconds: the same name means the same time.
TIMES = {
    "throughout": (0.0, 5.0),
    "first": (0.0, 2.5),
    "last": (2.5, 5.0),
    "early": (1.25, 2.25),
    "middle": (2.5, 3.5),
    "late": (3.75, 4.75),
}
HALVES = ("first", "last")
MOMENTS = ("early", "middle", "late")


@dataclass(frozen=True)
class Thing:
    """One object, by the words that name it."""

    size: str
    texture: str
    color: str
    shape: str


@dataclass(frozen=True)
class Act:
    """What the thing of index `thing` does at the named time: a motion, or an event (which involves all things)."""

    verb: str
    when: str
    thing: int = 0


@dataclass(frozen=True)
class Sound:
    """One sound at a named time; `bed` marks the quieter one that another sound is heard over."""

    name: str
    when: str
    bed: bool = False


@dataclass(frozen=True)
class Scene:
    """A clip, fully described: rendering, captions and questions are functions of this object alone.

    The first four fields hold everything that captions say. `seed` determines the rest (positions, exact hues, pitches and
    tempi) and the choice of words. In a "change" the first thing turns into the second.
    """

    background: str
    things: tuple[Thing, ...]
    acts: tuple[Act, ...]
    sounds: tuple[Sound, ...]
    seed: int

    @property
    def content(self) -> "Scene":
        """The scene without its seed: the same captions are true of two clips with equal content."""
        return replace(self, seed=0)

    @property
    def combinations(self) -> frozenset[tuple[str, str, str]]:
        """All combinations (shape, color, sound) of this clip; without any sound, the sound is "silence"."""
        names = {sound.name for sound in self.sounds} or {"silence"}
        return frozenset((thing.shape, thing.color, name) for thing in self.things for name in names)

    def generator(self, purpose: str) -> np.random.Generator:
        """A random generator for one purpose, so that changes of the drawing do not change sounds and words."""
        return np.random.default_rng([self.seed, *purpose.encode()])


def split_of(shape: str, color: str, sound: str) -> str:
    """The one split in which a thing of this shape and color may be seen while this sound is heard.

    It follows from a modular sum. Every pair (shape, color), (shape, sound) and (color, sound) occurs in train. Only triples
    are held out: 4 of 17 sounds for test and 3 of 17 for val.
    """
    residue = (3 * SHAPES.index(shape) + 5 * COLORS.index(color) + SOUNDS.index(sound)) % len(SOUNDS)
    return "test" if residue < 4 else "val" if residue < 7 else "train"


def sample_scene(split: str, index: int, seed: int) -> Scene:
    """The clip number `index` of a split.

    Neighbours (indices 2k and 2k+1) have the same frames but for small random differences, and different sounds. So in every
    set of even size, video alone finds the right clip at most half of the time.

    Args:
        split: "train", "val" or "test"; no (shape, color, sound) of one split occurs in another.
        index: any non-negative number; the clip does not depend on how many others are drawn.
        seed: any non-negative number; another seed is another world of the same kind.

    Raises:
        ValueError: an unknown split, or a negative index or seed.
    """
    if split not in SPLITS:
        raise ValueError(f"The world has no split {split!r}; choose one of {', '.join(SPLITS)}.")
    if index < 0 or seed < 0:
        raise ValueError(f"index and seed must not be negative, got index={index} and seed={seed}.")
    family, twin = divmod(index, 2)
    rng = np.random.default_rng([seed, SPLITS.index(split), family])
    things, acts, names = _sample_sight(rng, split)
    soundtracks = [_sample_soundtrack(rng, acts, names)]
    while len(soundtracks) < 2:
        other = _sample_soundtrack(rng, acts, names)
        if {sound.name for sound in other} != {sound.name for sound in soundtracks[0]}:
            soundtracks.append(other)
    background = _pick(rng, BACKGROUNDS)
    clip_seeds = rng.integers(2**31, size=2)
    return Scene(background, things, acts, soundtracks[twin], int(clip_seeds[twin]))


def _pick(rng: np.random.Generator, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
    return options[rng.choice(len(options), p=weights)]


def _sample_sight(rng: np.random.Generator, split: str) -> tuple[tuple[Thing, ...], tuple[Act, ...], list[str]]:
    """Things, what they do, and the sounds that the split allows with them (at least two that are not silence)."""
    story = _pick(rng, ("move", "move in one half", "move in turn", *EVENTS), (0.2, 0.15, 0.3, 0.14, 0.07, 0.07, 0.07))
    while True:
        things = _sample_things(rng, story)
        names = [name for name in SOUNDS if all(split_of(thing.shape, thing.color, name) == split for thing in things)]
        if len(set(names) - {"silence"}) >= 2:
            break
    acts: tuple[Act, ...]
    if story in EVENTS:
        acts = (Act(story, _pick(rng, MOMENTS), thing=len(things) - 1),)
    elif story == "move in turn":
        first = _pick(rng, _motions(things[0]))
        last = _pick(rng, [motion for motion in _motions(things[1]) if motion != first])
        acts = (Act(first, "first", thing=0), Act(last, "last", thing=1))
    else:
        acts = (Act(_pick(rng, _motions(things[0])), "throughout" if story == "move" else _pick(rng, HALVES)),)
    return things, acts, names


def _sample_things(rng: np.random.Generator, story: str) -> tuple[Thing, ...]:
    first = Thing(_pick(rng, SIZES), _pick(rng, TEXTURES), _pick(rng, COLORS), _pick(rng, SHAPES))
    if story in ("move", "move in one half"):
        return (first,)
    color = _pick(rng, [color for color in COLORS if color != first.color])
    if story == "change":
        return first, replace(first, color=color)
    shape = _pick(rng, [shape for shape in SHAPES if shape != first.shape])
    return first, Thing(_pick(rng, SIZES), _pick(rng, TEXTURES), color, shape)


def _motions(thing: Thing) -> list[str]:
    """The visible motions of a thing: a circle that spins looks as before."""
    return [motion for motion in MOTIONS if motion != "spin" or thing.shape not in ("circle", "ring")]


def _sample_soundtrack(rng: np.random.Generator, acts: tuple[Act, ...], names: list[str]) -> tuple[Sound, ...]:
    """One of: silence, one sound throughout, a sound over a bed, one sound in each half, one in one half, a strike at a moment."""
    audible = [name for name in names if name != "silence"]
    strikes = [name for name in audible if name in STRIKES]
    beds = [name for name in audible if name in BEDS]
    fronts = [name for name in audible if name not in BEDS]
    weights = _soundtrack_weights(acts[0], "silence" in names, bool(strikes), bool(beds), bool(fronts))
    total = sum(weights.values())
    kind = _pick(rng, list(weights), [weight / total for weight in weights.values()])
    if kind == "silence":
        return ()
    if kind == "steady":
        return (Sound(_pick(rng, audible), "throughout"),)
    if kind == "turns":
        first, last = rng.permutation(audible)[:2].tolist()
        return Sound(first, "first"), Sound(last, "last")
    if kind == "half":
        return (Sound(_pick(rng, audible), _pick(rng, HALVES)),)
    bed = (Sound(_pick(rng, beds), "throughout", bed=True),) if "over" in kind else ()
    if kind == "over":
        return Sound(_pick(rng, fronts), "throughout"), *bed
    # Half of the strikes are at the time of the event. So neither the time of the strike nor that of the event tells which.
    elsewhere = [moment for moment in MOMENTS if moment != acts[0].when]
    return Sound(_pick(rng, strikes), acts[0].when if rng.random() < 0.5 else _pick(rng, elsewhere)), *bed


def _soundtrack_weights(act: Act, silence: bool, strikes: bool, beds: bool, fronts: bool) -> dict[str, int]:
    """How likely each kind of soundtrack is with the first act of a scene, from the kinds of sounds that are allowed."""
    in_half, is_event = act.when in HALVES, act.verb in EVENTS
    turns = 7 if in_half else 3
    return {
        "silence": 2 * silence,
        "steady": 2,
        "over": 2 * (beds and fronts),
        "turns": turns * (not is_event),
        "half": 4 * in_half,
        "strike": 6 * (is_event and strikes),
        "strike over": 4 * (is_event and strikes and beds),
    }
