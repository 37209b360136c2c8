"""Runs the `d3pm` commands as `python -m d3pm_jax`."""

from d3pm_jax.cli.main import main

if __name__ == "__main__":
    main()
