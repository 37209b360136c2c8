"""Defines what a kind of data is: all that a run has to know of what its examples look like."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from d3pm_jax.config.checks import undefined_method
from d3pm_jax.data import Description, Part, Source, count_categories, open_npy, read_batch
from d3pm_jax.errors import UserError, as_user_error
from d3pm_jax.evaluation import baselines
from d3pm_jax.evaluation.bound import count_elements
from d3pm_jax.kinds.blocks import (
    Associations,
    Block,
    Film,
    Histograms,
    Picture,
    Strip,
    TextFilm,
    draw_block,
)
from d3pm_jax.likelihood import bits_per_dim
from d3pm_jax.sampling import Known

# "x" [N, *S], and if there are any "label" [N], "weight" [N, *S] and "condition" [N, *C]
Batch = Mapping[str, np.ndarray]
SHOWN_CHAINS = 4  # whose states are shown side by side
STATES = 10  # of a chain, shown side by side
# A chain that plays has these states, and four more between any two of them.
FRAMES = 5 * (STATES - 1) + 1


class Samples(NamedTuple):
    """Holds samples, or examples of the data, with what a picture of them needs to know."""

    x: np.ndarray  # int [N, *S]; -1 is padding
    levels: int  # categories that the data may have; others are masks
    conditions: np.ndarray | None = None  # [M, *C]; sample i has row i modulo M
    classes: int | None = None  # sample i is of class i modulo so many, where it was drawn like this

    def first(self, n: int | None) -> "Samples":
        """Returns the first n samples, or all for None."""
        return self._replace(x=self.x[:n])


class States(NamedTuple):
    """Holds states of chains that lead to samples, or from examples to noise."""

    x: np.ndarray  # int [R, N, *S]
    times: Sequence[int]  # the t of each state, in the process with all steps
    steps: int  # of the process that was drawn from
    levels: int  # as of `Samples`
    conditions: np.ndarray | None = None  # [M, *C]; chain i has row i modulo M

    def at(self, times: Sequence[int]) -> "States":
        """Returns the states at these times, in their order."""
        rows = [self.times.index(t) for t in times]
        return self._replace(x=self.x[rows], times=times)


class Chains(NamedTuple):
    """Holds samples, and chains that lead to and from them.

    A flow draws samples in one pass, and has no chains: `reverse` then has no states and 0 steps, `strip` is
    empty, and `forward` is None.
    """

    samples: Samples
    reverse: States  # of the first samples, t increasing from 0
    strip: Sequence[int]  # which of the times a picture of states side by side shows, increasing
    forward: Callable[[], States] | None  # draws chains of examples, states of the strip; None without any
    examples: Samples | None  # of the test split
    given: Samples | None = None  # what sample i was made from


def _check_samples(option: str, path: Path, x: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raises UserError unless an array of a file has the shape of a sample, or of several."""
    has_rows = x.ndim == len(shape) + 1 and len(x) > 0
    if x.shape != shape and not (has_rows and x.shape[1:] == shape):
        sizes = ", ".join(map(str, shape))
        raise UserError(
            f"{option} {path} has shape {list(x.shape)}: pass {list(shape)}, as a sample has, or [N, "
            f"{sizes}], of which sample i has row i modulo N"
        )


