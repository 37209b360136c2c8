"""28 x 28 MNIST of two categories and a mask, MNISTScoreNet and the stochastic bound.

    d3pm train configs/bin_mnist_absorbing.py --workdir runs/bin_masked --data.dir DIRECTORY_WITH_TFDS_MNIST

About two hours on two cores; --model.ch 128 is the wider of the original's two, for an accelerator.
"""

from d3pm_jax.config import (
    Absorbing,
    Adam,
    Config,
    Head,
    Importance,
    Reciprocal,
    ScoreNet,
    StochasticBound,
    TfdsImages,
    Train,
)


def get_config() -> Config:
    return Config(
        data=TfdsImages("mnist", binarize="dynamic"),
        process=Absorbing(K="data", steps=100, beta=Reciprocal(), mask_id="data"),
        head=Head(residual=False),
        model=ScoreNet(ch=32, ch_mult=(1, 2, 2), num_res_blocks=1, attn=(2,), groups=8, dropout=0.0),
        loss=StochasticBound(),
        timesteps=Importance(),
        optimizer=Adam(lr=5e-4, warmup_steps=200, decay_steps=9000),
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
