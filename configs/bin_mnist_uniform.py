"""28 x 28 MNIST of two categories, each pixel drawn from its grey level: uniform noise flips some of them.

    d3pm train configs/bin_mnist_uniform.py --workdir runs/bin_mnist --data.dir DIRECTORY_WITH_TFDS_MNIST

About two hours on two cores; --model.ch 128 has the width of the paper, for an accelerator.
"""

from d3pm_jax.config import Adam, Config, Cosine, HybridLoss, TfdsImages, Train, UNet, Uniform


def get_config() -> Config:
    return Config(
        data=TfdsImages("mnist", binarize="dynamic"),
        process=Uniform(K=2, steps=100, beta=Cosine()),
        model=UNet(ch=32, ch_mult=(1, 2, 2), num_res_blocks=1, attn_resolutions=(7,), groups=8, dropout=0.0),
        loss=HybridLoss(ce_weight=0.01),
        optimizer=Adam(lr=1e-3, warmup_steps=200, decay_steps=9000),
        train=Train(
            steps=9000,
            batch_size=64,
            ema_decay=0.999,
            checkpoint_every=500,
            sample_every=1500,
            eval_every=1000,
            held_out=500,
        ),
    )
