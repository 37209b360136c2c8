"""Chorales of Bach in four voices at sixteenths: masks in any order, and over all that is still to come.

    d3pm train configs/chorales_causal.py --data.file jsb16.npz --workdir runs/causal
    d3pm train configs/chorales.py --from runs/causal --data.file jsb16.npz --workdir runs/chorales
    python benchmarks/exact_chorales.py chronological runs/chorales --data jsb16.npz
    python benchmarks/exact_chorales.py random runs/chorales --data jsb16.npz

The first trains the same network with one direction of time, in which it learns from each note at once, and
the second goes on from its weights. The others compute exact likelihoods, in nats per note.

The file holds arrays `train`, `valid` and `test` of whole numbers [frames, 4], the MIDI pitches of soprano,
alto, tenor and bass, -1 for silence, all pieces in a row; and `train_lengths` and so on, the frames of each.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from d3pm_jax import config, losses
from d3pm_jax.config import Absorbing, Config, Head, Muon, Reciprocal, Train, WSDRate
from d3pm_jax.data import Description, Source
from d3pm_jax.data.source import FunctionSource
from d3pm_jax.models.layers import apply_to_rows, draw_kept, dropout, mask_out, split_by_layer
from d3pm_jax.models.transformer import Block, gelu, rotary_angles

LOWEST, HIGHEST = 36, 81  # MIDI pitches
SILENT = 0  # category 1 is the lowest pitch
CATEGORIES = HIGHEST - LOWEST + 2
MASK = CATEGORIES
VOICES = 4
BAR = 16  # frames, where a beat is a quarter
LARGEST = 12  # semitones of a step of a voice that the network tells apart
INTERVALS = 2 * LARGEST + 2  # the last stands for one that is not known
OLDEST = 16  # frames that a note has been held


@dataclasses.dataclass(frozen=True)
class Chorales(config.Data):
    """Describes windows of chorales; the label of one is the frame of the bar at which it begins."""

    file: str
    """an .npz file of pieces"""
    frames: int = 32
    """frames of a window"""
    transposed: float = 0.8
    """share of the windows that training moves by -5 to 6 semitones, as far as the voices allow"""
    places: ClassVar[tuple[str, ...]] = ("file",)
    has_valid: ClassVar[bool] = True  # pyright: ignore[reportIncompatibleMethodOverride]

    def describe(self) -> Description:
        return Description((self.frames, VOICES), CATEGORIES, classes=BAR)

    def read_pieces(self, split: str) -> list[np.ndarray]:
        """Reads the pieces of a split, int32 [frames, 4] each."""
        with np.load(self.file) as arrays:
            pitches = arrays[split].astype(np.int32)
            lengths = arrays[f"{split}_lengths"]
        notes = np.where(pitches < 0, SILENT, pitches - LOWEST + 1)
        return np.split(notes, np.cumsum(lengths)[:-1])

    def open(self, split: str) -> Source:
        return self.cut_windows(self.read_pieces(split), self.frames)

    def open_training(self) -> Source:
        return self.cut_windows(self.read_pieces("train"), 1)

    def cut_windows(self, pieces: list[np.ndarray], stride: int) -> Source:
        """Returns the windows that begin at every frame of a piece that the stride divides."""
        starts = []
        for number, piece in enumerate(pieces):
            starts += [(number, start) for start in range(0, len(piece) - self.frames + 1, stride)]

        def read(index: int) -> dict[str, Any]:
            number, start = starts[index]
            return {"x": pieces[number][start : start + self.frames], "label": start % BAR}

        return FunctionSource(len(starts), read)

    def random_map(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        semitones = int(rng.integers(-5, 7))
        if rng.random() >= self.transposed:
            return example
        return {**example, "x": transpose(example["x"], semitones)}


# The range of each voice in the training pieces, as categories.
VOICE_RANGES = np.array([(60, 81), (52, 74), (46, 69), (36, 66)]) - LOWEST + 1


def transpose(notes: np.ndarray, semitones: int) -> np.ndarray:
    """Moves all notes by so many semitones, or by as many fewer as keep every voice in its range."""
    sounding = notes != SILENT
    if not sounding.any():
        return notes
    below = np.where(sounding, notes - VOICE_RANGES[:, 0], HIGHEST).min()
    above = np.where(sounding, VOICE_RANGES[:, 1] - notes, HIGHEST).min()
    return np.where(sounding, notes + np.clip(semitones, -max(0, below), max(0, above)), SILENT)


class ChoraleNet(nnx.Module):
    """Maps notes [B, F, 4] to logits [B, F, 4, K]: attention over frames, then a small network for a voice.

    A frame is one vector. It begins as the sum of vectors for the notes before it, how these moved, how long
    they have been held and which chord they are, and where in the bar the frame is; where the network is not
    causal also for its own notes and the next. A voice adds what it sees of the other voices. The last layer
    gives logits of pitches, and of intervals to the note before and to the next.

    Args:
        K: categories, of which the last is the mask.
        width: of the vectors.
        num_layers: blocks of attention.
        num_heads: of every attention.
        dropout: rate, of what a block adds.
        feature_dropout: rate, of the vectors of which a frame is the sum.
        causal: a note sees the frames before its own, and of its own frame the voices before it, alone.
        rngs: for the initial weights.
    """

    def __init__(
        self,
        K: int,
        width: int,
        num_layers: int,
        num_heads: int,
        dropout: float,
        feature_dropout: float,
        causal: bool,
        rngs: nnx.Rngs,
    ):
        self.K = K
        self.width = width
        self.num_heads = num_heads
        self.dropout_rate = dropout
        self.feature_dropout = feature_dropout
        self.causal = causal
        self.before = Table([K] * 4 + [INTERVALS] * 4 + [OLDEST + 1] * 4 + [13] * 3 + [BAR], width, rngs)
        self.beside = Table([K] * 8 + [INTERVALS] * 8 + [13] * 3, width, rngs)
        self.others = Table([K] * 4 + [INTERVALS] * 4, width, rngs)
        self.relations = Table([4 * LARGEST + 2] * 16, width, rngs)
        self.voice = nnx.Embed(VOICES, width, rngs=rngs)
        blocks = [Block(width, num_heads, 4, dropout, False, None, rngs) for _ in range(num_layers)]
        self.blocks = nnx.List(blocks)
        self.norm1 = nnx.LayerNorm(width, rngs=rngs)
        self.mlp1 = nnx.Linear(width, 4 * width, rngs=rngs)
        self.mlp2 = nnx.Linear(4 * width, width, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, rngs=rngs)
        zeros = nnx.initializers.zeros_init()
        self.head = nnx.Linear(width, K + 2 * (INTERVALS - 1), kernel_init=zeros, rngs=rngs)

    def __call__(self, xt: Array, t: Array, *, label: Array, key: Array | None = None) -> Array:
        B, F, _ = xt.shape
        before = delay(xt)  # [B, F, 4]
        after = jnp.full_like(xt, self.K - 1)
        motion = find_interval(before, xt, LARGEST)
        phase = (label[:, None] + jnp.arange(F)[None]) % BAR  # [B, F]
        features = [before, delay(motion, INTERVALS - 1), count_held(before), find_chord(before)]
        features = jnp.concatenate([*features, phase[..., None]], axis=-1)
        keys = split_by_layer(key)
        x = self.before(features, self.feature_dropout, next(keys)).sum(axis=2)  # [B, F, width]
        if not self.causal:
            after = jnp.concatenate([xt[:, 1:], after[:, :1]], axis=1)
            features = [xt, after, motion, find_interval(xt, after, LARGEST), find_chord(xt)]
            features = jnp.concatenate(features, axis=-1)
            x = x + self.beside(features, self.feature_dropout, next(keys)).sum(axis=2)

        attended = None
        if self.causal:
            attended = jnp.broadcast_to(jnp.tri(F, dtype=bool)[None], (B, F, F))
        angles = rotary_angles(F, self.width // self.num_heads)
        for block in self.blocks:
            x = block(x, None, angles, attended, next(keys))

        # A voice sees the others of its frame, or those before it.
        if self.causal:
            seen = jnp.tri(VOICES, k=-1)
        else:
            seen = 1.0 - jnp.eye(VOICES)
        own = jnp.concatenate([xt, motion], axis=-1)
        own = self.others(own, self.feature_dropout, next(keys))  # [B, F, 8, width]
        own = own[:, :, :VOICES] + own[:, :, VOICES:]
        relations = find_interval(before[..., None], xt[..., None, :], 2 * LARGEST)  # [B, F, 4, 4]
        relations = self.relations(relations.reshape(B, F, 16), self.feature_dropout, next(keys))
        relations = relations.reshape(B, F, VOICES, VOICES, -1)
        h = x[:, :, None] + self.voice.embedding[...][None, None] + jnp.einsum("vu,bfuw->bfvw", seen, own)
        h = h + jnp.einsum("vu,bfvuw->bfvw", seen, relations)
        hidden = gelu(apply_to_rows(self.mlp1, self.norm1(h)))
        h = h + dropout(apply_to_rows(self.mlp2, hidden), self.dropout_rate, next(keys))
        outputs = apply_to_rows(self.head, self.norm2(h))  # [B, F, 4, K + 50]
        logits, of_motion, of_next = jnp.split(outputs, [self.K, self.K + INTERVALS - 1], axis=-1)
        logits = logits + place_intervals(of_motion, before, self.K)
        if not self.causal:
            logits = logits + place_intervals(of_next, after, self.K)
        return logits


class Table(nnx.Module):
    """Holds vectors for the values of several features, whose numbers are below their sizes."""

    def __init__(self, sizes: list[int], width: int, rngs: nnx.Rngs):
        self.starts = tuple(np.cumsum([0, *sizes[:-1]]).tolist())
        self.embedding = nnx.Param(0.02 * jax.random.normal(rngs.params(), (sum(sizes), width)))

    def __call__(self, values: Array, rate: float, key: Array | None) -> Array:
        """Returns the vector of each value [.., n, width], for values [.., n]; with a key some are 0."""
        vectors = self.embedding[...][values + jnp.asarray(self.starts)[None, None]]
        return mask_out(vectors, draw_kept(key, rate, (*values.shape, 1)), rate)


def is_pitch(x: Array) -> Array:
    """Tells which categories are pitches."""
    return (x != SILENT) & (x != MASK)


def delay(x: Array, first: int = MASK) -> Array:
    """Returns of each frame the one before, and `first` where there is none."""
    return jnp.concatenate([jnp.full_like(x[:, :1], first), x[:, :-1]], axis=1)


def find_interval(a: Array, b: Array, largest: int) -> Array:
    """Returns the interval from a to b in 0..2 largest, or 2 largest + 1 where one of them is no pitch."""
    interval = jnp.clip(b - a, -largest, largest) + largest
    return jnp.where(is_pitch(a) & is_pitch(b), interval, 2 * largest + 1)


def find_chord(x: Array) -> Array:
    """Returns the intervals from the bass to the other voices within an octave, 12 where not known."""
    bass = x[..., 3:]
    return jnp.where(is_pitch(x) & is_pitch(bass), (x - bass) % 12, 12)[..., :3]


def count_held(x: Array) -> Array:
    """Returns for how many frames before it a note has been the same, at most 16; 0 for a mask."""
    frames = jnp.arange(x.shape[1])[None, :, None]
    began = jax.lax.cummax(jnp.where(x != delay(x), frames, 0), axis=1)
    return jnp.where(x == MASK, 0, jnp.minimum(frames - began, OLDEST))


def place_intervals(logits: Array, origin: Array, K: int) -> Array:
    """Returns logits of categories [.., K] from those of intervals to a pitch [.., 25]; 0 elsewhere."""
    categories = jnp.arange(K).reshape((1,) * origin.ndim + (K,))
    interval = find_interval(origin[..., None], categories, 2 * HIGHEST) - 2 * HIGHEST + LARGEST
    outside = (interval < 0) | (interval >= INTERVALS - 1)
    padded = jnp.pad(logits, [(0, 0)] * (logits.ndim - 1) + [(0, 1)])
    return jnp.take_along_axis(padded, jnp.where(outside, INTERVALS - 1, interval), axis=-1)


@dataclasses.dataclass(frozen=True)
class Chorale(config.Model):
    """Builds the network of chorales."""

    width: int = 128
    """numbers of a vector"""
    num_layers: int = 4
    """blocks of attention"""
    num_heads: int = 4
    """heads of every attention"""
    dropout: float = 0.4
    """dropout rate in training"""
    feature_dropout: float = 0.3
    """dropout rate of what is known of a frame: its notes, their motion and so on"""
    causal: bool = False
    """a note sees those before it alone"""

    def build(self, spec: config.Spec, rngs: nnx.Rngs) -> nnx.Module:
        return ChoraleNet(
            spec.K,
            self.width,
            self.num_layers,
            self.num_heads,
            self.dropout,
            self.feature_dropout,
            self.causal,
            rngs,
        )


@dataclasses.dataclass(frozen=True)
class HalfPrefixes(config.Objective):
    """Minimises the bound for every second example; of the others all notes from a random one on are masked.

    Of these the loss is that of the frame of this note, and with a smaller weight that of later frames.
    """

    later: float = 0.25
    """weight of the mean of later frames"""
    nearness: float = 4.0
    """how near the end of the window the first masked note is: its place is F u^(1 / nearness)"""

    def draw(self, process: Any, x0: Array, t: Array, u: Array) -> Array:
        frame, voice = self.draw_first(x0, u)
        frames = jnp.arange(x0.shape[1])[None, :, None]
        is_later_voice = jnp.arange(VOICES)[None, None] >= voice
        is_later = (frames > frame) | ((frames == frame) & is_later_voice)  # [B, F, 4]
        masked = jnp.where(is_prefix(x0), is_later, u < (t / process.T)[:, None, None])
        return jnp.where(masked, process.K - 1, x0)

    def draw_first(self, x0: Array, u: Array) -> tuple[Array, Array]:
        """Returns the frame and the voice of the first masked note, [B, 1, 1] each."""
        frame = x0.shape[1] * u[:, :1, :1] ** (1 / self.nearness)
        voice = VOICES * u[:, 1:2, :1]
        return frame.astype(jnp.int32), voice.astype(jnp.int32)

    def terms(self, process: Any, logits: Array, x0: Array, xt: Array, t: Array, p_t: Array) -> config.Terms:
        ce = losses.cross_entropy(process, logits, x0)
        masked = xt == process.K - 1
        ce = jnp.where(masked, ce, 0.0)
        kl = ce / t[:, None, None]
        frame = jnp.argmax(masked.any(axis=-1), axis=1)[:, None, None]
        is_own = jnp.arange(x0.shape[1])[None, :, None] == frame
        own = masked & is_own
        later = masked & ~is_own
        weight = own / jnp.maximum(1, own.sum((1, 2), keepdims=True))
        weight = weight + self.later * later / jnp.maximum(1, later.sum((1, 2), keepdims=True))
        elements = x0.shape[1] * VOICES
        loss = jnp.where(is_prefix(x0), ce * weight * elements, kl / p_t[:, None, None])
        return config.Terms(loss, kl, ce)


def is_prefix(x0: Array) -> Array:
    """Tells which examples of a batch have all masks at their end, every second one: [B, 1, 1]."""
    return (jnp.arange(len(x0)) % 2 == 1)[:, None, None]


@dataclasses.dataclass(frozen=True)
class NextNotes(config.Objective):
    """Minimises -log p of each note by a causal network, which is shown all of the example."""

    def draw(self, process: Any, x0: Array, t: Array, u: Array) -> Array:
        return x0

    def terms(self, process: Any, logits: Array, x0: Array, xt: Array, t: Array, p_t: Array) -> config.Terms:
        ce = losses.cross_entropy(process, logits, x0)
        return config.Terms(losses.variational.per_step(ce, p_t, process.T), ce, ce)


def get_config() -> Config:
    return Config(
        data=Chorales("jsb16.npz"),
        process=Absorbing(K="data", steps=128, beta=Reciprocal(), mask_id="data"),
        model=Chorale(),
        head=Head(residual=False),
        loss=HalfPrefixes(),
        # The rate is constant for 2,000 steps.
        optimizer=Muon(
            lr=4e-3, warmup_steps=100, weight_decay=0.5, rate=WSDRate(steps=3000, decay_steps=1000)
        ),
        train=Train(steps=1500, batch_size=32, ema_decay=0.99, checkpoint_every=100, log_every=25),
    )


def get_causal_config() -> Config:
    """Returns the config of chorales_causal.py."""
    return dataclasses.replace(get_config(), model=Chorale(causal=True), loss=NextNotes())
