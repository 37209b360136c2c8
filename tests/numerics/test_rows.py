"""Row functions: which form a program gets, masks of kernels, batches, devices; and the check of kernels."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxlib.mlir import ir
from jaxlib.triton import dialect as triton_dialect

from d3pm_jax.numerics import kernel_check, rows

N, K = 6, 5


def normalize(settings, row, numbers, tables):
    """Returns settings softmax(logits) numbers[0] tables[0], and the logit at numbers[1]."""
    scale, x = numbers
    (table,) = tables
    weights = jnp.exp(row.logits - jnp.max(row.logits, axis=-1, keepdims=True))
    p = weights / jnp.sum(weights, axis=-1, keepdims=True)
    at_x = jnp.sum(jnp.where(row.categories == x[..., None], row.logits, 0.0), axis=-1)
    return settings * p * scale[..., None] * table, at_x


def make_arguments(shape=(N,), dtype=jnp.float32):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(*shape, K)), dtype)
    numbers = [
        jnp.asarray(rng.random(shape[:1]), jnp.float32),
        jnp.asarray(rng.integers(0, K, shape), jnp.int32),
    ]
    return logits, numbers, [jnp.asarray(rng.random(K), jnp.float32)]


def apply(logits, numbers, tables):
    rows._choose_form.cache_clear()
    return rows.map_rows(normalize, 2.0, logits, numbers, tables)


def read_kernels(lowered):
    """Returns loads and stores of each Triton kernel of a lowered program: name and number of operands."""
    kernels = []

    def walk(operation, visit):
        visit(operation)
        for region in operation.regions:
            for block in region.blocks:
                for child in block.operations:
                    walk(child.operation, visit)

    def read(operation):
        if operation.name != "stablehlo.custom_call":
            return
        config = ir.DictAttr(operation.attributes["mhlo.backend_config"])
        context = ir.Context()
        triton_dialect.register_dialect(context)
        context.load_all_available_dialects()
        accesses = []

        def note(operation):
            if operation.name in ("tt.load", "tt.store"):
                accesses.append((operation.name, len(operation.operands)))

        walk(ir.Module.parse(ir.StringAttr(config["ir"]).value_bytes, context).operation, note)
        kernels.append(accesses)

    walk(lowered.compiler_ir().operation, read)
    return kernels


def lower_for_cuda(*arguments):
    # A function of its own each time, of which jit has nothing in its cache.
    return jax.jit(lambda *x: apply(*x)).trace(*arguments).lower(lowering_platforms=("cuda",))


def test_a_program_for_cuda_has_one_kernel_whose_accesses_are_masked():
    # 6 rows of 5 leave most of a block of 128 x 8 beyond the end: an access without a mask would go there.
    (accesses,) = read_kernels(lower_for_cuda(*make_arguments()))
    # Address, mask and, of a load, what takes the place of what is masked; of a store its value.
    assert {name for name, _ in accesses} == {"tt.load", "tt.store"}
    assert all(num_operands == 3 for _, num_operands in accesses)


def test_what_has_no_kernel_takes_the_form_of_xla(monkeypatch):
    arguments = make_arguments()
    with jax.enable_x64(True):
        assert read_kernels(lower_for_cuda(*make_arguments(dtype=jnp.float64))) == []
    exported = jax.export.export(jax.jit(apply), platforms=("cuda", "cpu"))(*arguments)
    assert "triton" not in exported.mlir_module()
    exported = jax.export.export(jax.jit(apply), platforms=("cuda",))(*arguments)
    assert "triton" not in exported.mlir_module()
    with monkeypatch.context() as patch:
        patch.setattr(rows, "LONGEST", K - 1)
        assert read_kernels(lower_for_cuda(*arguments)) == []
    monkeypatch.setenv(kernel_check.VARIABLE, "0")
    assert read_kernels(lower_for_cuda(*arguments)) == []


def test_forms_agree_whatever_the_axes():
    desired = rows._by_xla(normalize, 2.0, 2, *jax.tree.leaves(make_arguments((2, 3))))
    logits, numbers, tables = make_arguments((2, 3))
    kernel = rows._by_pallas(normalize, 2.0, 2, logits, *numbers, *tables, interpret=True)
    mapped = jax.jit(jax.vmap(apply, in_axes=(0, 0, None)))(logits, numbers, tables)
    for a, b, c in zip(desired, kernel, mapped, strict=True):
        np.testing.assert_allclose(b, a, 1e-6)
        np.testing.assert_allclose(c, a, 1e-6)


@pytest.mark.parametrize("spec", [PartitionSpec("d"), PartitionSpec(None, "d")])
def test_rows_that_are_spread_over_devices_stay_there(spec):
    mesh = Mesh(np.array(jax.devices("cpu")[:2]), ("d",))
    logits, numbers, tables = make_arguments((4, 2))

    def spread(x, spec):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    everywhere = PartitionSpec()
    lowered = jax.jit(lambda *x: apply(*x)).lower(
        spread(logits, spec),
        [spread(numbers[0], everywhere), spread(numbers[1], spec)],
        [spread(tables[0], everywhere)],
    )
    compiled = lowered.compile()
    assert not [word for word in ("all-gather", "all-to-all", "collective") if word in compiled.as_text()]
    assert all(x.is_equivalent_to(NamedSharding(mesh, spec), 2) for x in compiled.output_shardings)


def test_a_row_goes_back_in_the_type_of_the_logits():
    p, at_x = jax.jit(apply)(*make_arguments(dtype=jnp.bfloat16))
    assert (p.dtype, at_x.dtype) == (jnp.bfloat16, jnp.float32)


def test_a_kernel_that_differs_or_fails_is_not_used(monkeypatch):
    monkeypatch.setattr(kernel_check, "find_gpu", lambda: jax.devices("cpu")[0])
    shapes = [jax.ShapeDtypeStruct((kernel_check.ROWS, K), jnp.float32)]

    def reference(logits):
        return [jnp.exp(logits), jnp.argmax(logits, axis=-1)]

    def wrong(logits):
        return [jnp.exp(logits).at[3, 2].add(1e-3), jnp.argmax(logits, axis=-1)]

    def wrong_integers(logits):
        return [jnp.exp(logits), jnp.argmax(logits, axis=-1).at[:2].add(1)]

    def failing(logits):
        raise NotImplementedError("no such\ninstruction")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernel_check.agrees("f", reference, reference, K, shapes)
    for kernel, words in ((wrong, "differs"), (wrong_integers, "differs"), (failing, "no such instruction")):
        with pytest.warns(UserWarning, match=f"kernel f .*{words}.* K = 5: please report"):
            assert not kernel_check.agrees("f", kernel, reference, K, shapes)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(RuntimeError, match="set D3PM_JAX_PALLAS=0 for all processes"):
        kernel_check.agrees("f", wrong, reference, K, shapes)


def test_a_kernel_is_checked_before_a_program_is_lowered(monkeypatch):
    monkeypatch.setattr(kernel_check, "find_gpu", lambda: jax.devices("cpu")[0])
    # On a CPU Pallas has no kernel but in interpret mode: so it fails, and XLA's form is taken.
    with pytest.warns(UserWarning, match="the kernel normalize fails with .*nterpret"):
        assert read_kernels(lower_for_cuda(*make_arguments())) == []


def test_an_old_card_has_no_kernels(monkeypatch):
    class Old:
        compute_capability = "7.5"

    monkeypatch.setattr(kernel_check, "find_gpu", Old)
    assert not kernel_check.may_use_kernels()
