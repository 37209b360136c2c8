"""Names the files and folders in the folder of a run."""

# What a run is.
CONFIG = "config.json"
# A copy of the file that defines the parts of the user's own, if there are any.
CONFIG_COPY = "config.py"
# The folder that relative paths in the config start from, and hashes of the files that its fields name.
FILES = "files.json"
# The number of the format of all these files, and the version that wrote them.
FORMAT = "format.json"
DESCRIPTION = "description.json"
EXAMPLES = "examples.npy"
# The conditions of these examples, where the data has any.
CONDITIONS = "conditions.npy"
# Their classes, where they have conditions too.
LABELS = "labels.npy"
MANIFEST = "manifest.json"
# Empty; it says nothing by being there.
LOCK = "lock"
CHECKPOINTS = "checkpoints"

# What a training logs and draws.
# A line for each start: the devices that were used.
LAYOUTS = "layouts.jsonl"
METRICS = "metrics.jsonl"
WANDB_ID = "wandb_id.txt"
LOSS_CURVE = "loss.png"
TENSORBOARD = "tensorboard"
WANDB = "wandb"
PROFILE = "profile"
# The folder of pictures of a training; of `d3pm sample`, what its files begin with.
SAMPLES = "samples"
# What samples were made from, beside them.
MADE_FROM = "made_from"

# Names of files of results begin with these.
EVAL = "eval"
BOUND_TERMS = "bound_terms"
EXACT = "exact"
CERTIFICATE = "certificate"
ACCURACY = "accuracy"
QUALITY = "quality"
JUMPS = "jumps"
RESULTS = (SAMPLES, EVAL, BOUND_TERMS, EXACT, CERTIFICATE, ACCURACY, QUALITY, JUMPS)

REPORT = "report.html"
WEIGHTS = "weights.safetensors"
