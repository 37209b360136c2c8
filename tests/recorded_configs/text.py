"""Windows of a text."""

from d3pm_jax.config import Adam, Config, Cosine, Text, Train, Transformer, Uniform


def get_config() -> Config:
    return Config(
        data=Text("play.txt", length=16),
        process=Uniform(K="data", steps=8, beta=Cosine()),
        model=Transformer(width=16, num_layers=1, num_heads=2),
        optimizer=Adam(lr=1e-2),
        train=Train(
            steps=9,
            batch_size=16,
            ema_decay=0.9,
            log_every=3,
            checkpoint_every=3,
            keep_checkpoints=3,
            sample_every=6,
            eval_every=3,
        ),
    )
