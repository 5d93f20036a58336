# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Texts of a scene: captions from a grammar, and questions with short answers.

A caption is a template ("{clause} {place} while {sound}") whose slots are filled with one of several wordings. Every caption
contains all of a scene: the things, what they do and when, the background, and what is heard and when.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from .scenes import COLORS, EVENTS, HALVES, MOMENTS, SHAPES, SOUNDS, Act, Scene, Sound, Thing


T = TypeVar("T")

CAPTIONS = 5
QUESTIONS = 2  # of each kind
KINDS = ("sight", "sound", "both")  # topics of questions
LESSONS = (*KINDS, "order", "time")  # topics of lessons

# Each pair is a common wording and a rare one.
SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
PATTERN_WORDS = {"striped": "stripes", "spotted": "spots"}
PLACE_WORDS = {
    "grass": ("on the grass", "in a green meadow"),
    "sky": ("in the sky", "in front of white clouds"),
    "night": ("at night", "in the dark"),
    "sand": ("on the sand", "in the desert"),
    "bricks": ("in front of a brick wall", "on red bricks"),
    "tiles": ("on a tiled floor", "on gray tiles"),
    "water": ("on the water", "over the waves"),
    "wood": ("on a wooden floor", "on brown boards"),
}
# Verb -> (finite, gerund), common and rare.
MOTION_WORDS = {
    "left": (("slides left", "sliding left"), ("moves to the left", "moving to the left")),
    "right": (("slides right", "sliding right"), ("moves to the right", "moving to the right")),
    "up": (("rises", "rising"), ("floats up", "floating up")),
    "down": (("sinks", "sinking"), ("floats down", "floating down")),
    "bounce": (("bounces", "bouncing"), ("jumps up and down", "jumping up and down")),
    "spin": (("spins", "spinning"), ("turns around", "turning around")),
    "loop": (("loops", "looping"), ("runs in circles", "running in circles")),
    "grow": (("grows", "growing"), ("gets bigger", "getting bigger")),
    "shrink": (("shrinks", "shrinking"), ("gets smaller", "getting smaller")),
}
# Event -> (finite, gerund); {0} and {1} are the things, {color} is the second one's.
EVENT_WORDS = {
    "collide": ("{0} collides with {1}", "{0} colliding with {1}"),
    "appear": ("{1} appears beside {0}", "{1} appearing beside {0}"),
    "vanish": ("{1} vanishes beside {0}", "{1} vanishing beside {0}"),
    "change": ("{0} turns {color}", "{0} turning {color}"),
}
# Sound -> (subject, finite, gerund, noun phrase, short answer).
SOUND_WORDS = {
    "bell": ("a bell", "rings", "ringing", "the sound of a bell", "bell"),
    "drum": ("a drum", "beats", "beating", "the beat of a drum", "drum"),
    "horn": ("a horn", "honks", "honking", "the sound of a horn", "horn"),
    "whistle": ("a whistle", "blows", "blowing", "the sound of a whistle", "whistle"),
    "dog": ("a dog", "barks", "barking", "the bark of a dog", "dog"),
    "clap": ("someone", "claps", "clapping", "the sound of clapping", "clapping"),
    "knock": ("someone", "knocks", "knocking", "the sound of knocking", "knocking"),
    "frog": ("a frog", "croaks", "croaking", "the croak of a frog", "frog"),
    "engine": ("an engine", "runs", "running", "the sound of an engine", "engine"),
    "rain": ("rain", "falls", "falling", "the sound of rain", "rain"),
    "man": ("a man", "talks", "talking", "the voice of a man", "man"),
    "birds": ("birds", "sing", "singing", "the song of birds", "birds"),
    "piano": ("a piano", "plays", "playing", "the sound of a piano", "piano"),
    "siren": ("a siren", "wails", "wailing", "the sound of a siren", "siren"),
    "woman": ("a woman", "talks", "talking", "the voice of a woman", "woman"),
    "clock": ("a clock", "ticks", "ticking", "the sound of a clock", "clock"),
}
# Named time -> its name in lessons about time. There are no questions about the time of what lasts throughout.
MOMENT_WORDS = {"first": "first", "last": "last", "early": "first", "middle": "later", "late": "last"}
QUIET_CLAUSES = ("it is quiet", "there is no sound")
QUIET_NOUNS = ("no sound", "silence")

