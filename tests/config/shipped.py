"""Opens the configs that come with the library, with data of their kind where they name a file of yours."""

from pathlib import Path

import numpy as np
import tokenizers

import tests
from d3pm_jax.config import Config, from_data, io
from d3pm_jax.data import Description
from tests.data.made_table import make_rows, write_table

CONFIGS = sorted((Path(tests.__file__).parents[1] / "configs").glob("*.py"))


def opened(path: Path) -> tuple[Config, Description]:
    """Returns a config and its data, filled in; writes its files into the folder one is in."""
    Path("letters.txt").write_text("so said the quick brown fox " * 200)
    Path("text.txt").write_text("so said the quick brown fox\n" * 200)
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train("text.txt", 300)
    tokenizer.save("gpt2.json")
    write_table(Path("table.csv"), make_rows(200))
    for split in ("train", "valid", "test"):
        np.save(f"{split}.npy", np.eye(16, dtype=np.int8))
    config = io.read_config_file(path)
    description = config.data.describe()
    K = description.categories
    np.save(f"{path.stem}.npy", np.random.default_rng(0).normal(size=(K, 4)))

    def counts() -> np.ndarray:
        """How often each category occurs; only processes along a graph ask."""
        assert path.stem.endswith("_neighbours")
        return np.arange(1, K + 1)

    places = from_data.PlaceCounts(description.place_sizes, counts)
    return from_data.fill(config, K, counts, places), description
