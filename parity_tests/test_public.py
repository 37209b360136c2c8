"""The public functions of the twin say where their arguments are described, and have those arguments."""

import inspect

import d3pm_jax
import torch_ref


def test_docstrings_lead_to_the_arguments() -> None:
    for name in torch_ref.__all__:
        function = getattr(torch_ref, name)
        if inspect.isfunction(function):
            assert f"Arguments as in `d3pm_jax.{name}`" in (inspect.getdoc(function) or ""), name
            theirs = inspect.signature(function).parameters
            assert theirs.keys() <= inspect.signature(getattr(d3pm_jax, name)).parameters.keys(), name
