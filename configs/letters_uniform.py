"""Texts of a-z and spaces, uniform: every step resamples some characters. Name yours with --data.train."""

from d3pm_jax.config import Adam, Config, Cosine, HybridLoss, Text, Train, Transformer, Uniform


def get_config() -> Config:
    return Config(
        data=Text("letters.txt", tokenizer="letters27", length=128),
        process=Uniform(K="data", steps=1000, beta=Cosine()),
        model=Transformer(width=128, num_layers=4, num_heads=4),
        loss=HybridLoss(ce_weight=0.01, belief="leave_one_out"),
        optimizer=Adam(lr=1e-3, warmup_steps=100, decay_steps=2000),
        train=Train(steps=2000, batch_size=32, ema_decay=0.99, checkpoint_every=500, sample_every=1000),
    )
