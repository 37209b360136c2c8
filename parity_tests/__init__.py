"""torch_ref against d3pm_jax, number by number: `python -m parity_tests`."""
