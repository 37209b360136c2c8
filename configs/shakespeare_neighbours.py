"""Plays of Shakespeare by characters: every step moves some to others of the same habits.

The file of embeddings is made by
`python examples/character_embeddings.py shakespeare_neighbours.npy`.
"""

from d3pm_jax.config import (
    Adam,
    Config,
    FromRate,
    HybridLoss,
    MutualInformation,
    Shakespeare,
    Train,
    Transformer,
)


def get_config() -> Config:
    return Config(
        data=Shakespeare(length=128),
        process=FromRate(
            "shakespeare_neighbours.npy", 8, steps=128, beta=MutualInformation(p0="data"), unit=True
        ),
        model=Transformer(width=128, num_layers=4, num_heads=4),
        loss=HybridLoss(ce_weight=0.01, belief="leave_one_out"),
        optimizer=Adam(lr=1e-3, warmup_steps=100, decay_steps=2000),
        train=Train(steps=2000, batch_size=32, ema_decay=0.99, checkpoint_every=500, sample_every=1000),
    )
