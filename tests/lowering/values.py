"""Looks at all values of a traced program, those of the programs in it too."""

import jax


def largest_value(f, *args) -> int:
    """Returns the size of the largest array that a function makes, in a branch, loop or call of it too."""
    return _largest(jax.make_jaxpr(f)(*args).jaxpr)


def _largest(program) -> int:
    sizes = [0]
    for operation in program.eqns:
        sizes += [v.aval.size for v in operation.outvars if hasattr(v.aval, "size")]
        for parameter in jax.tree.leaves(operation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                sizes.append(_largest(inner))
    return max(sizes)
