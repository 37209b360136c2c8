"""Binarised MNIST with uniform noise: a long training that is stopped and resumed as the machine allows.

    d3pm train configs/bin_mnist_long.py --workdir runs/long --data.dir DIRECTORY_WITH_TFDS_MNIST

The network of bin_mnist_uniform.py. The learning rate stays the same until the last fifth of the steps, so
that a copy of the run can be ended early: with `--resume --train.steps N --optimizer.rate.steps N` it decays
until step N.
"""

from d3pm_jax.config import AdamW, Config, Cosine, HybridLoss, TfdsImages, Train, UNet, Uniform, WSDRate


def get_config() -> Config:
    return Config(
        data=TfdsImages("mnist", binarize="dynamic"),
        process=Uniform(K=2, steps=100, beta=Cosine()),
        model=UNet(ch=32, ch_mult=(1, 2, 2), num_res_blocks=1, attn_resolutions=(7,), groups=8, dropout=0.0),
        loss=HybridLoss(ce_weight=0.01),
        optimizer=AdamW(
            lr=7e-4, warmup_steps=200, weight_decay=0.0, rate=WSDRate(steps=60_000, decay_steps=12_000)
        ),
        train=Train(
            steps=60_000,
            batch_size=64,
            ema_decay=0.9995,
            checkpoint_every=250,
            sample_every=3000,
            eval_every=500,
            held_out=500,
        ),
    )
