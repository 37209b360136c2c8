"""Texts of a-z and spaces: every step moves some characters to others of the same habits.

Name yours with --data.train. The file of embeddings is made by
`python examples/character_embeddings.py letters_neighbours.npy --text FILE --tokenizer letters27`.
"""

from d3pm_jax.config import Adam, Config, FromRate, HybridLoss, MutualInformation, Text, Train, Transformer


def get_config() -> Config:
    return Config(
        data=Text("letters.txt", tokenizer="letters27", length=128),
        process=FromRate("letters_neighbours.npy", 5, 1000, MutualInformation(p0="data"), unit=True),
        model=Transformer(width=128, num_layers=4, num_heads=4),
        loss=HybridLoss(ce_weight=0.01, belief="leave_one_out"),
        optimizer=Adam(lr=1e-3, warmup_steps=100, decay_steps=2000),
        train=Train(steps=2000, batch_size=32, ema_decay=0.99, checkpoint_every=500, sample_every=1000),
    )
