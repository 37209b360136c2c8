"""Shortest paths through mazes of 6 x 6 cells, uniform, told the maze.

    d3pm train configs/mazes.py --workdir runs/mazes
    d3pm eval runs/mazes --samples 500 --steps 5,10,25,50

The second counts how many of 500 samples are valid paths, and shortest ones. --data.no-conditioned trains
the same without the maze, to compare with.
"""

from d3pm_jax.config import Adam, Config, Cosine, HybridLoss, Mazes, Train, UNet, Uniform


def get_config() -> Config:
    return Config(
        data=Mazes(cells=6),
        process=Uniform(K="data", steps=50, beta=Cosine()),
        # A picture of 11 x 11 is padded to 12 x 12; the levels have 12, 6 and 3 rows.
        model=UNet(
            ch=32,
            ch_mult=(1, 2, 2),
            num_res_blocks=1,
            attn_resolutions=(6,),
            groups=8,
            onehot_input=True,
            dropout=0.0,
        ),
        loss=HybridLoss(ce_weight=0.01),
        optimizer=Adam(lr=1e-3, warmup_steps=100, decay_steps=3000),
        train=Train(steps=3000, batch_size=64, ema_decay=0.99, checkpoint_every=500, sample_every=1500),
    )
