"""8 x 8 digits, absorbing: an 18th category is the mask, which the data never contains."""

from d3pm_jax.config import Absorbing, Adam, Config, Digits, HybridLoss, Reciprocal, Train, UNet


def get_config() -> Config:
    return Config(
        data=Digits(),
        process=Absorbing(K=18, steps=100, beta=Reciprocal(), mask_id=17),
        model=UNet(
            ch=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,), groups=8, onehot_input=True
        ),
        loss=HybridLoss(ce_weight=0.01),
        optimizer=Adam(lr=2e-3, warmup_steps=50, decay_steps=2000),
        train=Train(steps=2000, batch_size=64, ema_decay=0.99, checkpoint_every=400, sample_every=1000),
    )
