"""8 x 8 digits, discretised Gaussian, told which digit, but for a tenth of the examples: a run to guide.

    d3pm train configs/digits_guided_gaussian.py --workdir runs/guided
    d3pm sample runs/guided --label 3 --guidance 2

A network that has seen examples without their class can be asked for more of it than it learnt.
"""

from d3pm_jax.config import Adam, Config, Digits, Gaussian, Linear, Train, UNet


def get_config() -> Config:
    return Config(
        data=Digits(),
        process=Gaussian(K=17, steps=200, beta=Linear(1e-4, 0.015)),
        model=UNet(
            ch=32,
            ch_mult=(1, 2),
            num_res_blocks=1,
            attn_resolutions=(),
            groups=8,
            onehot_input=True,
            classes=10,
        ),
        optimizer=Adam(lr=2e-3, warmup_steps=100, decay_steps=3400),
        train=Train(
            steps=3400,
            batch_size=64,
            ema_decay=0.99,
            log_every=100,
            checkpoint_every=400,
            sample_every=1700,
            drop_condition=0.1,
        ),
    )
