"""Texts of a-z and spaces, uniform: wider than letters_uniform.py, for a longer training with Muon.

    d3pm train configs/letters_uniform_muon.py --workdir runs/letters_uniform_muon --data.train YOURS.txt

The learning rate falls in the last fifth of the steps alone. letters_muon.py is that of absorbing noise, and
says how a copy of the folder is ended earlier.
"""

from d3pm_jax.config import Config, Cosine, HybridLoss, Muon, Text, Train, Transformer, Uniform, WSDRate


def get_config() -> Config:
    return Config(
        data=Text("letters.txt", tokenizer="letters27", length=128),
        process=Uniform(K="data", steps=1000, beta=Cosine()),
        model=Transformer(width=160, num_layers=4, num_heads=2),
        loss=HybridLoss(ce_weight=0.01, belief="leave_one_out"),
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
