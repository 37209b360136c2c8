"""Lines of a text, with padding."""

from d3pm_jax.config import Absorbing, Adam, Config, Reciprocal, Text, Train, Transformer


def get_config() -> Config:
    return Config(
        data=Text("play.txt", length=24, packing="padded"),
        process=Absorbing(K="data", steps=8, beta=Reciprocal(), mask_id="data"),
        model=Transformer(width=16, num_layers=1, num_heads=2, dropout=0.1),
        optimizer=Adam(lr=1e-2),
        train=Train(
            steps=9, batch_size=16, ema_decay=0.9, log_every=3, checkpoint_every=3, keep_checkpoints=3
        ),
    )
