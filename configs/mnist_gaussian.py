"""28 x 28 MNIST with all 256 levels: the paper's Gaussian process and a small U-Net. For an accelerator.

d3pm train configs/mnist_gaussian.py --workdir runs/mnist --data.dir DIRECTORY_WITH_TFDS_MNIST
"""

from d3pm_jax.config import Adam, Config, Gaussian, HybridLoss, Linear, TfdsImages, Train, UNet


def get_config() -> Config:
    return Config(
        data=TfdsImages("mnist"),
        process=Gaussian(K=256, steps=1000, beta=Linear(1e-4, 0.02)),
        model=UNet(ch=32, ch_mult=(1, 2), attn_resolutions=(14,)),
        loss=HybridLoss(ce_weight=0.001),
        optimizer=Adam(lr=2e-4, warmup_steps=1000),
        train=Train(steps=200_000, batch_size=64, checkpoint_every=5000, log_every=100, sample_every=5000),
    )
