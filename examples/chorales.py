"""Chorales in four voices: any notes drawn to go with any others; piano rolls, MIDI files, parallels counted.

d3pm train examples/chorales.py --data.file Jsb16thSeparated.json --workdir runs/chorales
d3pm eval runs/chorales --config examples/chorales.py --samples 256 --steps 8,32,128,512
d3pm sample runs/chorales --config examples/chorales.py --given soprano.npy --known soprano
python examples/chorales.py runs/chorales/samples.npy song      # song0.mid, song1.mid, ...
"""

import dataclasses
import itertools
import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image, ImageDraw

from d3pm_jax import config, extras, kinds
from d3pm_jax.data import ArraySource, Description, open_npy
from d3pm_jax.errors import UserError
from d3pm_jax.kinds.blocks import Strip, Tiles
from d3pm_jax.models.layers import dropout, split_by_layer
from d3pm_jax.models.transformer import Block, rotary_angles

# For other voices: the lowest and the highest MIDI pitch of each. A note is its pitch, and 0 is silence.
VOICES = {"soprano": (60, 81), "alto": (52, 74), "tenor": (46, 69), "bass": (36, 66)}
COLOURS = [(213, 94, 0), (0, 158, 115), (86, 180, 233), (0, 0, 0), (204, 121, 167)]
BAR, BEAT = 16, 4  # frames
LOWEST, HIGHEST = np.array(list(VOICES.values())).T


@dataclasses.dataclass(frozen=True)
class Chorales(config.Data):
    file: str = "Jsb16thSeparated.json"
    """the JSON of github.com/czhuang/JSB-Chorales-dataset, or an .npz of pieces in a row and lengths"""
    frames: int = 64
    """frames of a window"""
    places = ("file",)

    def describe(self):
        return Description((self.frames, len(VOICES)), int(max(HIGHEST)) + 1, kind="chorales")

    def own_kind(self):
        return ChoraleKind

    def open(self, split):
        if self.file.endswith(".json"):
            pieces = json.loads(Path(self.file).read_text())[split]
        else:
            with np.load(self.file) as arrays:
                pieces = np.split(arrays[split], np.cumsum(arrays[f"{split}_lengths"])[:-1])
        windows = []
        for number, piece in enumerate(pieces):
            name = f"{self.file}, piece {number} of {split}"
            if len(piece) < self.frames:
                raise UserError(f"{name} has {len(piece)} frames: drop it, or use --data.frames {len(piece)}")
            notes = np.maximum(piece, 0).astype(np.int32)
            for frame, voice in np.argwhere((notes > 0) & ((notes < LOWEST) | (notes > HIGHEST))):
                note = f"{list(VOICES)[voice]} {notes[frame, voice]} in frame {frame}"
                raise UserError(f"{name}: {note} is out of range: transpose the piece, or widen VOICES")
            starts = range(0, len(notes) - self.frames + 1, BAR if split == "train" else self.frames)
            windows += [notes[start : start + self.frames] for start in starts]
        return ArraySource(np.array(windows))

    def random_map(self, example, rng):
        """Transposes by up to six semitones, as far as all voices stay in their ranges."""
        notes = example["x"]
        down = np.min(notes - LOWEST, where=notes > 0, initial=6)
        up = np.min(HIGHEST - notes, where=notes > 0, initial=6)
        return {"x": np.where(notes > 0, notes + rng.integers(-down, up + 1), 0)}


