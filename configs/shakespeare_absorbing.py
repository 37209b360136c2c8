"""Plays of Shakespeare by characters, absorbing: a 69th category is the mask, which the text has not."""

from d3pm_jax.config import (
    Absorbing,
    Adam,
    Config,
    HybridLoss,
    Reciprocal,
    Shakespeare,
    Train,
    Transformer,
)


def get_config() -> Config:
    return Config(
        data=Shakespeare(length=128),
        process=Absorbing(K="data", steps=128, beta=Reciprocal(), mask_id="data"),
        model=Transformer(width=128, num_layers=4, num_heads=4, see_time=False),
        loss=HybridLoss(ce_weight=0.01),
        optimizer=Adam(lr=1e-3, warmup_steps=100, decay_steps=2000),
        train=Train(steps=2000, batch_size=32, ema_decay=0.99, checkpoint_every=500, sample_every=1000),
    )