@dataclasses.dataclass(frozen=True)
class Split:
    """Describes a split of the data, which can be read several times, at once or in parts."""

    source: Source
    categories: int
    description: Description
    most: int | None = None
    """how many of the examples it has, the first ones; all by default"""

    def __len__(self) -> int:
        if self.most is None:
            return len(self.source)
        return min(self.most, len(self.source))

    def read(self, limit: int | None = None) -> dict[str, np.ndarray]:
        """Reads all examples, or the first `limit` of them."""
        limits = [n for n in (limit, self.most) if n is not None]
        return read_batch(self.source, self.categories, min(limits, default=None), self.description)

    def read_unweighted(self, limit: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Reads examples [N, *S], and their labels if there are any.

        Raises:
            UserError: they have weights.
        """
        batch = self.read(limit)
        if "weight" in batch:
            raise UserError("the examples have weights: take Run.read_batch, and respect them")
        return batch["x"], batch.get("label")

    def first(self, n: int) -> "Split":
        """Returns the split of the first n examples, or of all if there are fewer."""
        return dataclasses.replace(self, most=n)

    def ends_document(self, index: int) -> bool:
        """Returns whether an example ends its document; each does where the source does not say."""
        ends = getattr(self.source, "ends_document", None)
        return ends is None or ends(index)

    def in_parts(self, size: int) -> Iterator[dict[str, np.ndarray]]:
        """Reads all examples, `size` at a time."""
        for start in range(0, len(self), size):
            part = Part(self.source, start, min(start + size, len(self)))
            yield read_batch(part, self.categories, None, self.description)


class Measured(NamedTuple):
    """Holds the figures of some samples, and the training examples nearest to them where these are known."""

    figures: dict[str, Any]  # "n", how many samples there were, among them
    nearest: np.ndarray | None = None  # [N, *S]


class Reference(NamedTuple):
    """Holds what samples of any run on the same data are compared with."""

    compared: str  # which training examples these are, and their hash
    features: str  # in which samples are compared, and the hash of their weights
    figures: dict[str, dict[str, Any]]  # of what is compared in the samples' place, by its name
    measure: Callable[[np.ndarray], Measured]  # samples [N, *S] -> their figures


class QualityTable(NamedTuple):
    """Says how figures of the quality of samples are shown."""

    columns: Mapping[str, str]  # the figures of a table, with their titles
    also: tuple[str, ...]  # more of them, where there is room
    headline: tuple[str, str]  # the figure that says most, with its title
    words: str  # how samples were measured


@dataclasses.dataclass(frozen=True)
class Kind:
    """Defines how examples of a data set are shown, named, measured and read from the command line.

    A kind of your own derives from this class, and `Data.own_kind` names it. What it does not define is that
    of data of which nothing is known: no picture is made, samples are not measured, none can be completed.
    """

    description: Description
    name: ClassVar[str]
    """what `Description.kind` calls it"""
    axes: ClassVar[int | None] = None
    """how many an example has; None for any number"""
    has_symbols: ClassVar[bool] = False
    """whether each category has a symbol"""
    plural: ClassVar[str] = "such data"
    """what messages call the examples"""
    place_histogram: ClassVar[str] = "histogram of each place"
    """what the baseline is called that has a histogram for each element"""
    place_name: ClassVar[str] = "place"
    """what an element of an example is called in a report"""
    units: ClassVar[Mapping[str, str]] = {}
    """the figures of `extra_figures` by name, each with the words that print it"""
    remarks: ClassVar[Mapping[str, str]] = {}
    """more of them by name, each with the words of a line of its own"""
    example_name: ClassVar[str | None] = None
    """what an example is called where nats for each of them are the figure to look at, as "row"; None where
    bits per dimension are"""
    quality: ClassVar[QualityTable | None] = None
    """how figures of the quality of samples are shown, where there are any"""
    sample_files: ClassVar[Literal["pictures", "texts"] | None] = None
    """what `d3pm sample` writes: "pictures" of samples beside examples of the test split, of chains of both
    processes, and a GIF where it is asked for; "texts" and a page on which their film plays; None for what
    samples look like alone"""
    shown_in_file: ClassVar[int | None] = None
    """how many samples a file shows, if not all"""
    samples_drawn: ClassVar[int] = 64
    """how many samples a report has, where there are no labels"""
    examples_kept: ClassVar[int] = 64
    """how many test examples the folder of a run has, which a report shows"""
    lines_shown: ClassVar[int | None] = None
    """how many samples a report shows, if not all"""

    def check(self) -> None:
        """Raises UserError where the description is not one of this kind."""
        shape = self.description.shape
        if self.axes is not None and len(shape) != self.axes:
            cure = "reshape the data, or take kind='array'"
            if len(shape) == self.axes - 1:
                cure = "add the last one, as x[..., None]"
            raise UserError(f"shape = {shape}: {self.name} examples have {self.axes} axes; {cure}")
        if (self.description.symbols is not None) != self.has_symbols:
            raise UserError(
                "symbols belong to kind='text': pass one string for each category, or kind='array'"
            )

    def in_words(self, samples: np.ndarray) -> list[str]:
        """Returns samples [N, *S] as lines for a terminal; none where they cannot be read there."""
        return []

    def parse_given(
        self, prompt: str | None = None, infill: str | None = None, length: int | None = None
    ) -> Known | None:
        """Returns the elements that every sample has, from options of the user, or None if there are none.

        Args:
            prompt: what a sample begins with.
            infill: a sample with gaps.
            length: elements of a sample, if not those of an example.

        Raises:
            UserError: it cannot be given, or not like this.
        """
        for option, value in {"prompt": prompt, "infill": infill}.items():
            if value is not None:
                raise UserError(
                    f"--{option} is only for text, but the data of this run is of kind {self.name!r}; "
                    "leave it out"
                )
        self._check_length(length)
        return None

    def find_known(self, where: Mapping[str, Any]) -> Known:
        """Returns the elements that every sample has, from values by the names of their places.

        Args:
            where: values by names, at least one.

        Raises:
            UserError: there is no such place or value, or places have no names.
        """
        names = ", ".join(map(str, where))
        raise UserError(
            f"where {names}: only columns of tables have names, but the data of this run is of kind "
            f"{self.name!r}; leave it out"
        )

    def make_frame(self, samples: np.ndarray, seed: int = 0) -> Any:
        """Returns samples [N, *S] as a DataFrame of pandas; None where the data is no table.

        Args:
            samples: categories, as they are drawn.
            seed: of what categories leave open.
        """
        return None

    def describe_data(self) -> list[str]:
        """Returns lines that a training prints before it begins, of what was found out about the data."""
        return []

    def _check_length(self, length: int | None) -> None:
        """Raises UserError for samples longer than examples, or of data whose examples have no lengths."""
        shape = self.description.shape
        if length is not None and not (self.description.has_lengths and length <= shape[0]):
            raise UserError(
                f"--length {length}: examples of this run have shape {list(shape)}, and only text and padded "
                f"data [L] have shorter ones; take at most L, or leave it out"
            )

    def read_given(self, path: Path, shape: tuple[int, ...]) -> np.ndarray:
        """Reads an example [*S], or several [N, *S], that samples are to be made from.

        Args:
            path: a file of the user's: .npy of integers; kinds may read others.
            shape: *S of a sample.

        Raises:
            UserError: it cannot be read, or holds something else.
        """
        if path.suffix != ".npy":
            raise UserError(f"--given {path}: examples of kind {self.name!r} are read from .npy files")
        with as_user_error("--given "):
            x = np.array(open_npy(path))
        if not np.issubdtype(x.dtype, np.integer):
            raise UserError(f"--given {path} has type {x.dtype}: categories are integers")
        _check_samples("--given", path, x, shape)
        return x

    def parse_known(self, word: str, shape: tuple[int, ...]) -> np.ndarray:
        """Returns which elements are known, bool [*S] or for each sample [N, *S], from an option of the user.

        Args:
            word: the path of an .npy file of booleans, or of 0 and 1; kinds may know others.
            shape: *S of a sample.

        Raises:
            UserError: it is no such file.
        """
        with as_user_error("--known "):
            known = np.array(open_npy(word))
        is_binary = known.dtype == np.bool_ or (
            np.issubdtype(known.dtype, np.integer) and np.all((known == 0) | (known == 1))
        )
        if not is_binary:
            raise UserError(
                f"--known {word} has type {known.dtype}, or other values than 0 and 1: pass booleans, True "
                f"where an element is known"
            )
        _check_samples("--known", Path(word), known, shape)
        return known.astype(bool)

    def extra_figures(self, bound: Mapping[str, Any], examples: Batch) -> dict[str, float]:
        """Returns a bound on examples in units of this kind.

        Args:
            bound: what `evaluation.bound.summarize_bound` gives.
            examples: what it was computed on.
        """
        return {}

    def baselines(self, train: Split, test: Batch, say: Callable[[str], Any]) -> Mapping[str, Any]:
        """Returns what a model has to beat on test examples, by name.

        Each is a number of bits per dimension, or a dict of the entries of `evaluation.bound.summarize_bound`
        where nats with their error are what is to be compared.

        Args:
            train: the split to learn from.
            test: the examples.
            say: is called with a line that says what is left out, and why.
        """
        # Where examples are padded, an element has no place of its own, and one histogram serves all of them.
        if "weight" in test:
            counts = count_categories(train.source, train.categories)  # [K]
            nats = baselines.unigram_nats(counts, test["x"], test["weight"])  # [N]
            return to_bits_per_dim({"unigram": nats}, test)

        x0, labels = train.read_unweighted()  # [M, *S], [M]
        levels = self.description.place_sizes
        nats_by_name = {self.place_histogram: baselines.histogram_nats(x0, test["x"], levels)}
        if labels is not None:
            mixture = f"mixture of {len(np.unique(labels))} class histograms"
            nats_by_name[mixture] = baselines.class_mixture_nats(x0, labels, test["x"], levels)
        return to_bits_per_dim(nats_by_name, test)

    def check_quality(self, num: int, inception: Path | None) -> None:
        """Refuses samples that cannot be measured, before anything is computed.

        Without a `prepare_quality` of its own a kind measures none.

        Args:
            num: how many.
            inception: a file of weights of Inception, if they are to be used.

        Raises:
            UserError: the data has no features, there are too few samples, or there is no such file.
        """
        if type(self).prepare_quality is Kind.prepare_quality:
            raise self.not_measured()
        if inception is not None:
            raise UserError(
                f"--inception {inception} measures samples of images: leave it out for {self.plural}"
            )

    def not_measured(self) -> UserError:
        """Returns an error that says of which data samples are measured."""
        return UserError(
            "sample quality is measured for texts, tables, and images with 1 or 3 channels, but the data "
            f"is of kind {self.name!r} and shape {self.description.shape}: leave --samples out"
        )

    def quality_options(self) -> str | None:
        """Returns the options of d3pm eval that measure samples; None where they cannot be measured."""
        try:
            self.check_quality(2000, None)
        except UserError:
            return None
        return "--samples 2000"

    def prepare_quality(
        self, train: Split, test: Split, num: int, batch_size: int = 128, inception: Path | None = None
    ) -> Reference:
        """Learns the training split, and measures what samples are to be compared with.

        It is called after `check_quality`.

        Args:
            train, test: splits of the data.
            num: how many samples there will be.
            batch_size: how many at a time.
            inception: a file of weights of Inception, if they are to be used.

        Raises:
            UserError: the data cannot be read.
        """
        # A kind that overrides the check alone gets past it: the error names the method that it lacks.
        raise undefined_method(self, "prepare_quality")

    def show_quality(self, samples: Samples, measured: Measured) -> Block | None:
        """Returns what was measured, to be seen beside its figures: a text for the terminal, or a picture."""
        return None

    def closing_words(self, reference: Reference) -> str | None:
        """Returns a line that says what samples were compared with, where the table does not."""
        return None

    def show_samples(self, samples: Samples) -> Block | None:
        """Returns samples or examples as a block; None where no picture is made of them."""
        return None

    def show_target(self) -> Picture | None:
        """Returns what samples of a perfect model look like, which files show beside them; None if unknown.

        Its alt says what it is.
        """
        return None

    def show_histograms(self, samples: Samples, examples: Samples | None) -> Histograms | None:
        """Returns how often each place has each category, for a report; None where that says little.

        Args:
            samples: of a run.
            examples: of the test split; None where there are none.
        """
        return None

    def show_associations(self, samples: Samples, examples: Samples | None) -> Associations | None:
        """Returns how much each place tells of each other one, for a report; None where that says little.

        Args:
            samples: of a run.
            examples: of the test split; None where there are none.
        """
        return None

    def show_chain(self, states: States) -> Block | None:
        """Returns states of chains, at least one, side by side; None where no picture is made of them."""
        return None

    def show_film(self, states: States) -> Film | TextFilm | None:
        """Returns states of chains, at least one, as a film: what `show_chain` gives, where it is a strip."""
        match draw_block(self.show_chain, states):
            case Strip(pictures, times, _):
                words = f"the chains of {states.x.shape[1]} samples, played"
                return Film(pictures, times, round(pictures.shape[1] ** 0.5), words)
            case _:
                return None


def to_bits_per_dim(nats: Mapping[str, np.ndarray], test: Batch) -> dict[str, float]:
    """Returns the mean of nats per example [N] in bits per dimension, by name.

    D is the mean number of elements of a test example, so that the examples with more elements count more, as
    they do in the bound.
    """
    D = float(np.mean(count_elements(test["x"], test.get("weight"))))
    return {name: bits_per_dim(float(np.mean(values)) / D, 1) for name, values in nats.items()}