# Templates: {S} is what is seen as a clause, {G} the same with gerunds, {P} the place, {A} what is heard as a clause, {N} as
# a noun phrase; 1 and 2 are the halves of the clip; {B} is the background sound of a strike, or empty.
SIDE_BY_SIDE = (
    "{S} {P} while {A}",
    "{P} {S} while {A}",
    "{A} while {S} {P}",
    "{A} as {S} {P}",
    "{S} {P} and we hear {N}",
    "we see {G} {P} and hear {N}",
    "there is {G} {P} while {A}",
)
IN_STEP = (
    "{P} {S1} while {A1} and then {S2} while {A2}",
    "first {S1} {P} while {A1} and then {S2} while {A2}",
    "{A1} while {S1} {P} and then {A2} while {S2}",
    "{P} {A1} as {S1} and then {A2} as {S2}",
    "{S1} {P} with {N1} and then {S2} with {N2}",
)
ON_TIME = {
    "at": (
        "{S} {P} just as {A} {B}",
        "{P} {S} just as {A} {B}",
        "{A} just as {S} {P} {B}",
        "{P} {A} just as {S} {B}",
        "{S} {P} and at that moment {A} {B}",
    ),
    "before": (
        "{A} before {S} {P} {B}",
        "{P} {A} before {S} {B}",
        "{S} {P} after {A} {B}",
        "{A} and then {S} {P} {B}",
        "first {A} and later {S} {P} {B}",
    ),
    "after": (
        "{A} after {S} {P} {B}",
        "{P} {A} after {S} {B}",
        "{S} {P} before {A} {B}",
        "{S} {P} and then {A} {B}",
        "first {S} {P} and later {A} {B}",
    ),
}


def describe(scene: Scene) -> list[str]:
    """Five different captions of a clip, each true and complete, in lower case without punctuation."""
    rng = scene.generator("captions")
    frames = rng.permutation(_frames(scene)).tolist()
    captions: list[str] = []
    while len(captions) < CAPTIONS:
        caption = _Narrator(scene, rng).fill(frames[len(captions) % len(frames)])
        if caption not in captions:
            captions.append(caption)
    return captions


def describe_still(scene: Scene) -> list[str]:
    """Five different captions of a picture: a scene of one thing, without acts and sounds."""
    rng = scene.generator("captions")
    narrator = _Narrator(scene, rng)
    captions: list[str] = []
    while len(captions) < CAPTIONS:
        name, place = narrator.name(scene.things[0]), narrator.choose(PLACE_WORDS[scene.background])
        caption = rng.choice(
            (f"{name} {place}", f"{place} {name}", f"we see {name} {place}", f"there is {name} {place}")
        )
        if caption not in captions:
            captions.append(str(caption))
    return captions


def _frames(scene: Scene) -> tuple[str, ...]:
    act, sounds = scene.acts[0], scene.sounds
    if act.when in HALVES and sounds and sounds[0].when in HALVES:
        return IN_STEP
    if act.verb in EVENTS and sounds and sounds[0].when in MOMENTS:
        order = MOMENTS.index(sounds[0].when) - MOMENTS.index(act.when)
        return ON_TIME["at" if order == 0 else "before" if order < 0 else "after"]
    return SIDE_BY_SIDE


