"""Chorales in four voices: any notes drawn to go with any others; piano rolls and MIDI files.

d3pm train examples/chorales.py --data.file Jsb16thSeparated.json --workdir runs/chorales
d3pm eval runs/chorales --config examples/chorales.py
d3pm sample runs/chorales --config examples/chorales.py --given soprano.npy --known soprano
python examples/chorales.py runs/chorales/samples.npy song      # song0.mid, song1.mid, ...
"""

import dataclasses
import itertools
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx

from d3pm_jax import config, extras, kinds
from d3pm_jax.data import ArraySource, Description, open_npy
from d3pm_jax.errors import UserError
from d3pm_jax.models.layers import dropout, split_by_layer
from d3pm_jax.models.transformer import Block, rotary_angles

# For other voices: the lowest and the highest MIDI pitch of each. A note is its pitch, and 0 is silence.
VOICES = {"soprano": (60, 81), "alto": (52, 74), "tenor": (46, 69), "bass": (36, 66)}
COLOURS = [(213, 94, 0), (0, 158, 115), (86, 180, 233), (0, 0, 0), (204, 121, 167)]
BAR, BEAT = 16, 4  # frames; a piece with an upbeat has its bar lines elsewhere
LOWEST, HIGHEST = np.array(list(VOICES.values())).T
FORM = f"[frames, {len(VOICES)}] of whole pitches of {', '.join(VOICES)}, where 0 or -1 is silence"


def check_notes(name, notes):
    """Returns notes [F, V] with 0 for silence, which may also be -1; a UserError says what they are."""
    if notes.dtype.kind not in "iu" or notes.shape[1:] != LOWEST.shape or len(notes) == 0:
        raise UserError(f"{name} is {notes.dtype} {list(notes.shape)}: pass {FORM}, or change VOICES")
    wrong = np.argwhere((notes < -1) | ((notes > 0) & (notes < LOWEST)) | (notes > HIGHEST))
    if len(wrong) > 0:
        frame, voice = wrong[0]
        note = f"{list(VOICES)[voice]} {notes[frame, voice]} in frame {frame}"
        raise UserError(f"{name}: {note} is out of range: transpose the piece, or widen VOICES")
    return np.maximum(notes, 0).astype(np.int32)


def read_pieces(file, split):
    """Reads the pieces of a split, an array each."""
    try:
        if not file.endswith(".npz"):
            return [np.array(piece) for piece in json.loads(Path(file).read_text())[split]]
        with open(file, "rb") as opened, np.load(opened) as arrays:
            notes, lengths = arrays[split], arrays[f"{split}_lengths"]
        numbers = np.repeat(np.arange(len(lengths)), lengths)  # that of its piece, for each frame
        return [notes[numbers == number] for number in range(len(lengths))]
    except OSError:
        raise
    except Exception as error:  # there are many ways in which a file may be another one
        form = '{"train": [piece, ...], "test": [piece, ...]} as JSON, each piece'
        raise UserError(f"{file} has no pieces of {split} in its place: write {form} {FORM}") from error


@dataclasses.dataclass(frozen=True)
class Chorales(config.Data):
    file: str = "Jsb16thSeparated.json"  # of czhuang/JSB-Chorales-dataset; or .npz
    frames: int = 64  # of a window
    places = ("file",)  # where the data lies, not what it is: another path goes on with the same run

    def describe(self):
        return Description((self.frames, len(VOICES)), int(max(HIGHEST)) + 1, kind="chorales")

    def own_kind(self):
        return ChoraleKind

    def open(self, split):
        windows = []
        for number, piece in enumerate(read_pieces(self.file, split)):
            name = f"{self.file}, piece {number} of {split}"
            notes = check_notes(name, piece)
            if not 0 < self.frames <= len(notes):
                raise UserError(f"{name} has {len(notes)} frames: drop it, or use --data.frames {len(notes)}")
            starts = range(0, len(notes) - self.frames + 1, BAR if split == "train" else self.frames)
            windows += [notes[start : start + self.frames] for start in starts]
        windows = np.reshape(windows, (-1, self.frames, len(VOICES))).astype(np.int32)
        return ArraySource(windows, name=f"{split} of {self.file}")

    def random_map(self, example, rng):
        """Transposes by up to six semitones, as far as all voices stay in their ranges."""
        notes = example["x"]
        down = np.min(notes - LOWEST, where=notes > 0, initial=6)  # 6 if there is room for more
        up = np.min(HIGHEST - notes, where=notes > 0, initial=6)  # 6 if there is room for more
        return {"x": np.where(notes > 0, notes + rng.integers(-down, up + 1), 0)}


