"""Holds what exists for CPUs only, with its reasons: it serves caches and the memory of a system.

It imports nothing of ours.
Nothing of it reaches an accelerator: `tiles` and `conv` choose where a program is lowered, and `malloc` does
nothing where JAX may find more than CPUs.
"""
