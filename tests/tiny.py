"""A config that trains in seconds, for the tests of the trainer and the commands."""

from d3pm_jax.config import Adam, Config, Data, Linear, Train, UNet, Uniform


def get_config() -> Config:
    return Config(
        data=Data("digits"),
        process=Uniform(K=17, steps=10, beta=Linear(0.2, 1.0, rescale=False)),
        model=UNet(ch=8, ch_mult=(1,), num_res_blocks=1, attn_resolutions=(), groups=4),
        optimizer=Adam(lr=1e-3),
        train=Train(
            steps=20, batch_size=16, ema_decay=0.9, log_every=5, checkpoint_every=4, keep_checkpoints=3
        ),
    )
