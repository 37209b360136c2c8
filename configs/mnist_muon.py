"""28 x 28 MNIST of 256 levels, absorbing: as mnist_absorbing.py, for a longer training with Muon.

    d3pm train configs/mnist_muon.py --workdir runs/mnist_muon --data.dir DIRECTORY_WITH_TFDS_MNIST

The learning rate falls in the last fifth of the steps alone. So a copy of the folder can be ended earlier,
after N steps, which are at least 1,000 more than it has:

    d3pm train --workdir COPY --resume --train.steps N \\
        --optimizer.rate.steps N --optimizer.rate.decay-steps 1000

docs/results.md says how the weights in pretrained/ were trained with it.
"""

from d3pm_jax.config import (
    Absorbing,
    Config,
    HybridLoss,
    Muon,
    Reciprocal,
    TfdsImages,
    Train,
    UNet,
    WSDRate,
)


def get_config() -> Config:
    return Config(
        data=TfdsImages("mnist"),
        process=Absorbing(K="data", steps=1000, beta=Reciprocal(), mask_id="data"),
        model=UNet(
            ch=32,
            ch_mult=(1, 2, 2),
            num_res_blocks=1,
            attn_resolutions=(7,),
            groups=8,
            onehot_input=True,
            dropout=0.0,
        ),
        loss=HybridLoss(ce_weight=0.01),
        optimizer=Muon(lr=2e-3, warmup_steps=100, rate=WSDRate(steps=60_000, decay_steps=12_000)),
        train=Train(
            steps=60_000,
            batch_size=32,
            ema_decay=0.998,
            checkpoint_every=300,
            sample_every=5000,
            eval_every=500,
            held_out=500,
        ),
    )
