"""Images with classes, ordinal noise and the head of ordinal data."""

from d3pm_jax.config import Adam, Config, Digits, Gaussian, HybridLoss, Linear, LogisticHead, Train, UNet


def get_config() -> Config:
    return Config(
        data=Digits(),
        process=Gaussian(K=17, steps=8, beta=Linear(0.05, 1.0, rescale=False)),
        model=UNet(ch=4, ch_mult=(1,), num_res_blocks=1, attn_resolutions=(), groups=2, classes=10),
        head=LogisticHead(),
        loss=HybridLoss(ce_weight=0.01),
        optimizer=Adam(lr=1e-3, warmup_steps=2),
        train=Train(
            steps=9, batch_size=16, ema_decay=0.9, log_every=3, checkpoint_every=3, keep_checkpoints=3
        ),
    )
