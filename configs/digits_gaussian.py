"""8 x 8 digits, discretised Gaussian: the demo. About three minutes on two CPU cores."""

from d3pm_jax.config import Adam, Config, Data, Gaussian, Linear, Train, UNet


def get_config() -> Config:
    return Config(
        data=Data("digits"),
        process=Gaussian(K=17, steps=100, beta=Linear(1e-4, 0.02)),
        model=UNet(ch=32, ch_mult=(1, 2), attn_resolutions=(4,), groups=8),
        optimizer=Adam(lr=2e-3, warmup_steps=50, decay_steps=1000),
        train=Train(steps=1000, ema_decay=0.99, checkpoint_every=200, sample_every=500),
    )
