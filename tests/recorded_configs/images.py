"""Images, with pictures and estimates of the bound on the way."""

from d3pm_jax.config import Adam, Config, Digits, Linear, Train, UNet, Uniform


def get_config() -> Config:
    return Config(
        data=Digits(),
        process=Uniform(K=17, steps=8, beta=Linear(0.2, 1.0, rescale=False)),
        model=UNet(ch=4, ch_mult=(1,), num_res_blocks=1, attn_resolutions=(), groups=2),
        optimizer=Adam(lr=1e-3),
        train=Train(
            steps=9,
            batch_size=16,
            ema_decay=0.9,
            log_every=2,
            checkpoint_every=3,
            keep_checkpoints=3,
            sample_every=4,
            eval_every=4,
            held_out=32,
        ),
    )
