"""28 x 28 MNIST of 256 levels as the seed of this library had it: Gaussian, its U-Net. Needs an accelerator.

    d3pm train configs/mnist_seed.py --workdir runs/mnist_seed --data.dir DIRECTORY_WITH_TFDS_MNIST

Its code had the cross entropy alone where its page says hybrid loss; this is the hybrid loss as published.
"""

from d3pm_jax.config import Adam, Config, Gaussian, Head, HybridLoss, Linear, TfdsImages, Train, UNet


def get_config() -> Config:
    return Config(
        data=TfdsImages("mnist"),
        process=Gaussian(K=256, steps=1000, beta=Linear(1e-4, 0.02)),
        head=Head(residual=False),
        model=UNet(
            ch=32,
            ch_mult=(1, 2),
            num_res_blocks=2,
            attn_resolutions=(28,),
            dropout=0.1,
            channels_per_group=4,
            attention_eps=1e-5,
        ),
        loss=HybridLoss(ce_weight=0.001, belief="official"),
        optimizer=Adam(lr=2e-4, clip=1.0),
        train=Train(
            steps=600_000, batch_size=64, ema_decay=0.9999, checkpoint_every=10_000, sample_every=10_000
        ),
    )
