"""Binarised MNIST with uniform noise, as bin_mnist_uniform.py, for a longer training with Muon.

    d3pm train configs/bin_mnist_muon.py --workdir runs/bin_muon --data.dir DIRECTORY_WITH_TFDS_MNIST

The learning rate falls in the last fifth of the steps alone. So a copy of the folder can be ended earlier,
after N steps, which are at least 1,000 more than it has:

    d3pm train --workdir COPY --resume --train.steps N \\
        --optimizer.rate.steps N --optimizer.rate.decay-steps 1000

docs/results.md says how the weights in pretrained/ were trained with it.
"""

from d3pm_jax.config import Config, Cosine, HybridLoss, Muon, TfdsImages, Train, UNet, Uniform, WSDRate


def get_config() -> Config:
    return Config(
        data=TfdsImages("mnist", binarize="dynamic"),
        process=Uniform(K=2, steps=100, beta=Cosine()),
        model=UNet(ch=32, ch_mult=(1, 2, 2), num_res_blocks=1, attn_resolutions=(7,), groups=8, dropout=0.0),
        loss=HybridLoss(ce_weight=0.01),
        optimizer=Muon(lr=1e-3, warmup_steps=50, rate=WSDRate(steps=60_000, decay_steps=12_000)),
        train=Train(
            steps=60_000,
            batch_size=64,
            ema_decay=0.998,
            checkpoint_every=200,
            sample_every=4000,
            eval_every=400,
            held_out=500,
        ),
    )
