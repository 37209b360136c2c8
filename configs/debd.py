"""Binary data sets of density estimation, bits in any order: an MLP of 500 units, minutes on a CPU.

    python benchmarks/exact.py debd plants --files DEBD            # trains, stops early, prints our row
    d3pm train configs/debd.py --workdir runs/plants --data.train plants_train.npy \
        --data.valid plants_valid.npy --data.test plants_test.npy --train.eval-every 500
    d3pm eval runs/plants --calls 10

Files are integers 0 and 1, [N, D]. The first command unpacks them, and keeps the checkpoint that is best on
the validation split; the second goes on to the end. The third is the bound of 100 steps: without `--calls`,
by all of them.
"""

from d3pm_jax.config import MLP, Absorbing, Adam, Arrays, Config, Head, HybridLoss, Reciprocal, Train


def get_config() -> Config:
    return Config(
        data=Arrays("train.npy", "test.npy", categories=2, valid="valid.npy"),
        # With this schedule the loss is that of order-agnostic NADE, but for the draw of how many are masked:
        # all numbers of masks are as likely, and each bit that is masked counts D / (their number) times.
        process=Absorbing(K="data", steps=100, beta=Reciprocal(), mask_id="data"),
        model=MLP(width=500, num_layers=1, dropout=0.2, see_time=False),
        head=Head(residual=False),
        loss=HybridLoss(ce_weight=0.0),
        optimizer=Adam(lr=1e-3, warmup_steps=100),
        train=Train(steps=20_000, batch_size=128, ema_decay=0.999, checkpoint_every=500, keep_checkpoints=10),
    )
