"""Images, where the process is told by the data how often it has each category."""

from d3pm_jax.config import Config, Cosine, Digits, Importance, Marginal, ScoreNet, Train


def get_config() -> Config:
    return Config(
        data=Digits(),
        process=Marginal(steps=8, beta=Cosine(), pi="data"),
        model=ScoreNet(ch=4, ch_mult=(1, 1), attn=(), groups=2),
        timesteps=Importance(least_count=1),
        train=Train(
            steps=9, batch_size=16, ema_decay=0.9, log_every=3, checkpoint_every=3, keep_checkpoints=3
        ),
    )
