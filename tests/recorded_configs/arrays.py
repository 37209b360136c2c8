"""Arrays of one's own, with classes."""

from d3pm_jax.config import Adam, Arrays, Config, Cosine, Train, Transformer, Uniform

DATA = Arrays(
    "train.npy",
    "test.npy",
    categories=5,
    train_labels="train_labels.npy",
    test_labels="test_labels.npy",
    classes=3,
)


def get_config() -> Config:
    return Config(
        data=DATA,
        process=Uniform(K=5, steps=8, beta=Cosine()),
        model=Transformer(width=16, num_layers=1, num_heads=2, classes=3),
        optimizer=Adam(lr=1e-2),
        train=Train(
            steps=9, batch_size=16, ema_decay=0.9, log_every=3, checkpoint_every=3, keep_checkpoints=3
        ),
    )
