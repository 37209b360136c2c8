"""8 x 8 digits, uniform, with the ScoreNet: its logits are centred and start near 0, whatever x_t is."""

from d3pm_jax.config import Adam, Config, Cosine, Digits, Head, HybridLoss, ScoreNet, Train, Uniform


def get_config() -> Config:
    return Config(
        data=Digits(),
        process=Uniform(K=17, steps=100, beta=Cosine()),
        head=Head(residual=False),
        model=ScoreNet(ch=32, ch_mult=(1, 2), num_res_blocks=1, groups=8),
        loss=HybridLoss(ce_weight=0.01),
        optimizer=Adam(lr=5e-4, warmup_steps=50, decay_steps=2000),
        train=Train(steps=2000, batch_size=64, ema_decay=0.99, checkpoint_every=400, sample_every=1000),
    )
