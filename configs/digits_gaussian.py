"""8 x 8 digits, discretised Gaussian: the demo. It takes four to seven minutes on two CPU cores."""

from d3pm_jax.config import Adam, Config, Digits, Gaussian, HybridLoss, Linear, Train, UNet


def get_config() -> Config:
    return Config(
        data=Digits(),
        process=Gaussian(K=17, steps=200, beta=Linear(1e-4, 0.015)),
        model=UNet(ch=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(), groups=8, onehot_input=True),
        optimizer=Adam(lr=3e-3, warmup_steps=100, decay_steps=2200),
        loss=HybridLoss(ce_weight=0.01),
        train=Train(
            steps=2200,
            batch_size=64,
            ema_decay=0.99,
            log_every=100,
            checkpoint_every=400,
            sample_every=440,
        ),
    )
