# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The sound of a clip: strikes (one short sound, which is repeated) and streams (continuous sounds of any length).

Every generator takes a random generator, so that no two bells are equal. It returns samples of any loudness; `render_audio`
sets the loudness.
"""

from collections.abc import Callable, Iterable

import numpy as np

from .scenes import SECONDS, TIMES, Scene


SAMPLING_RATE = 22_050
LOUDNESS = 0.12  # root mean square of a sound while it is heard
BED_LOUDNESS = 0.035
HISS = 2e-4  # noise of a recorder: no clip is digitally silent


def render_audio(scene: Scene) -> tuple[np.ndarray, int]:
    """The sound of a clip: mono float32 samples (N,) in [-1, 1] and their rate. About 10 ms."""
    rng = scene.generator("audio")
    mix = HISS * rng.standard_normal(round(SECONDS * SAMPLING_RATE))
    for sound in scene.sounds:
        start, stop = TIMES[sound.when]
        samples = _sound(sound.name, stop - start, rng)
        loudness = BED_LOUDNESS if sound.bed else LOUDNESS
        heard = np.abs(samples) > 0.02 * np.abs(samples).max()
        samples *= loudness * rng.uniform(0.8, 1.25) / np.sqrt(np.mean(samples[heard] ** 2))
        begin = round(start * SAMPLING_RATE)
        mix[begin : begin + len(samples)] += samples
    return np.tanh(mix).astype(np.float32), SAMPLING_RATE


def _sound(name: str, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """One sound of this length, without clicks at its ends. In one second or less there is one strike."""
    if name in STREAM:
        samples = STREAM[name](rng, round(seconds * SAMPLING_RATE))
    else:
        strike, shortest, longest = STRIKE[name]
        starts = np.arange(0.0, seconds - 0.5, rng.uniform(shortest, longest)) if seconds > 1 else np.zeros(1)
        starts = np.round(starts * SAMPLING_RATE).astype(int)
        samples = _scatter(round(seconds * SAMPLING_RATE), [strike(rng) for _ in starts], starts)
    fade = np.minimum(1.0, np.arange(len(samples)) / (0.02 * SAMPLING_RATE))
    return samples * fade[::-1] * (fade if name in STREAM else 1.0)


# --- Building blocks --------------------------------------------------------------------------------------------------


Gain = Callable[[np.ndarray], np.ndarray]
"""Factors of a spectrum at frequencies in Hz."""


def _time(seconds: float) -> np.ndarray:
    return np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE


def _sine(frequency: np.ndarray) -> np.ndarray:
    """A sine whose frequency in Hz is given for every sample."""
    return np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLING_RATE)


def _saw(frequency: np.ndarray) -> np.ndarray:
    """A sawtooth whose frequency in Hz is given for every sample: all harmonics."""
    return 2 * (np.cumsum(frequency) / SAMPLING_RATE % 1) - 1


def _filter(samples: np.ndarray, gain: Gain) -> np.ndarray:
    """Samples with their spectrum multiplied by `gain(frequencies in Hz)`."""
    spectrum = np.fft.rfft(samples)
    return np.fft.irfft(spectrum * gain(np.fft.rfftfreq(len(samples), 1 / SAMPLING_RATE)), len(samples))


def _peaks(*formants: tuple[float, float, float]) -> Gain:
    """A gain with one resonance for each (centre in Hz, width in Hz, height)."""
    return lambda f: sum(
        (height / (1 + ((f - centre) / width) ** 2) for centre, width, height in formants), np.zeros_like(f)
    )


def _band(low: float, high: float) -> Gain:
    """A gain that is 1 between two frequencies and decreases smoothly outside."""
    return lambda f: 1 / (1 + (low / np.maximum(f, 1)) ** 4) / (1 + (f / high) ** 4)


def _noise(rng: np.random.Generator, count: int, low: float, high: float) -> np.ndarray:
    return _filter(rng.standard_normal(count), _band(low, high))


def _scatter(count: int, pieces: Iterable[np.ndarray], starts: Iterable[int]) -> np.ndarray:
    """Pieces added up at their start samples, cut at `count`."""
    samples = np.zeros(count)
    for piece, start in zip(pieces, starts, strict=True):
        samples[start : start + len(piece)] += piece[: count - start]
    return samples


# --- Strikes ----------------------------------------------------------------------------------------------------------


def _bell(rng: np.random.Generator) -> np.ndarray:
    time, pitch = _time(0.95), rng.uniform(640, 820)
    partials = ((0.5, 0.4, 3), (1, 1, 4), (1.19, 0.7, 5), (1.5, 0.4, 6), (2, 0.8, 5), (2.74, 0.5, 7), (4.07, 0.4, 10))
    return sum(a * np.exp(-decay * time) * np.sin(2 * np.pi * pitch * ratio * time) for ratio, a, decay in partials)


def _drum(rng: np.random.Generator) -> np.ndarray:
    time, pitch = _time(0.4), rng.uniform(60, 80)
    skin = _sine(pitch * (1 + 1.5 * np.exp(-30 * time))) * np.exp(-9 * time)
    return skin + 0.25 * _noise(rng, len(time), 100, 1500) * np.exp(-60 * time)


def _horn(rng: np.random.Generator) -> np.ndarray:
    time, pitch = _time(0.45), rng.uniform(380, 440)
    reed = _filter(_saw(pitch + 0 * time) + _saw(1.26 * pitch + 0 * time), _band(200, 3500))
    return reed * np.minimum(1, np.minimum(time, 0.45 - time) / 0.03)


def _whistle(rng: np.random.Generator) -> np.ndarray:
    time, pitch = _time(0.5), rng.uniform(2300, 2700)
    trill = np.sin(2 * np.pi * 28 * time)
    envelope = np.minimum(1, np.minimum(time, 0.5 - time) / 0.03) * (0.75 + 0.25 * trill)
    return (_sine(pitch + 130 * trill) + 0.1 * _noise(rng, len(time), 2000, 4000)) * envelope


def _bark(rng: np.random.Generator) -> np.ndarray:
    time, pitch = _time(0.2), rng.uniform(380, 460)
    throat = _saw(pitch * (0.75 + 0.5 * np.sin(np.pi * time / 0.2))) + 0.5 * rng.standard_normal(len(time))
    one = _filter(throat, _peaks((650, 150, 1), (1300, 250, 0.7), (2400, 400, 0.2)))
    one *= np.sin(np.pi * time / 0.2) ** 0.7
    return _scatter(round(0.55 * SAMPLING_RATE), (one, 0.9 * one), (0, round(0.28 * SAMPLING_RATE)))


def _clap(rng: np.random.Generator) -> np.ndarray:
    time = _time(0.15)
    envelope = np.exp(-45 * time) + sum(np.exp(-400 * np.abs(time - late)) for late in rng.uniform(0.005, 0.03, 3))
    return _noise(rng, len(time), 900, 3200) * envelope


def _knock(rng: np.random.Generator) -> np.ndarray:
    time, pitch = _time(0.12), rng.uniform(180, 230)
    one = sum(
        a * np.exp(-decay * time) * np.sin(2 * np.pi * pitch * ratio * time)
        for ratio, a, decay in ((1, 1, 40), (2.3, 0.8, 55), (3.9, 0.5, 70))
    )
    starts = [round(start * SAMPLING_RATE) for start in (0, 0.16, 0.32)]
    return _scatter(round(0.46 * SAMPLING_RATE), (one,) * 3, starts)


def _croak(rng: np.random.Generator) -> np.ndarray:
    time, rate = _time(0.45), rng.uniform(34, 42)
    pulses = np.exp(-55 * (np.cumsum(rate + 30 * time) / SAMPLING_RATE % 1) / rate)
    throat = _filter(pulses * rng.standard_normal(len(time)), _peaks((850, 90, 1), (1750, 150, 0.5)))
    return throat * np.minimum(1, np.minimum(time / 0.12, (0.45 - time) / 0.05))


# Name -> one strike, and the range of the time between two in seconds.
STRIKE: dict[str, tuple[Callable[[np.random.Generator], np.ndarray], float, float]] = {
    "bell": (_bell, 0.7, 1.1),
    "drum": (_drum, 0.4, 0.6),
    "horn": (_horn, 0.7, 1.1),
    "whistle": (_whistle, 0.75, 1.1),
    "dog": (_bark, 0.8, 1.2),
    "clap": (_clap, 0.25, 0.4),
    "knock": (_knock, 0.75, 1.1),
    "frog": (_croak, 0.7, 1.0),
}


# --- Streams ----------------------------------------------------------------------------------------------------------


def _engine(rng: np.random.Generator, count: int) -> np.ndarray:
    time = np.arange(count) / SAMPLING_RATE
    speed = rng.uniform(42, 58) * (1 + 0.06 * np.sin(2 * np.pi * rng.uniform(0.3, 0.6) * time))
    beat = np.cumsum(speed) / SAMPLING_RATE
    firing = (_saw(speed) + 0.4 * rng.standard_normal(count)) * (1 + 0.5 * np.sin(np.pi * beat))
    return _filter(firing, lambda f: 1 / (1 + (f / 450) ** 3) / (1 + (25 / np.maximum(f, 1)) ** 4))


def _rain(rng: np.random.Generator, count: int) -> np.ndarray:
    drops = np.zeros(count)
    hits = rng.integers(count, size=count // 400)
    drops[hits] = rng.exponential(6, size=len(hits))
    return _noise(rng, count, 1800, 8000) + _filter(drops, _peaks((4200, 1500, 1)))


def _birds(rng: np.random.Generator, count: int) -> np.ndarray:
    pieces, starts, at = [], [], 0.05
    while at < count / SAMPLING_RATE - 0.2:
        pitch, sweep = rng.uniform(3400, 4800), rng.choice((-1, 1)) * rng.uniform(600, 1400)
        for _ in range(rng.integers(2, 6)):
            time = _time(rng.uniform(0.06, 0.12))
            progress = time / time[-1]
            pieces.append(_sine(pitch + sweep * (progress - 0.5)) * np.sin(np.pi * progress))
            starts.append(round(at * SAMPLING_RATE))
            at += len(time) / SAMPLING_RATE + 0.03
        at += rng.uniform(0.08, 0.3)
    kept = [(piece, start) for piece, start in zip(pieces, starts, strict=True) if start < count]
    return _scatter(count, *zip(*kept, strict=True))


def _piano(rng: np.random.Generator, count: int) -> np.ndarray:
    scale = 220 * 2 ** (np.array([0, 2, 4, 7, 9, 12, 14, 16, 19, 21, 24]) / 12)
    beat, step, pieces, starts = rng.uniform(0.22, 0.3), int(rng.integers(len(scale))), [], []
    for start in np.arange(0, count / SAMPLING_RATE - 0.1, beat):
        time, pitch = _time(0.8), scale[step]
        harmonics = sum(np.sin(2 * np.pi * pitch * k * time) * np.exp(-(2 + 1.5 * k) * time) / k for k in range(1, 7))
        pieces.append(harmonics * np.minimum(1, time / 0.004))
        starts.append(round(start * SAMPLING_RATE))
        step = int(np.clip(step + rng.choice((-2, -1, 1, 2)), 0, len(scale) - 1))
    return _scatter(count, pieces, starts)


def _siren(rng: np.random.Generator, count: int) -> np.ndarray:
    time = np.arange(count) / SAMPLING_RATE
    sweep = np.sin(2 * np.pi * time / rng.uniform(1.1, 1.6) + rng.uniform(0, 2 * np.pi))
    pitch = rng.uniform(900, 1050) * 2 ** (0.55 * sweep)
    return sum((_sine(k * pitch) / k**1.5 for k in (1, 2, 3)), np.zeros(count))


def _clock(rng: np.random.Generator, count: int) -> np.ndarray:
    time, gap = _time(0.06), rng.uniform(0.28, 0.36)
    starts = np.round(np.arange(0.02, count / SAMPLING_RATE, gap) * SAMPLING_RATE).astype(int)
    click = _noise(rng, len(time), 2500, 9000) * np.exp(-120 * time)
    tick, tock = (click + 2 * np.exp(-70 * time) * np.sin(2 * np.pi * pitch * time) for pitch in (3100, 2300))
    return _scatter(count, [(tick, tock)[k % 2] for k in range(len(starts))], starts)


VOWELS = (  # formants (centre, width, height) of a man's a, e, i, o, u
    ((730, 80, 1), (1090, 90, 0.6), (2440, 150, 0.2)),
    ((530, 70, 1), (1840, 110, 0.5), (2480, 150, 0.25)),
    ((290, 60, 1), (2250, 120, 0.4), (3000, 170, 0.25)),
    ((500, 70, 1), (880, 80, 0.6), (2400, 150, 0.1)),
    ((320, 60, 1), (870, 80, 0.4), (2240, 150, 0.1)),
)


def _voice(rng: np.random.Generator, count: int, pitch: float, tract: float) -> np.ndarray:
    """Babble: four or five syllables per second, each a vowel with a gliding pitch, sometimes after an s; and pauses."""
    pieces, starts, at = [], [], 0.0
    while at < count / SAMPLING_RATE:
        time = _time(rng.uniform(0.13, 0.24))
        progress = time / time[-1]
        if rng.random() < 0.3:
            hiss = _time(0.08)
            pieces.append(0.25 * _noise(rng, len(hiss), 4000, 8000) * np.sin(np.pi * hiss / 0.08))
            starts.append(round(at * SAMPLING_RATE))
            at += 0.07
        glide = pitch * rng.uniform(0.9, 1.15) * (1 + rng.uniform(-0.15, 0.1) * progress)
        vowel = [(tract * centre, tract * width, height) for centre, width, height in VOWELS[rng.integers(5)]]
        syllable = _filter(_saw(glide), _peaks(*vowel)) * np.sin(np.pi * progress) ** 0.6
        pieces.append(syllable / np.abs(syllable).max())
        starts.append(round(at * SAMPLING_RATE))
        at += len(time) / SAMPLING_RATE + (rng.uniform(0.15, 0.3) if rng.random() < 0.2 else 0.02)
    kept = [(piece, start) for piece, start in zip(pieces, starts, strict=True) if start < count]
    return _scatter(count, *zip(*kept, strict=True))


STREAM: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "engine": _engine,
    "rain": _rain,
    "man": lambda rng, count: _voice(rng, count, rng.uniform(92, 115), 1.0),
    "birds": _birds,
    "piano": _piano,
    "siren": _siren,
    "woman": lambda rng, count: _voice(rng, count, rng.uniform(210, 245), 1.2),
    "clock": _clock,
}
