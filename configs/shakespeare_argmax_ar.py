"""Plays of Shakespeare by characters, an argmax flow that draws one character after the other."""

from d3pm_jax.config import Adam, Argmax, ArgmaxAR, Config, LSTMFeatures, Shakespeare, Train


def get_config() -> Config:
    return Config(
        data=Shakespeare(length=128),
        process=Argmax(),
        model=ArgmaxAR(
            num_mixtures=8, features=LSTMFeatures(width=212, num_layers=2), context="lstm", context_width=64
        ),
        optimizer=Adam(lr=8e-3, warmup_steps=100, decay_steps=5300),
        train=Train(steps=5300, batch_size=32, ema_decay=0.99, checkpoint_every=1000, sample_every=2000),
    )
