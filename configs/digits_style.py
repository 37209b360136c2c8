"""8 x 8 digits, uniform, told their thickness, slant and brightness.

    d3pm train configs/digits_style.py --workdir runs/style
    d3pm sample runs/style --condition styles.npy

styles.npy holds float32 [N, 3], of mean 0 and variance 1 over the training digits: [[0, 2, 0]] leans to the
right. --data.no-conditioned trains the same without it, to compare with.
"""

from d3pm_jax.config import Adam, Config, Cosine, HybridLoss, StyledDigits, Train, UNet, Uniform


def get_config() -> Config:
    return Config(
        data=StyledDigits(),
        process=Uniform(K=17, steps=100, beta=Cosine()),
        model=UNet(
            ch=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,), groups=8, onehot_input=True
        ),
        loss=HybridLoss(ce_weight=0.01),
        optimizer=Adam(lr=2e-3, warmup_steps=50, decay_steps=2000),
        train=Train(steps=2000, batch_size=64, ema_decay=0.99, checkpoint_every=400, sample_every=1000),
    )