class _Narrator:
    """Words for one caption of a scene; each wording is drawn at random."""

    def __init__(self, scene: Scene, rng: np.random.Generator):
        self.scene = scene
        self.rng = rng
        self.acts = {act.when: act for act in scene.acts}
        self.sounds = {sound.when: sound.name for sound in scene.sounds if not sound.bed}

    def fill(self, frame: str) -> str:
        phrases = {
            "{P}": lambda: self.choose(PLACE_WORDS[self.scene.background]),
            "{S}": lambda: self.seen(gerund=False),
            "{G}": lambda: self.seen(gerund=True),
            "{S1}": lambda: self.half_seen("first"),
            "{S2}": lambda: self.half_seen("last"),
            "{A}": lambda: self.heard(self.sound_clause),
            "{N}": lambda: self.heard(self.sound_noun),
            "{A1}": lambda: self.sound_clause(self.sounds.get("first")),
            "{A2}": lambda: self.sound_clause(self.sounds.get("last")),
            "{N1}": lambda: self.sound_noun(self.sounds.get("first")),
            "{N2}": lambda: self.sound_noun(self.sounds.get("last")),
            "{B}": lambda: self.bed(after_sound=False),
        }
        words = [phrases[word]() if word in phrases else word for word in frame.split()]
        return " ".join(filter(None, words))

    def choose(self, options: Sequence[T]) -> T:
        """The common wording with probability 0.7, else the rare one."""
        return options[int(self.rng.random() < 0.3)]

    def name(self, thing: Thing) -> str:
        size = self.choose(SIZE_WORDS[thing.size])
        if thing.texture == "plain":
            return f"a {size} {thing.color} {thing.shape}"
        before = f"a {size} {thing.texture} {thing.color} {thing.shape}"
        behind = f"a {size} {thing.color} {thing.shape} with {PATTERN_WORDS[thing.texture]}"
        return self.choose((before, behind))

    def motion(self, act: Act, gerund: bool = False) -> str:
        return self.choose(MOTION_WORDS[act.verb])[gerund]

    def seen(self, gerund: bool) -> str:
        """Everything that is seen, such as "a large red star waits and then spins"."""
        act, names = self.scene.acts[0], [self.name(thing) for thing in self.scene.things]
        if act.verb in EVENTS:
            return EVENT_WORDS[act.verb][gerund].format(*names, color=self.scene.things[-1].color)
        moves = [self.motion(act, gerund) for act in self.scene.acts]
        if len(moves) == 2:
            return f"{names[0]} {moves[0]} and then {names[1]} {moves[1]}"
        if act.when == "throughout":
            return f"{names[0]} {moves[0]}"
        if act.when == "first":
            return f"{names[0]} {moves[0]} and then {'stopping' if gerund else 'stops'}"
        return f"{names[0]} {'waiting' if gerund else 'waits'} and then {moves[0]}"

    def half_seen(self, half: str) -> str:
        """What is seen in one half; in the second half a single thing is called "it"."""
        act = self.acts.get(half)
        if act is not None and len(self.scene.acts) == 2:
            return f"{self.name(self.scene.things[act.thing])} {self.motion(act)}"
        subject, rest = (self.name(self.scene.things[0]), "waits") if half == "first" else ("it", "stops")
        return f"{subject} {self.motion(act) if act else rest}"

    def heard(self, phrase: Callable[[str | None], str]) -> str:
        """Everything that is heard, as phrases of `sound_clause` or `sound_noun`; the bed under a strike has its own slot."""
        (when, name), *_ = self.sounds.items() or [("throughout", None)]
        if when in HALVES:
            return " and then ".join(phrase(self.sounds.get(half)) for half in HALVES)
        return phrase(name) if when in MOMENTS else f"{phrase(name)} {self.bed(after_sound=True)}".rstrip()

    def bed(self, after_sound: bool) -> str:
        for sound in self.scene.sounds:
            if sound.bed:
                noun = self.sound_noun(sound.name)
                behind = f"with {noun} in the background"
                return self.choose((f"over {noun}", behind)) if after_sound else behind
        return ""

    def sound_clause(self, name: str | None) -> str:
        if name is None:
            return self.choose(QUIET_CLAUSES)
        subject, finite, gerund, _, _ = SOUND_WORDS[name]
        brief, lasting = f"{subject} {finite}", f"{subject} {'are' if name == 'birds' else 'is'} {gerund}"
        return brief if self.sounds.keys() & set(MOMENTS) else self.choose((brief, lasting))

    def sound_noun(self, name: str | None) -> str:
        if name is None:
            return self.choose(QUIET_NOUNS)
        subject, _, gerund, noun, _ = SOUND_WORDS[name]
        return self.choose((f"{subject} {gerund}", noun))


