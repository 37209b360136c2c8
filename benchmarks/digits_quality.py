"""How many samples a classifier takes for digits: `python benchmarks/digits_quality.py RUN/samples.npy`.

The classifier is scikit-learn's SVC(gamma=0.001, probability=True) fitted on the 1,500 training digits. A
sample counts when its likeliest class has probability 0.9 or more. For scale, the same for the 297 test
digits and for as many samples of the per-pixel histogram. The last line is for a network that is told
classes: how many samples i are called i modulo 10.
"""

import sys
import warnings

import numpy as np
from sklearn.datasets import load_digits
from sklearn.svm import SVC

TRAIN = 1500


class Judge:
    """Holds the classifier."""

    def __init__(self) -> None:
        self.images, labels = load_digits(return_X_y=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of `probability`
            self.svc = SVC(gamma=0.001, probability=True, random_state=0)
            self.svc.fit(self.images[:TRAIN], labels[:TRAIN])

    def share(self, x: np.ndarray) -> float:
        """Returns how many of the images x [N, ..] it takes for digits."""
        return float(np.mean(self.svc.predict_proba(x.reshape(len(x), -1)).max(1) >= 0.9))

    def classes(self, x: np.ndarray) -> np.ndarray:
        """Returns the digit that each image is called."""
        return self.svc.predict(x.reshape(len(x), -1))


def main(path: str) -> None:
    samples = np.load(path)
    judge = Judge()
    rng = np.random.default_rng(0)
    shuffled = np.stack([rng.choice(column, len(samples)) for column in judge.images[:TRAIN].T], axis=1)
    print(f"samples:            {judge.share(samples):.1%} of {len(samples)}")
    print(f"test digits:        {judge.share(judge.images[TRAIN:]):.1%} of {len(judge.images[TRAIN:])}")
    print(f"per-pixel samples:  {judge.share(shuffled):.1%} of {len(shuffled)}")
    asked = judge.classes(samples) == np.arange(len(samples)) % 10
    print(f"of the class asked: {asked.mean():.1%} of {len(samples)}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
