"""A table in a CSV file, whose first line holds the names of columns: masks over its columns, in any order.

    d3pm train configs/table.py --data.path people.csv --workdir runs/people
    d3pm eval runs/people --samples 2000
    d3pm sample runs/people --where sex=Male --where age=39

The second says how many nats a row takes, beside the tree of Chow and Liu, and compares samples with the
data. The third writes a CSV file too. Types of columns are guessed and printed first: --data.types and
--data.drop change them. It takes minutes on a CPU; --train.steps N --optimizer.decay-steps N trains for
longer.
"""

from d3pm_jax.config import MLP, Absorbing, Adam, ByPlace, Config, Head, HybridLoss, Reciprocal, Table, Train
from d3pm_jax.sampling import named


def get_config() -> Config:
    return Config(
        data=Table("table.csv"),
        # Columns that are revealed in one step are drawn as if they were independent: of so many steps few
        # reveal more than one.
        process=ByPlace(Absorbing(K="data", steps=256, beta=Reciprocal(), mask_id="data")),
        model=MLP(width=256, num_layers=4, dropout=0.1, see_time=False),
        head=Head(residual=False),
        loss=HybridLoss(ce_weight=0.0),
        optimizer=Adam(lr=1e-3, warmup_steps=100, decay_steps=4000),
        train=Train(steps=4000, batch_size=256, ema_decay=0.999, checkpoint_every=1000, sample_every=2000),
        # Samples have one column revealed by each call, in as many calls as there are columns.
        sampler=named.random_order(),
    )
