"""Texts of a-z and spaces, an argmax flow of couplings. Name yours with --data.train."""

from d3pm_jax.config import Adam, Argmax, ArgmaxCoupling, Config, LSTMFeatures, Text, Train


def get_config() -> Config:
    return Config(
        data=Text("letters.txt", tokenizer="letters27", length=128),
        process=Argmax(),
        model=ArgmaxCoupling(
            num_steps=2, num_mixtures=8, features=LSTMFeatures(width=100, num_layers=2), context_width=64
        ),
        optimizer=Adam(lr=8e-3, warmup_steps=100, decay_steps=5100),
        train=Train(steps=5100, batch_size=32, ema_decay=0.99, checkpoint_every=1000, sample_every=2000),
    )
