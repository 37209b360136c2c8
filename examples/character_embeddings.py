"""Places the characters of a text by their neighbours, for a process that moves between near ones.

    python examples/character_embeddings.py FILE.npy    # of the plays that come with the library
    python examples/character_embeddings.py FILE.npy --text novel.txt --tokenizer letters27

Row c of FILE.npy, float32 [K, 2 K], is log(1 + n) of how often each character stands on the left of c in the
training text, and on its right, each half less its mean: a rare letter is near a frequent one of the same
habits, and one that the training text lacks is in the middle. `FromRate` and `RandomWalk` take it, as in
configs/shakespeare_neighbours.py.
"""

import argparse
from pathlib import Path

import numpy as np

from d3pm_jax import processes
from d3pm_jax.config import Shakespeare, Text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE.npy", help="where to write")
    parser.add_argument("--text", help="a file in UTF-8 (the plays)")
    parser.add_argument("--tokenizer", default="characters", help="of the text (characters)")
    parser.add_argument("--neighbours", type=int, default=5, help="how many to print of each (5)")
    args = parser.parse_args()
    data = Shakespeare() if args.text is None else Text(args.text, tokenizer=args.tokenizer)
    description = data.describe()
    train = data.open("train")
    x = np.stack([train[i]["x"] for i in range(len(train))])  # [N, L]
    embeddings = embed_by_neighbours(x, description.categories)
    np.save(args.file, embeddings.astype(np.float32))
    near = processes.knn_graph(processes.unit_rows(embeddings), args.neighbours)
    for symbol, row in zip(description.symbols, near, strict=True):
        print(repr(symbol), *(repr(description.symbols[j]) for j in np.flatnonzero(row)))


def embed_by_neighbours(x: np.ndarray, K: int) -> np.ndarray:
    """Returns log(1 + n) of left and right neighbours, less the means: [K, 2 K] of texts x [N, L]."""
    # A pair of neighbours (a, b) is the number a K + b.
    numbers = x[:, :-1].astype(np.int64) * K + x[:, 1:]
    pairs = np.bincount(numbers.ravel(), minlength=K * K).reshape(K, K)
    # [2, K, K]: row c says what stands on the left of c, and what on its right.
    logs = np.log1p(np.stack([pairs.T, pairs]))
    embeddings = np.concatenate(logs - logs.mean(axis=-1, keepdims=True), axis=-1)  # [K, 2 K]
    seen = np.any(embeddings != 0, axis=-1, keepdims=True)
    return np.where(seen, embeddings, embeddings.mean(axis=0, where=seen))


if __name__ == "__main__":
    main()
