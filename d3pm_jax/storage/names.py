"""Names the files and folders in the folder of a run."""

CONFIG = "config.json"
OWN = "config.py"  # a copy of the file that defines the parts of the user's own, if there are any
DESCRIPTION = "description.json"
EXAMPLES = "examples.npy"
MANIFEST = "manifest.json"
LOCK = "lock"  # empty; it says nothing by being there
CHECKPOINTS = "checkpoints"
LAYOUTS = "layouts.jsonl"  # a line for each start: the devices that were used
METRICS = "metrics.jsonl"
WANDB_ID = "wandb_id.txt"
SAMPLES = "samples"  # the folder of pictures of a training; of `d3pm sample`, what its files begin with
TENSORBOARD = "tensorboard"
WANDB = "wandb"
PROFILE = "profile"
REPORT = "report.html"
WEIGHTS = "weights.safetensors"
