"""Two spirals in the plane, as two numbers below 64, uniform: a minute on a CPU.

    d3pm train configs/plane_uniform.py --workdir runs/plane
    d3pm eval runs/plane --samples 20000

The second says how many nats the bound is above the exact entropy, and draws the density of samples beside
the exact one. --data.density eight_gaussians or checkerboard takes other points.
"""

from d3pm_jax.config import Adam, Config, Cosine, HybridLoss, Plane, Train, Transformer, Uniform


def get_config() -> Config:
    return Config(
        data=Plane("spirals", "plain"),
        process=Uniform(K=64, steps=50, beta=Cosine()),
        model=Transformer(width=64, num_layers=3, num_heads=4),
        loss=HybridLoss(ce_weight=0.01, belief="leave_one_out"),
        optimizer=Adam(lr=2e-3, warmup_steps=100, decay_steps=3000),
        train=Train(steps=3000, batch_size=256, ema_decay=0.99, checkpoint_every=1000, sample_every=1500),
    )
