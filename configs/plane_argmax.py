"""Two spirals in the plane, as two numbers below 64, by an autoregressive argmax flow: a minute on a CPU.

    d3pm train configs/plane_argmax.py --workdir runs/argmax
    d3pm eval runs/argmax --calls 100 --limit 4000 --samples 20000

The second says how many nats IWBO(100) is above the exact entropy, and draws the density of samples beside
the exact one. --data.density eight_gaussians or checkerboard takes other points, and --data.coding gray the
bits of their Gray codes.
"""

from d3pm_jax.config import Adam, Argmax, ArgmaxAR, Config, LSTMFeatures, Plane, Train


def get_config() -> Config:
    return Config(
        data=Plane("spirals", "plain"),
        process=Argmax(),
        model=ArgmaxAR(
            num_mixtures=8,
            features=LSTMFeatures(width=128, num_layers=1),
            context="feed_forward",
            context_width=64,
        ),
        optimizer=Adam(lr=1e-2, warmup_steps=100, decay_steps=3200),
        train=Train(steps=3200, batch_size=256, ema_decay=0.99, checkpoint_every=1600, sample_every=1600),
    )
