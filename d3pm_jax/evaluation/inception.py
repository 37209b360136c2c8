"""Computes Inception features of images for the FID, by torch-fidelity and weights that the user provides."""

import io
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from d3pm_jax.errors import one_line
from d3pm_jax.extras import require

FEATURES = 2048  # numbers of the pooled last layer
WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"  # as torch-fidelity calls them


def load_network(content: bytes) -> Any:
    """Makes the Inception network of torch-fidelity from the content of a file of its weights.

    Nothing in the file is executed: it is read as plain tensors, and the library gets nothing else. Nothing
    is downloaded.

    Args:
        content: of a file of `torch.save` with the state dict of torch-fidelity's network.

    Raises:
        UserError: torch-fidelity is not installed.
        ValueError: the content is something else.
    """
    require("an Inception distance", "torch", "torch_fidelity", extra="eval")

    # Only here: the other figures need no PyTorch.
    import torch
    from torch_fidelity import FeatureExtractorInceptionV3

    try:
        tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)

        # The library would load the file without `weights_only`, and run what a malicious one says. It gets a
        # file that is written here, of the tensors that were read.
        plain_file = io.BytesIO()
        torch.save(tensors, plain_file)
        plain_file.seek(0)
        network = FeatureExtractorInceptionV3(
            "inception", ["2048"], feature_extractor_weights_path=plain_file
        )
    except Exception as error:
        # Errors of any class: of pickle, of archives, of names and of shapes.
        raise ValueError(
            f"it holds no Inception weights ({one_line(error)}): pass {WEIGHTS} of torch-fidelity"
        ) from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return network.to(device)


def compute_features(
    network: Any,
    x: Int[np.ndarray, "N H W C"],
    levels: int,
    batch_size: int = 64,
) -> Float[np.ndarray, "N d"]:
    """Returns the features of images, float32 [N, 2048].

    Args:
        network: of `load_network`.
        x: images in 0..levels - 1, which become 0..255; with one channel, which becomes three, or with three.
        levels: how many there are.
        batch_size: images at a time.
    """
    import torch

    device = next(network.parameters()).device
    batches = []
    for start in range(0, len(x), batch_size):
        images = np.round(x[start : start + batch_size] * (255 / (levels - 1))).astype(np.uint8)
        images = np.broadcast_to(images, (*images.shape[:3], 3)).transpose(0, 3, 1, 2)
        with torch.no_grad():
            (features,) = network(torch.from_numpy(np.ascontiguousarray(images)).to(device))  # [B, 2048]
        batches.append(features.cpu().numpy())
    return np.concatenate(batches)
