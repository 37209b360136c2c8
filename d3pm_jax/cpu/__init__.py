"""Holds what exists for CPUs only, with its reasons: it serves their caches and the memory of their system.

It imports nothing of this library. Nothing of it reaches an accelerator: `tiles`, `conv` and `loops` choose
when a program is lowered for a device, and `malloc` does nothing where JAX may find more than CPUs.
"""