# --- Questions --------------------------------------------------------------------------------------------------------


def questions(scene: Scene, about: str | None = None) -> list[dict[str, str]]:
    """Up to two questions each about sight, sound and both, with short answers.

    The answer to a question about both depends on whether something is seen and heard at the same time, so neither frames
    nor sound alone give it. There is no such question if nothing that is seen, or nothing that is heard, has a time.

    Args:
        about: one of `LESSONS`: all questions of this kind, and no others. "order" (which of two things is active first)
            and "time" (at what moment something is seen or heard) are asked only so. They teach what questions about both
            need.
    """
    rng = scene.generator("questions")
    if about in ("order", "time"):
        pairs = _on_order(scene) if about == "order" else _on_time(scene)
        return [{"question": question, "answer": answer, "about": about} for question, answer in pairs]
    asked = []
    for kind, candidates in zip(KINDS, (_on_sight, _on_sound, _on_both), strict=True):
        pairs = candidates(scene, rng)
        chosen = rng.permutation(len(pairs))
        if about is None:
            chosen = chosen[:QUESTIONS]
        elif kind != about:
            continue
        asked += [{"question": pairs[i][0], "answer": pairs[i][1], "about": kind} for i in chosen]
    return asked


def questions_on_still(scene: Scene) -> list[dict[str, str]]:
    """All questions about a picture (as in `describe_still`): those about sight without time."""
    (thing,) = scene.things
    pairs = [
        *_on_presence(scene.things, scene.background, scene.generator("questions")),
        (f"what color is the {thing.shape}?", thing.color),
        (f"which shape is {thing.color}?", thing.shape),
        (f"is the {thing.shape} plain striped or spotted?", thing.texture),
        (f"is the {thing.shape} small or large?", thing.size),
    ]
    return [{"question": question, "answer": answer, "about": "sight"} for question, answer in pairs]


def _yes_or_no(rng: np.random.Generator, present: list[str], options: tuple[str, ...]) -> tuple[str, str]:
    """An option that is present, or one that is absent, with equal probability; and the answer."""
    answer = ("yes", "no")[rng.integers(2)]
    pool = present if answer == "yes" else [option for option in options if option not in present]
    return pool[rng.integers(len(pool))], answer


def _finite(act: Act) -> str:
    return MOTION_WORDS[act.verb][0][0]


def _clause(name: str) -> str:
    return " ".join(SOUND_WORDS[name][:2])


def _answer(name: str | None) -> str:
    return SOUND_WORDS[name][4] if name else "nothing"


def _with_article(name: str) -> str:
    return _answer(name) if name in ("clap", "knock", "rain", "birds") else SOUND_WORDS[name][0]


def _on_sight(scene: Scene, rng: np.random.Generator) -> list[tuple[str, str]]:
    things, act = scene.things, scene.acts[0]
    pairs = _on_presence(things, scene.background, rng)
    if act.verb == "change":
        pairs.append((f"what color does the {things[0].shape} become?", things[1].color))
        things = things[:1]
    else:
        pairs += [(f"what color is the {thing.shape}?", thing.color) for thing in things]
    pairs += [(f"which shape is {thing.color}?", thing.shape) for thing in things]
    pairs += [(f"is the {thing.shape} plain striped or spotted?", thing.texture) for thing in things]
    if not any(act.verb in ("grow", "shrink") for act in scene.acts):
        pairs += [(f"is the {thing.shape} small or large?", thing.size) for thing in things]
    if act.verb not in EVENTS:
        pairs += [(f"what does the {things[act.thing].shape} do?", _finite(act)) for act in scene.acts]
        pairs.append(("how many things are there?", ("one", "two")[len(things) - 1]))
    if len(scene.acts) == 2:
        pairs.append(("which shape moves first?", things[0].shape))
    return pairs


