"""Windows of a text for a network without time, whose likelihood the chain rule gives."""

from d3pm_jax.config import Absorbing, Adam, Config, Reciprocal, Text, Train, Transformer


def get_config() -> Config:
    return Config(
        data=Text("play.txt", length=16),
        process=Absorbing(K="data", steps=8, beta=Reciprocal(), mask_id="data"),
        model=Transformer(width=16, num_layers=1, num_heads=2, see_time=False),
        optimizer=Adam(lr=1e-2),
        train=Train(
            steps=9, batch_size=16, ema_decay=0.9, log_every=3, checkpoint_every=3, keep_checkpoints=3
        ),
    )
