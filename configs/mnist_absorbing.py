"""28 x 28 MNIST of 256 levels, absorbing: a 257th category is the mask.

    d3pm train configs/mnist_absorbing.py --workdir runs/mnist_absorbing --data.dir DIRECTORY_WITH_TFDS_MNIST

--process.steps 1000 --model.ch 128 is the paper's size, for an accelerator.
"""

from d3pm_jax.config import Absorbing, Adam, Config, HybridLoss, Reciprocal, TfdsImages, Train, UNet


def get_config() -> Config:
    return Config(
        data=TfdsImages("mnist"),
        process=Absorbing(K="data", steps=100, beta=Reciprocal(), mask_id="data"),
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