def _on_presence(things: Sequence[Thing], background: str, rng: np.random.Generator) -> list[tuple[str, str]]:
    shape, has_shape = _yes_or_no(rng, [thing.shape for thing in things], SHAPES)
    color, has_color = _yes_or_no(rng, [thing.color for thing in things], COLORS)
    return [
        (f"is there a {shape}?", has_shape),
        (f"is anything {color}?", has_color),
        ("what is the background?", background),
    ]


def _on_sound(scene: Scene, rng: np.random.Generator) -> list[tuple[str, str]]:
    sounds = scene.sounds
    if not sounds:
        return [("what is heard?", _answer(None))]
    name, heard = _yes_or_no(rng, [sound.name for sound in sounds], SOUNDS[:-1])
    pairs = [(f"is {_with_article(name)} heard?", heard)]
    if len(sounds) == 1:
        pairs.append(("what is heard?", _answer(sounds[0].name)))
    elif sounds[1].bed:
        pairs.append(("what is heard in the background?", _answer(sounds[1].name)))
        pairs.append((f"what is heard besides {_with_article(sounds[1].name)}?", _answer(sounds[0].name)))
    else:
        pairs.append(("what is heard first?", _answer(sounds[0].name)))
        pairs.append(("what is heard last?", _answer(sounds[1].name)))
    return pairs


def _on_both(scene: Scene, rng: np.random.Generator) -> list[tuple[str, str]]:
    acts, things, sounds = scene.acts, scene.things, scene.sounds
    if not sounds or {acts[0].when, sounds[0].when} & {"throughout"}:
        return []
    if acts[0].verb in EVENTS:
        return _on_event(scene)
    act, sound = acts[rng.integers(len(acts))], sounds[rng.integers(len(sounds))]
    shape = things[act.thing].shape
    heard = {sound.when: sound.name for sound in sounds}
    pairs = [(f"what is heard while the {shape} {_finite(act)}?", _answer(heard.get(act.when)))]
    if len(acts) == 1:
        pairs.append((f"is {_with_article(sound.name)} heard while the {shape} {_finite(act)}?", _yes(act, sound)))
    else:
        (active,) = (things[act.thing] for act in acts if act.when == sound.when)
        pairs.append((f"which shape is active while {_clause(sound.name)}?", active.shape))
        pairs.append((f"what color is the active shape while {_clause(sound.name)}?", active.color))
    return pairs


def _event(scene: Scene) -> str:
    """A scene's event as a clause, such as "the ring appears"."""
    act, things = scene.acts[0], scene.things
    return {
        "collide": f"the {things[0].shape} and the {things[-1].shape} collide",
        "appear": f"the {things[-1].shape} appears",
        "vanish": f"the {things[-1].shape} vanishes",
        "change": f"the {things[0].shape} changes color",
    }[act.verb]


def _on_event(scene: Scene) -> list[tuple[str, str]]:
    act, strike, event = scene.acts[0], scene.sounds[0], _event(scene)
    pairs = [(f"is {_with_article(strike.name)} heard just as {event}?", _yes(act, strike))]
    if len(scene.sounds) == 1:
        pairs.append((f"what is heard just as {event}?", _answer(strike.name if act.when == strike.when else None)))
    return pairs


def _yes(act: Act, sound: Sound) -> str:
    return "yes" if act.when == sound.when else "no"


def _on_order(scene: Scene) -> list[tuple[str, str]]:
    if len(scene.acts) < 2:
        return []
    pairs = [("which shape moves first?", scene.things[0].shape)]
    for act in scene.acts:
        thing = scene.things[act.thing]
        pairs.append((f"which shape is active {act.when}?", thing.shape))
        pairs.append((f"what color is the active shape {act.when}?", thing.color))
    return pairs


def _on_time(scene: Scene) -> list[tuple[str, str]]:
    pairs = []
    for act in scene.acts:
        seen = _event(scene) if act.verb in EVENTS else f"the {scene.things[act.thing].shape} {_finite(act)}"
        pairs.append((f"at what moment do we see that {seen}?", act.when))
    pairs += [(f"at what moment do we hear that {_clause(sound.name)}?", sound.when) for sound in scene.sounds]
    return [(question, MOMENT_WORDS[when]) for question, when in pairs if when in MOMENT_WORDS]