class ChoraleKind(kinds.Kind):
    name = plural = "chorales"
    sample_files = "pictures"
    shown_in_file = samples_drawn = examples_kept = 2
    quality = kinds.QualityTable(
        columns={"parallels": "parallels", "error": "+-", "moves": "moves"},
        also=(),
        headline=("parallels", "parallels"),
        words="Parallel fifths, octaves and unisons per 1,000 frames, their error, and how many notes move.",
    )

    def show_samples(self, samples):
        return Tiles(draw_rolls(samples.x), f"piano rolls of {', '.join(VOICES)}", columns=1)

    def show_chain(self, states):
        return Strip(draw_rolls(states.x)[..., 12:, :, :], states.times)  # without the names of voices

    def parse_known(self, word, shape):
        """Reads which voice or bar stays, or is drawn: "soprano", "bar3", "not bar3"; or a file."""
        frames, voices = np.indices(shape)
        known = {name: voices == voice for voice, name in enumerate(VOICES)}
        known |= {f"bar{bar + 1}": frames // BAR == bar for bar in range(shape[0] // BAR)}
        known |= {f"not {name}": ~is_known for name, is_known in known.items()}
        if word in known:
            return known[word]
        if not word.endswith(".npy"):
            raise UserError(f"--known {word}: take a .npy file, or {', '.join(known)}")
        return super().parse_known(word, shape)

    def prepare_quality(self, train, test, num, batch_size=128, inception=None):
        figures = {"train": measure(train.read()["x"]).figures, "test": measure(test.read(num)["x"]).figures}
        return kinds.Reference(f"{len(train)} windows", "parallels", figures, measure)


def measure(notes):
    """Measures notes [N, F, V]. In parallels two voices rise or fall together, a fifth or octave apart."""
    parallels = np.zeros(len(notes))  # per 1,000 frames
    for first, second in itertools.combinations(np.moveaxis(notes, 2, 0), 2):  # [N, F] each
        interval = np.where((first > 0) & (second > 0), abs(first - second) % 12, -1)
        stays = np.isin(interval[:, 1:], [0, 7]) & (np.diff(interval) == 0)
        moves_along = np.diff(first) * np.diff(second) > 0
        parallels += 1000 * np.mean(stays & moves_along, axis=1)
    error = parallels.std() / len(notes) ** 0.5
    figures = {"parallels": parallels.mean(), "error": error, "moves": np.mean(np.diff(notes, axis=1) != 0)}
    return kinds.Measured({"n": len(notes), **{name: float(value) for name, value in figures.items()}})


def draw_rolls(x):
    """Draws notes [.., F, V], uint8 [.., H, W, 3]: bars are shaded, each C is a line, masks are below."""
    pitches = np.arange(max(HIGHEST) + 1, min(LOWEST) - len(VOICES) - 2, -1).repeat(4)  # of rows of pixels
    x = x.repeat(8, axis=-2)  # by columns of pixels
    rolls = np.full((*x.shape[:-2], len(pitches), x.shape[-2], 3), 255, np.uint8)
    rolls[..., np.arange(x.shape[-2]) // (8 * BAR) % 2 == 1, :] = 235
    rolls[..., :: 8 * BEAT, :] = 210
    rolls[..., pitches % 12 == 0, :, :] = 200
    title = Image.new("RGB", (x.shape[-2], 12), "white")
    for voice, name in reversed(list(enumerate(VOICES))):
        heights = np.where(x[..., voice] > max(HIGHEST), min(LOWEST) - 2 - voice, x[..., voice])
        rolls[heights[..., None, :] == pitches[:, None]] = COLOURS[voice]
        ImageDraw.Draw(title).text((64 * voice, 0), name, COLOURS[voice])
    return np.concatenate([np.broadcast_to(title, (*x.shape[:-2], *np.shape(title))), rolls], axis=-3)


def write_midi(frames, path):
    """Writes notes [F, V] as a MIDI file with a track for each voice."""
    extras.require("MIDI", "symusic", extra="midi")
    import symusic

    score = symusic.Score(BEAT)
    for name, line in zip(VOICES, frames.T, strict=True):
        track = symusic.Track(name)
        starts = np.flatnonzero(np.diff(line, prepend=-1))
        for start, end in itertools.pairwise([*starts.tolist(), len(line)]):
            if line[start] > 0:
                track.notes.append(symusic.Note(start, end - start, int(line[start]), velocity=80))
        score.tracks.append(track)
    score.dump_midi(path)


class ChoirNet(nnx.Module):
    """Maps notes [B, F, V] to logits [B, F, V, K]: near frames at once, then all by attention."""

    def __init__(self, K, width, rngs):
        V = len(VOICES)
        self.K = K
        self.notes = nnx.Embed(V * K, width // 2, rngs=rngs)
        self.beats = nnx.Embed(BAR, width, rngs=rngs)
        self.nearby = nnx.Conv(V * width // 2, width, (5,), rngs=rngs)
        self.blocks = nnx.List([Block(width, 4, 2, 0.2, False, None, rngs) for _ in range(3)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, V * K, rngs=rngs)

    def __call__(self, xt, t, *, label=None, key=None):
        B, F, V = xt.shape
        keys = split_by_layer(key)
        notes = dropout(self.notes(xt + self.K * jnp.arange(V)[None, None]), 0.2, next(keys))
        x = self.nearby(notes.reshape(B, F, -1)) + self.beats(jnp.arange(F) % BAR)[None]  # [B, F, width]
        for block in self.blocks:
            x = block(x, None, rotary_angles(F, x.shape[-1] // 4), None, next(keys))
        return self.head(self.norm(x)).reshape(B, F, V, self.K)


@dataclasses.dataclass(frozen=True)
class Choir(config.Model):
    width: int = 128
    see_time = False

    def build(self, spec, rngs):
        return ChoirNet(spec.K, self.width, rngs)


def get_config():
    return config.Config(
        data=Chorales(),
        process=config.Absorbing(K="data", steps=512, beta=config.Reciprocal(), mask_id="data"),
        model=Choir(),
        head=config.Head(residual=False),
        loss=config.HybridLoss(ce_weight=0.0),
        optimizer=config.Muon(lr=4e-3, warmup_steps=100, weight_decay=0.5, rate=config.WSDRate(3000, 1000)),
        train=config.Train(steps=3000, batch_size=32, ema_decay=0.995),
    )


if __name__ == "__main__":
    for number, frames in enumerate(open_npy(sys.argv[1])):
        write_midi(frames, f"{sys.argv[2]}{number}.mid")
