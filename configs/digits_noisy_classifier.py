"""Which digit an 8 x 8 image under uniform noise is: a classifier that guides, a minute or two on a CPU.

    d3pm train configs/digits_noisy_classifier.py --workdir runs/classifier
    d3pm eval runs/classifier
    d3pm sample runs/digits --label 3 --classifier runs/classifier --guidance 2

runs/digits is one of configs/digits_uniform.py, which has the same process. A run of another process needs a
classifier with that process.
"""

from d3pm_jax.config import Adam, Config, Cosine, Digits, LabelLoss, NoisyClassifier, Train, Uniform


def get_config() -> Config:
    return Config(
        data=Digits(),
        process=Uniform(K=17, steps=100, beta=Cosine()),
        model=NoisyClassifier(width=256, num_layers=2, embedding=8),
        loss=LabelLoss(),
        optimizer=Adam(lr=1e-3, warmup_steps=50, decay_steps=2000),
        train=Train(steps=2000, batch_size=128, ema_decay=0.99, checkpoint_every=1000),
    )
