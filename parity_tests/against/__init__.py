"""Code of a user's own held against the JAX kernels: `python -m parity_tests --against FILE`."""
