"""Two spirals in the plane, as the 12 bits of Gray codes, in any order: three minutes on a CPU.

    d3pm train configs/plane_gray.py --workdir runs/gray
    d3pm eval runs/gray --samples 20000

The second says how many nats the bound is above the exact entropy, and draws the density of samples beside
the exact one. --data.density eight_gaussians or checkerboard takes other points.
"""

from d3pm_jax.config import MLP, Absorbing, Adam, Config, HybridLoss, Plane, Reciprocal, Train


def get_config() -> Config:
    return Config(
        data=Plane("spirals", "gray"),
        # Bits that are revealed in one step are drawn as if they were independent: with so many steps it is
        # hardly ever more than one.
        process=Absorbing(K="data", steps=250, beta=Reciprocal(), mask_id="data"),
        model=MLP(width=128, num_layers=6, see_time=False),
        loss=HybridLoss(ce_weight=0.01),
        optimizer=Adam(lr=2e-3, warmup_steps=100, decay_steps=10_000),
        train=Train(
            steps=10_000, batch_size=256, ema_decay=0.999, checkpoint_every=10_000, sample_every=5000
        ),
    )
