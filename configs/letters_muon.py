"""Texts of a-z and spaces, absorbing: wider than letters_absorbing.py, for a longer training with Muon.

    d3pm train configs/letters_muon.py --workdir runs/letters_muon --data.train YOURS.txt

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
    Text,
    Train,
    Transformer,
    WSDRate,
)


def get_config() -> Config:
    return Config(
        data=Text("letters.txt", tokenizer="letters27", length=128),
        process=Absorbing(K="data", steps=1000, beta=Reciprocal(), mask_id="data"),
        model=Transformer(width=160, num_layers=4, num_heads=2, see_time=False),
        loss=HybridLoss(ce_weight=0.01),
        optimizer=Muon(lr=7e-3, warmup_steps=100, rate=WSDRate(steps=60_000, decay_steps=12_000)),
        train=Train(
            steps=60_000,
            batch_size=32,
            ema_decay=0.998,
            checkpoint_every=300,
            sample_every=5000,
            eval_every=500,
        ),
    )
