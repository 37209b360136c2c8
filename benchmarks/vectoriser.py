"""A report to the authors of LLVM and XLA, with its program: `python benchmarks/vectoriser.py N`.

**A loop with chains of two_sum compiles in exponential time.** Of each value the loop vectoriser asks whether
only its first lane is used, and answers by the same question of all that use it. No answer is remembered, so
that a value which is reached in many ways is asked as often.

Versions: jax and jaxlib 0.12.0.1 on CPUs (x86-64, Linux), Python 3.13. With 0.10.2 it compiles at once.

Below two searches, one behind the other, each add N numbers to a pair of floats. Seconds to compile, two
cores: N = 4: 0.2; 5: 0.5; 6: 4.4; 7: 96. It compiles at once

- without a call at its end: `jnp.where(above, count, last)` in place of `jnp.minimum(count, last)`. Calls of
  exp and of abs do as that of the minimum;
- with one search in place of two;
- where the second search does not depend on the first by `start`;
- with `--xla_backend_extra_options=-vectorize-loops=false`, which no program can ask for on its own;
- with `jax.lax.optimization_barrier((total, start))` at the end of a search: see `d3pm_jax.cpu.loops`.

The stack, N = 8; frames 0 to 63 are these two functions in turn:

    #0   llvm::VPInstruction::usesFirstLaneOnly(llvm::VPValue const*) const
    #1   llvm::vputils::onlyFirstLaneUsed(llvm::VPValue const*)
    ...
    #64  llvm::LoopVectorizationPlanner::tryToBuildVPlan
    #65  llvm::LoopVectorizationPlanner::buildVPlans
    #66  llvm::LoopVectorizationPlanner::plan
    #67  llvm::LoopVectorizePass::processLoop
    #68  llvm::LoopVectorizePass::runImpl
    #69  llvm::LoopVectorizePass::run

If `onlyFirstLaneUsed` remembered its answers for the length of one walk, it would be linear.
"""

import sys
import time

import jax
import jax.numpy as jnp


def two_sum(a, b):
    total = a + b
    b_part = total - a
    return total, (a - (total - b_part)) + (b - b_part)


def search_twice(x, u, N):
    """x [64, 2 N], u [64]: how many sums of the first N are below u, and from there on of the others."""
    target = u, u - jax.lax.reduce_precision(u, 8, 11)
    start = jnp.zeros_like(u), jnp.zeros_like(u)
    total = 0
    for search in range(2):
        end = start
        count = 0
        last = 0
        for i in range(N):
            entry = x[..., search * N + i]
            last = jnp.where(entry > 0, i, last)
            high, low = two_sum(end[0], entry)
            end = two_sum(high, low + end[1])
            above = (target[0] - end[0]) + (target[1] - end[1]) < 0
            count = count + jnp.where(above, 0, 1)
            start = tuple(jnp.where(above, before, after) for before, after in zip(start, end, strict=True))
        total = total * N + jnp.minimum(count, last)
    return total


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():
        sys.exit(f"vectoriser.py: error: unknown N {' '.join(sys.argv[1:])}: pass one whole number")
    N = int(sys.argv[1])
    lowered = jax.jit(search_twice, static_argnums=2).lower(jnp.ones((64, 2 * N)), jnp.full(64, 0.3), N)
    began = time.perf_counter()
    lowered.compile()
    print(f"jax {jax.__version__}, N = {N}: {time.perf_counter() - began:.1f} s")
