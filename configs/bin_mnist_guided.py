"""28 x 28 MNIST of two categories, uniform noise, told which digit, but for a tenth of the examples.

    d3pm train configs/bin_mnist_guided.py --workdir runs/bin_guided --data.dir DIRECTORY_WITH_TFDS_MNIST
    d3pm sample runs/bin_guided --label 3 --guidance 2

A network that has seen examples without their class can be asked for more of it than it learnt. About an
hour of one core.
"""

from d3pm_jax.config import Adam, Config, Cosine, HybridLoss, TfdsImages, Train, UNet, Uniform


def get_config() -> Config:
    return Config(
        data=TfdsImages("mnist", binarize="dynamic"),
        process=Uniform(K=2, steps=100, beta=Cosine()),
        model=UNet(
            ch=32,
            ch_mult=(1, 2, 2),
            num_res_blocks=1,
            attn_resolutions=(7,),
            groups=8,
            dropout=0.0,
            classes=10,
        ),
        loss=HybridLoss(ce_weight=0.01),
        optimizer=Adam(lr=1e-3, warmup_steps=200, decay_steps=6000),
        train=Train(
            steps=6000,
            batch_size=32,
            ema_decay=0.999,
            checkpoint_every=500,
            sample_every=3000,
            eval_every=2000,
            held_out=500,
            drop_condition=0.1,
        ),
    )