class ChoraleKind(kinds.Kind):
    name = plural = "chorales"
    sample_files = "pictures"
    shown_in_file = 2
    samples_drawn = 2
    examples_kept = 2

    def show_samples(self, samples):
        return kinds.blocks.Tiles(draw_rolls(samples.x), f"piano rolls of {', '.join(VOICES)}", columns=1)

    def show_chain(self, states):
        return kinds.blocks.Strip(draw_rolls(states.x), states.times)

    def read_given(self, path, shape):
        given = super().read_given(path, shape)
        return check_notes(f"--given {path}", given.reshape(-1, len(VOICES))).reshape(given.shape)

    def parse_known(self, word, shape):
        """Reads which voice or bar stays, or is drawn: "soprano", "bar3", "not bar3"; or a file."""
        frames, voices = np.indices(shape)
        known = {name: voices == voice for voice, name in enumerate(VOICES)}
        known |= {f"bar{bar + 1}": frames // BAR == bar for bar in range(shape[0] // BAR)}
        known |= {f"not {name}": ~is_known for name, is_known in known.items()}
        if word not in known and not word.endswith(".npy"):
            raise UserError(f"--known {word}: take a .npy file, or {', '.join(known)}")
        return known[word] if word in known else super().parse_known(word, shape)


def draw_rolls(x):
    """Draws notes [.., F, V], uint8 [.., H, W, 3]: bars are shaded, each C is a line, masks are below."""
    pitches = np.arange(max(HIGHEST) + 1, min(LOWEST) - len(VOICES) - 2, -1)  # of rows
    rolls = np.full((*x.shape[:-2], len(pitches), x.shape[-2], 3), 255, np.uint8)
    rolls[..., np.arange(x.shape[-2]) // BAR % 2 == 1, :] = 235
    rolls[..., pitches % 12 == 0, :, :] = 200
    for voice in reversed(range(len(VOICES))):  # so that higher voices cover lower ones
        mask_row = min(LOWEST) - 2 - voice
        heights = np.where(x[..., voice] > max(HIGHEST), mask_row, x[..., voice])
        rolls[heights[..., None, :] == pitches[:, None]] = COLOURS[voice % len(COLOURS)]
    return rolls.repeat(4, axis=-3).repeat(8, axis=-2)


class ChoirNet(nnx.Module):
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
        """Maps notes [B, F, V] to logits [B, F, V, K]: near frames at once, then all by attention."""
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


def main(samples: tyro.conf.Positional[str], prefix: tyro.conf.Positional[str]):
    """Writes each sample [F, V] of an .npy file as a MIDI file: PREFIX0.mid, PREFIX1.mid, ..."""
    extras.require("MIDI", "symusic", extra="midi")
    import symusic

    for number, sample in enumerate(np.atleast_1d(open_npy(samples))):
        notes = check_notes(f"{samples}, sample {number}", sample)
        score = symusic.Score(BEAT)
        score.tempos.append(symusic.Tempo(0, qpm=75))
        for name, line in zip(VOICES, notes.T, strict=True):
            starts = np.flatnonzero(np.diff(line, prepend=-1)).tolist()
            track = symusic.Track(name)
            for start, end in itertools.pairwise([*starts, len(line)]):
                if line[start] > 0:
                    track.notes.append(symusic.Note(start, end - start, line[start].item(), velocity=80))
            score.tracks.append(track)
        Path(f"{prefix}{number}.mid").write_bytes(score.dumps_midi())


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except (UserError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
