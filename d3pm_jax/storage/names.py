"""Names the files and folders in the folder of a run."""

CONFIG = "config.json"
CONFIG_COPY = "config.py"  # a copy of the file that defines the parts of the user's own, if there are any
DESCRIPTION = "description.json"
EXAMPLES = "examples.npy"
MANIFEST = "manifest.json"
LOCK = "lock"  # empty; it says nothing by being there
CHECKPOINTS = "checkpoints"
LAYOUTS = "layouts.jsonl"  # a line for each start: the devices that were used
METRICS = "metrics.jsonl"
WANDB_ID = "wandb_id.txt"
LOSS_CURVE = "loss.png"
TENSORBOARD = "tensorboard"
WANDB = "wandb"
PROFILE = "profile"
SAMPLES = "samples"  # the folder of pictures of a training; of `d3pm sample`, what its files begin with
EVAL = "eval"  # what the files begin with, as do the next ones
BOUND_TERMS = "bound_terms"
EXACT = "exact"
QUALITY = "quality"
JUMPS = "jumps"
REPORT = "report.html"
WEIGHTS = "weights.safetensors"
