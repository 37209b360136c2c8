"""CIFAR-10 with what the paper trained with, D3PM uniform. For accelerators.

    d3pm train configs/cifar10_uniform.py --workdir runs/cifar10_uniform --data.dir DIR

DIR holds CIFAR-10 as TFDS prepares it. The loss is as published;
--loss.belief leave_one_out is the consistent one.
"""

from d3pm_jax.config import Adam, Config, Cosine, HybridLoss, LogisticHead, TfdsImages, Train, UNet, Uniform


def get_config() -> Config:
    return Config(
        data=TfdsImages("cifar10", mirror=True),
        process=Uniform(K=256, steps=1000, beta=Cosine()),
        head=LogisticHead(),
        model=UNet(ch=128, ch_mult=(1, 2, 2, 2), num_res_blocks=2, attn_resolutions=(16,), dropout=0.1),
        loss=HybridLoss(ce_weight=0.001, belief="official"),
        optimizer=Adam(lr=2e-4, clip=1.0),
        train=Train(
            steps=1_500_000, batch_size=128, ema_decay=0.9999, checkpoint_every=10_000, sample_every=50_000
        ),
    )
