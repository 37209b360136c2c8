"""Lists deliberate breaks of the library: slips that somebody could make, each of which a test has to notice.

Every one changes what a user gets. Where that is not obvious, a comment says where it shows. None is in
`torch_ref`, which is what the library is compared with.
"""

from typing import NamedTuple


class Break(NamedTuple):
    """Describes one change of one file."""

    name: str
    file: str  # relative to the root of the repository
    old: str  # stands in the file exactly once
    new: str  # what takes its place
    tests: tuple[str, ...]  # files that are likely to notice, the fastest first


ENUMERATION = "tests/test_enumeration.py"
EVAL_AND_SAMPLE = "tests/cli/test_eval_and_sample.py"
ROWS = "tests/numerics/test_rows.py"
FUSED = "tests/losses/test_fused.py"
LAWS = "tests/sampling/test_laws.py"
MODULES = "tests/runs/test_modules.py"
INVERSE_CDF = "tests/numerics/test_inverse_cdf.py"
OWN_PROCESS = "tests/processes/test_own_process.py"
PARITY = "parity_tests/test_parity.py"
PASSES = "tests/sampling/test_passes.py"
PARTS = "tests/training/test_parts.py"
PRESAMPLED = "tests/program/loop/test_presampled.py"
SAMPLERS_FILE = "tests/sampling/test_samplers.py"
STEP = "tests/training/test_step.py"
TRAIN = "tests/cli/test_train.py"

NUMERICS = (
    Break(
        "log_sum_eps",
        "d3pm_jax/numerics/logspace.py",
        "return jnp.where(all_zero, NEG_INF, log_total)",
        "return jnp.log(total + 1e-30) + top",
        ("tests/numerics/test_logspace.py",),
    ),
    Break(  # bands behind the first, so entries 30 nats below the largest
        "log_matmul_band_sign",
        "d3pm_jax/numerics/log_matmul.py",
        "return jnp.log(_matmul(p, table)) + (top - width * b)",
        "return jnp.log(_matmul(p, table)) + (top + width * b)",
        ("tests/numerics/test_log_matmul.py",),
    ),
    Break(
        "product_of_pairs_without_low_terms",
        "d3pm_jax/numerics/double_float.py",
        "error = ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2",
        "error = (a1 * b1 - product) + a1 * b2 + a2 * b1",
        ("tests/numerics/test_double_float.py", INVERSE_CDF),
    ),
    Break(  # at a u that is a boundary exactly: u = 0 draws a category of probability 0
        "draws_below_or_at_u",
        "d3pm_jax/numerics/inverse_cdf.py",
        "is_above = double_float.is_less(target, end)",
        "is_above = ~double_float.is_less(end, target)",
        ("tests/test_timesteps.py", INVERSE_CDF),
    ),
    Break(  # of what a float does not hold, in sums of blocks: events rarer than 2^-23 at their ends
        "sums_of_blocks_forget_what_was_rounded",
        "d3pm_jax/numerics/inverse_cdf.py",
        "return high, a[1] + (error + b[1])",
        "return high, a[1] + b[1]",
        (INVERSE_CDF,),
    ),
    Break(  # on accelerators alone: a noise value would mean another category there, now and then
        "row_draws_add_up_from_right_to_left",
        "d3pm_jax/numerics/inverse_cdf.py",
        "    total = slices[0]\n    for pair in slices[1:]:\n",
        "    total = slices[-1]\n    for pair in slices[-2::-1]:\n",
        ("tests/lowering/test_forms.py",),
    ),
    Break(  # on accelerators alone
        "parts_on_accelerators",
        "d3pm_jax/cpu/tiles.py",
        "elsewhere = max(1, N)",
        "elsewhere = on_cpu",
        ("tests/cpu/test_tiles.py",),
    ),
    Break(  # where the elements behind the first axis do not divide into parts
        "last_part_left_out",
        "d3pm_jax/cpu/tiles.py",
        "outputs = jax.lax.fori_loop(0, -(-N // size), step, empty)",
        "outputs = jax.lax.fori_loop(0, N // size, step, empty)",
        ("tests/cpu/test_tiles.py",),
    ),
    Break(  # a matrix for each element, all of them at once
        "accelerators_take_any_number_of_matrices",
        "d3pm_jax/cpu/tiles.py",
        "if floats <= K:",
        "if floats <= K**2:",
        ("tests/lowering/test_programs.py",),
    ),
    Break(  # where one element of many needs the definition: the others are right
        "unsafe_parts_left_as_they_are",
        "d3pm_jax/cpu/tiles.py",
        "is_left = jnp.any(jnp.isnan(outputs[0]), axis=0)",
        "is_left = jnp.zeros(outputs[0].shape[1], bool)",
        ("tests/cpu/test_tiles.py",),
    ),
)

SCHEDULES = (
    Break(
        "cosine_one_step_late",
        "d3pm_jax/schedules/discrete.py",
        "2 * np.cos((n - 0.5) * h)",
        "2 * np.cos((n + 0.5) * h)",
        ("tests/schedules/test_discrete.py",),
    ),
    Break(  # the spacing of the official text code
        "information_by_t_plus_1",
        "d3pm_jax/schedules/information.py",
        "left = 1 - np.arange(T + 1) / T\n",
        "left = 1 - np.arange(T + 1) / (T + 1)\n",
        ("tests/schedules/test_information.py",),
    ),
)

PROCESSES = (
    Break(
        "uniform_draw_never_above_x0",
        "d3pm_jax/processes/mixing.py",
        "return jnp.where(moved, k + (k >= x0).astype(k.dtype), self.K)",
        "return jnp.where(moved, k + (k > x0).astype(k.dtype), self.K)",
        ("tests/losses/test_continuous.py", INVERSE_CDF, ENUMERATION),
    ),
    Break(  # the same where p(mask) = 0; not for a network that does not forbid the mask
        "masked_push_without_weight",
        "d3pm_jax/processes/masked.py",
        "log_add(masked, total + log_mask)",
        "log_add(masked, log_mask)",
        (FUSED, ENUMERATION),
    ),
    Break(  # the same for matrices that commute, as those of one rate or one kernel do
        "dense_products_in_reverse",
        "d3pm_jax/processes/dense.py",
        "Qbar = Qbar @ q",
        "Qbar = q @ Qbar",
        ("tests/processes/test_respace.py", ENUMERATION),
    ),
    Break(  # rows still sum to 1: the diagonal is made of the others
        "gaussian_counts_0_twice",
        "d3pm_jax/processes/ordinal.py",
        "return w / (2 * w.sum() - 1)",
        "return w / (2 * w.sum())",
        ("tests/processes/test_ordinal.py", ENUMERATION),
    ),
    Break(  # t = 0 reads the last step, so nothing fails
        "respaced_steps_off_by_one",
        "d3pm_jax/processes/respace.py",
        "return [range(a + 1, b + 1) for a, b in zip([0, *grid], grid, strict=False)]",
        "return [range(a, b) for a, b in zip([0, *grid], grid, strict=False)]",
        ("tests/processes/test_respace.py",),
    ),
    Break(  # a negative t reads from the end of a table
        "negative_steps_wrap",
        "d3pm_jax/processes/tables.py",
        "return jnp.where(i < 0, n, i)",
        "return i",
        ("tests/processes/test_tables.py",),
    ),
)

KERNELS = (
    Break(  # `log_push` of a mixing process takes a distribution
        "prediction_not_normalised",
        "d3pm_jax/posteriors.py",
        "log_p0 = log_p_x0(process, logits_x0)",
        "log_p0 = promote(process, logits_x0)",
        (FUSED, ENUMERATION),
    ),
    Break(
        "logistic_bins_half_as_wide",
        "d3pm_jax/heads.py",
        "inside = numerics.log1mexp(math.log(2.0 / (K - 1)) + 2.0 - log_scale)",
        "inside = numerics.log1mexp(math.log(1.0 / (K - 1)) + 2.0 - log_scale)",
        ("tests/test_heads.py",),
    ),
    Break(
        "history_sums_over_a_batch",
        "d3pm_jax/timesteps.py",
        "(1 - decay) * (total / jnp.maximum(seen, 1).astype(total.dtype))",
        "(1 - decay) * total",
        ("tests/test_timesteps.py",),
    ),
    Break(
        "strata_without_their_sizes",
        "d3pm_jax/likelihood.py",
        "return sizes[j].astype(nats.dtype) * nats",
        "return nats",
        ("tests/test_likelihood.py",),
    ),
    Break(
        "all_orders_by_all_elements",
        "d3pm_jax/orders.py",
        "num_hidden = jnp.sum(~is_visible).astype(log_rest.dtype)",
        "num_hidden = jnp.asarray(D, log_rest.dtype)",
        ("tests/test_orders.py",),
    ),
    Break(  # where an order has what is given in between
        "given_elements_where_they_are",
        "d3pm_jax/orders.py",
        "rank = jnp.where(given.reshape(len(order), D), rank, rank + D)",
        "rank = jnp.where(given.reshape(len(order), D), rank, rank)",
        ("tests/test_orders.py",),
    ),
    Break(
        "paths_without_their_prior",
        "d3pm_jax/likelihood.py",
        "jnp.sum(log_ratios, axis=0) + _sum_per_example(log_p, None)",
        "jnp.sum(log_ratios, axis=0)",
        (ENUMERATION,),
    ),
    Break(  # equal at eps = 0
        "official_eps_added_once",
        "d3pm_jax/compat/official_images.py",
        "jnp.log(column + eps) + jnp.log(row + eps)",
        "jnp.log(column * row + eps)",
        ("tests/compat/test_official_images.py",),
    ),
)

LOSSES = (
    Break(  # the same where every t is as likely as another: only `Importance` draws otherwise
        "mean_over_steps_weights_upside_down",
        "d3pm_jax/losses/variational.py",
        "(1 / T) / p_t",
        "T * p_t",
        (STEP, PARITY),
    ),
    Break(
        "mixing_loss_mixes_a_step_too_far",
        "d3pm_jax/losses/fused_mixing.py",
        "m = gather(process.log_beta_bar, t - 1)",
        "m = gather(process.log_beta_bar, t)",
        (FUSED,),
    ),
    Break(  # the gradient alone
        "mixing_gradient_without_kappa",
        "d3pm_jax/losses/fused_mixing.py",
        "slope_p = others.S + qs_0 + qs_t - kappa",
        "slope_p = others.S + qs_0 + qs_t",
        (FUSED,),
    ),
    Break(
        "kernel_writes_beyond_its_rows",
        "d3pm_jax/numerics/rows.py",
        "triton.store(entries(ref), result.astype(ref.dtype), mask=is_entry)",
        "triton.store(entries(ref), result.astype(ref.dtype))",
        (ROWS,),
    ),
    Break(
        "rows_gathered_on_every_device",
        "d3pm_jax/numerics/rows.py",
        "return NamedSharding(sharding.mesh, PartitionSpec(*spec))",
        "return NamedSharding(sharding.mesh, PartitionSpec(*spec[:0]))",
        (ROWS,),
    ),
    Break(
        "masked_loss_a_step_late",
        "d3pm_jax/losses/fused_masked.py",
        "dispatch_marginal_kl(process.inner, visible, inner_x0, t - 1)",
        "dispatch_marginal_kl(process.inner, visible, inner_x0, t)",
        (FUSED,),
    ),
    Break(  # the gradient alone, and only of matrices that are not symmetric
        "dense_gradient_not_transposed",
        "d3pm_jax/losses/fused_dense.py",
        "g = _times(g, jnp.swapaxes(gather(process.Qbar_table, t - 1), -1, -2))",
        "g = _times(g, gather(process.Qbar_table, t - 1))",
        (OWN_PROCESS, FUSED),
    ),
    Break(  # the gradient of anything but a plain sum
        "cotangent_left_out",
        "d3pm_jax/losses/fused_by_parts.py",
        "return None, g[..., None] * gradient, None, None, None",
        "return None, gradient, None, None, None",
        (OWN_PROCESS, FUSED),
    ),
)

SAMPLING = (
    Break(
        "examples_share_their_noise",
        "d3pm_jax/sampling/noise.py",
        "jax.random.fold_in(k, row)",
        "jax.random.fold_in(key, row)",
        ("tests/test_likelihood.py", EVAL_AND_SAMPLE),
    ),
    Break(  # of a respaced process alone: the network is told t = 1..n in place of the steps that were kept
        "strided_chain_tells_its_own_t",
        "d3pm_jax/sampling/run.py",
        "network_time = process.time[t] if",
        "network_time = t if",
        ("tests/sampling/test_ancestral.py", ENUMERATION, EVAL_AND_SAMPLE),
    ),
)

SAMPLERS = (
    # A network that was trained on masked places alone would draw the others anew.
    Break(
        "denoiser_takes_what_x_t_rules_out",
        "d3pm_jax/beliefs.py",
        "jnp.where(is_possible, promote(process, logits), -jnp.inf)",
        "promote(process, logits)",
        (LAWS,),
    ),
    Break(
        "keep_forgets_what_is_drawn_anew",
        "d3pm_jax/sampling/laws.py",
        "to_x0 = (gained + (1 - c) * alpha_t * mixed_s) / mixed_t",
        "to_x0 = (gained + alpha_t * mixed_s) / mixed_t",
        (LAWS, SAMPLERS_FILE),
    ),
    Break(
        "remasking_unmasks_no_more_often",
        "d3pm_jax/sampling/laws.py",
        "to_x0 = (gained + sigma * alpha_t) / mixed_t",
        "to_x0 = gained / mixed_t",
        (LAWS, SAMPLERS_FILE),
    ),
    Break(
        "cosine_is_left_to_rounding",
        "d3pm_jax/sampling/places.py",
        "np.arange(rows + 1) / (2 * rows)) + 1e-9)",
        "np.arange(rows + 1) / (2 * rows)))",
        ("tests/sampling/test_places.py",),
    ),
    Break(
        "factor_counts_from_n",
        "d3pm_jax/sampling/places.py",
        "below = (n + 1).astype(probability.dtype) * (1 - probability) < factor",
        "below = n.astype(probability.dtype) * (1 - probability) < factor",
        ("tests/sampling/test_places.py",),
    ),
    # A place leaves one row late.
    Break(
        "hazard_of_the_row_before",
        "d3pm_jax/sampling/transitions.py",
        "(jnp.floor(after) > jnp.floor(before)) | has_no_law, after",
        "(jnp.floor(after) > jnp.floor(before)) | has_no_law, before",
        (SAMPLERS_FILE,),
    ),
    # A sampler that adapts would seem to cost as much as one that does not.
    Break(
        "finished_examples_call",
        "d3pm_jax/sampling/places.py",
        "return Taken(x, memory, view.see(answer), is_active.astype(jnp.int32), jnp.asarray(1, jnp.int32))",
        "return Taken(x, memory, view.see(answer), jnp.ones(len(x), jnp.int32), jnp.asarray(1, jnp.int32))",
        (SAMPLERS_FILE,),
    ),
    # All moves of a corrector would draw with one and the same noise.
    Break(
        "moves_share_their_noise",
        "d3pm_jax/sampling/correctors.py",
        "view.noise(CORRECTOR + 2 * i + stream)",
        "view.noise(CORRECTOR + stream)",
        (SAMPLERS_FILE, PARITY),
    ),
    # The observed token would be sharpened as well.
    Break(
        "denoiser_is_shaped",
        "d3pm_jax/sampling/sampler.py",
        "strip_evidence(process, logits, answer.x, answer.t, answer.belief)",
        "logits",
        (SAMPLERS_FILE, PARITY),
    ),
)

STEERING = (
    Break(  # scores on the way would count again and again
        "particles_are_weighted_by_scores_and_not_by_their_rise",
        "d3pm_jax/sampling/steering.py",
        "log_weights = (scores - before).reshape(N, P)",
        "log_weights = scores.reshape(N, P)",
        ("tests/sampling/test_steering.py",),
    ),
    Break(  # the law would be that of what looks good halfway
        "what_is_never_is_dropped_on_the_way",
        "d3pm_jax/sampling/steering.py",
        "counts = is_last | (is_called & (scores != -jnp.inf))",
        "counts = is_last | is_called",
        ("tests/sampling/test_steering.py",),
    ),
)

EDITING = (
    Break(
        "a_step_goes_to_its_level",
        "d3pm_jax/processes/mixing.py",
        "return self._draw(self.beta, x, t, u, u_low)",
        "return self._draw(self.beta_bar, x, t, u, u_low)",
        ("tests/processes/test_draw_step.py",),
    ),
    Break(
        "passes_without_a_way_back",
        "d3pm_jax/sampling/plans.py",
        "levels += [(row.s, row.t)]",
        "levels += []",
        (PASSES,),
    ),
    # Known places would be a row behind, and noised in the end.
    Break(
        "known_places_noised_to_where_a_row_begins",
        "d3pm_jax/sampling/run.py",
        "process.draw_q(jnp.asarray(self.known.x0), view.s, view.noise(DRAW))",
        "process.draw_q(jnp.asarray(self.known.x0), view.t, view.noise(DRAW))",
        (PASSES,),
    ),
    Break(
        "strength_is_cut_down",
        "d3pm_jax/sampling/plans.py",
        "max(1, round(strength * T))",
        "max(1, int(strength * T))",
        (PASSES,),
    ),
    # A sample would have another example in another batch.
    Break(
        "known_elements_by_the_place_in_a_batch",
        "d3pm_jax/program/measure/samples.py",
        "return array[index % len(array)]",
        "return array[(index - index[0]) % len(array)]",
        ("tests/runs/test_editing.py",),
    ),
)

MODELS = (
    Break(  # the gradient alone
        "group_norm_gradient_without_scale",
        "d3pm_jax/models/layers.py",
        "centred * _per_pixel(inverse * mean_gz)",
        "centred * _per_pixel(mean_gz)",
        ("tests/models/test_layers.py",),
    ),
    Break(  # where an odd number of rows is added
        "padding_on_the_other_side",
        "d3pm_jax/models/backbone.py",
        "return total // 2, total - total // 2",
        "return total - total // 2, total // 2",
        ("tests/models/test_networks.py",),
    ),
    Break(
        "kernels_with_rows_as_columns",
        "d3pm_jax/weights/twin.py",
        "return (ndim - 1, ndim - 2, *range(ndim - 2))",
        "return (ndim - 1, ndim - 2, *reversed(range(ndim - 2)))",
        ("tests/weights/test_twin.py",),
    ),
    Break(
        "enlarged_images_repeat_in_turn",
        "d3pm_jax/models/layers.py",
        "return jnp.repeat(jnp.repeat(x, H // h, axis=1), W // w, axis=2)",
        "return jnp.tile(x, (1, H // h, W // w, 1))",
        ("tests/models/test_conditions.py",),
    ),
    Break(  # where there are fewer conditions than samples in a batch
        "conditions_begin_again_in_each_batch",
        "d3pm_jax/program/measure/samples.py",
        "condition = condition[of_chains % len(condition)]",
        "condition = condition[(of_chains - first) % len(condition)]",
        ("tests/runs/test_conditions.py",),
    ),
    Break(
        "measured_in_the_mazes_in_order",
        "d3pm_jax/kinds/maze.py",
        "mazes[np.arange(len(x)) % len(mazes)]",
        "mazes[np.sort(np.arange(len(x)) % len(mazes))]",
        ("tests/kinds/test_maze.py",),
    ),
)

TRAINING = (
    Break(
        "data_not_shuffled",
        "d3pm_jax/data/batches.py",
        ".seed(seed).shuffle().repeat(num_epochs)",
        ".seed(seed).repeat(num_epochs)",
        ("tests/data/test_batches.py",),
    ),
    Break(  # the same where every t is as likely as another
        "bound_ignores_how_t_was_drawn",
        "d3pm_jax/config/objective.py",
        "bound = hybrid.kl / expand_trailing(p_t, x0.shape) + prior_kl(process, x0)",
        "bound = hybrid.kl * process.T + prior_kl(process, x0)",
        (STEP,),
    ),
    Break(
        "clips_after_adam",
        "d3pm_jax/config/optimizer.py",
        "return optax.chain(optax.clip_by_global_norm(self.clip), rule)",
        "return optax.chain(rule, optax.clip_by_global_norm(self.clip))",
        (STEP,),
    ),
    Break(
        "average_starts_from_zero",
        "d3pm_jax/training/state.py",
        "ema = jax.tree.map(jnp.copy, params)",
        "ema = jax.tree.map(jnp.zeros_like, params)",
        (STEP,),
    ),
    Break(
        "every_step_has_the_noise_of_the_first",
        "d3pm_jax/training/loss.py",
        "return jax.random.split(jax.random.fold_in(key, step), 3)",
        "return jax.random.split(jax.random.fold_in(key, 0), 3)",
        (STEP, PRESAMPLED),
    ),
    Break(  # where parts have other sums of weights
        "parts_are_means_of_their_own",
        "d3pm_jax/training/step.py",
        "summands, costs, buffers = differentiate(buffers, *part)",
        "summands, costs, buffers = differentiate(buffers, *part)\n"
        "        summands = jax.tree.map(lambda x: x / accumulate, summands)",
        (PARTS,),
    ),
    Break(  # an infinite loss may have a finite gradient
        "steps_are_skipped_by_their_gradient_alone",
        "d3pm_jax/training/step.py",
        "finite = jnp.isfinite(jnp.stack(list(metrics.values()))).all()",
        'finite = jnp.isfinite(metrics["grad_norm"])',
        (PARTS,),
    ),
)

RUNS = (
    Break(  # every process trains on the same part of a batch
        "every_process_reads_the_first_part",
        "d3pm_jax/data/batches.py",
        "part_batches[start * parts + part :: parts]",
        "part_batches[start * parts :: parts]",
        ("tests/data/test_batches.py",),
    ),
    Break(  # the first axis counts layers, of which a scan takes one after the other
        "layers_are_cut_apart",
        "d3pm_jax/program/machine/devices.py",
        "key=lambda axis: (shape[axis], axis)",
        "key=lambda axis: (shape[axis], -axis)",
        ("tests/program/machine/test_devices.py",),
    ),
    Break(  # what was damaged is taken for the last checkpoint again
        "damaged_checkpoints_stay",
        "d3pm_jax/program/storage/checkpoint.py",
        "        if later > step:\n",
        "        if later > step + 10**9:\n",
        (TRAIN,),
    ),
    Break(  # one here and one there would stop a long run
        "skipped_steps_count_though_not_in_a_row",
        "d3pm_jax/program/loop/metrics.py",
        "            self._skipped_in_a_row = []\n",
        "",
        ("tests/program/loop/test_metrics.py",),
    ),
    Break(
        "noise_of_evaluation_by_place_in_the_batch",
        "d3pm_jax/evaluation/bound.py",
        "placed = place((x0[rows], index.astype(np.int32), extra_rows), sharding)",
        "placed = place((x0[rows], (index - start).astype(np.int32), extra_rows), sharding)",
        ("tests/runs/test_belief.py",),
    ),
    Break(  # a damaged file: Orbax restores many a flipped byte without a word
        "manifest_not_checked",
        "d3pm_jax/program/storage/checkpoint.py",
        "            _verify(path)\n",
        "            pass\n",
        (TRAIN,),
    ),
    Break(  # the line of the step that a run is resumed from
        "metrics_lose_a_line_on_resume",
        "d3pm_jax/program/loop/sinks.py",
        'if row["step"] <= after_step',
        'if row["step"] < after_step',
        (TRAIN,),
    ),
    Break(
        "data_from_its_start_on_resume",
        "d3pm_jax/program/loop/loop.py",
        "        parts.step,\n        random_map,\n",
        "        0,\n        random_map,\n",
        (PRESAMPLED, TRAIN),
    ),
    Break(
        "resume_with_another_config",
        "d3pm_jax/program/storage/run_folder.py",
        "    check_resume(run.config, config, run.files)\n",
        "",
        (TRAIN,),
    ),
    Break(  # a project that was copied would read the data of the one it was copied from
        "paths_start_from_the_folder_of_before",
        "d3pm_jax/program/storage/run_folder.py",
        "(Path.cwd(), files.directory)",
        "(files.directory, Path.cwd())",
        ("tests/cli/test_where_data_lies.py",),
    ),
    Break(  # the figure that is published
        "evaluates_the_last_weights",
        "d3pm_jax/program/parts/build.py",
        "return self.state.ema",
        "return self.state.params",
        (EVAL_AND_SAMPLE, "tests/cli/test_export_and_import.py"),
    ),
)

NETWORKS = (
    Break(
        "constants_are_trained",
        "d3pm_jax/models/variables.py",
        "    if not isinstance(variables, nnx.State):\n",
        "    if variables is not None:\n",
        (MODULES,),
    ),
    Break(
        "batch_statistics_are_not_averaged",
        "d3pm_jax/training/step.py",
        "isinstance(x, nnx.Param | nnx.BatchStat)",
        "isinstance(x, nnx.Param)",
        (MODULES,),
    ),
    Break(
        "constants_are_averaged",
        "d3pm_jax/training/step.py",
        "isinstance(x, nnx.Param | nnx.BatchStat)",
        "isinstance(x, nnx.Variable)",
        (MODULES,),
    ),
    Break(
        "streams_of_a_network_repeat",
        "d3pm_jax/models/variables.py",
        "_seed_streams(self.streams, key), copy=True",
        "_seed_streams(self.streams, None), copy=True",
        (MODULES,),
    ),
    Break(
        "networks_are_never_in_evaluation_mode",
        "d3pm_jax/models/variables.py",
        "graph = self.evaluation_graph if key is None else self.training_graph",
        "graph = self.training_graph",
        (MODULES,),
    ),
)

REPORT = (
    Break(
        "terms_summed_from_1_up",
        "d3pm_jax/report/curves.py",
        "np.cumsum(finite[::-1])[::-1].tolist()",
        "np.cumsum(finite).tolist()",
        ("tests/report/test_curves.py",),
    ),
    Break(  # the figure at the top of the page
        "shows_the_bound_of_fewest_steps",
        "d3pm_jax/report/folder.py",
        '-len(result["times"]),',
        'len(result["times"]),',
        ("tests/report/test_folder.py",),
    ),
    Break(  # figures in other features beside each other, as if they compared
        "quality_always_compares",
        "d3pm_jax/report/figures.py",
        "differing_fields = list_incomparable(first, record)",
        "differing_fields = list_incomparable(first, first)",
        ("tests/report/test_figures.py",),
    ),
)

FLOWS = (
    Break(  # a bound that is right but looser: the gain of symbols with several codes is left out
        "bound_without_the_number_of_codes",
        "d3pm_jax/flows/codes.py",
        "return x + K * which_code, jnp.log(wide_n).astype(u.dtype)",
        "return x + K * which_code, jnp.zeros_like(u)",
        ("tests/flows/test_codes.py",),
    ),
    Break(  # right for one position alone
        "linear_layer_counts_one_position",
        "d3pm_jax/flows/layers.py",
        "num_vectors = math.prod(v.shape[1:-1])",
        "num_vectors = 1",
        ("tests/flows/test_layers.py",),
    ),
    Break(  # an argmax that rounding moves, in few draws
        "v_may_round_up_to_the_largest",
        "d3pm_jax/flows/argmax.py",
        "return jnp.where(v < threshold, v, threshold - step)",
        "return v",
        ("tests/flows/test_argmax.py",),
    ),
    Break(  # the bound of several paths of an example is above that of one
        "paths_that_are_likely_cost_most",
        "d3pm_jax/evaluation/bound.py",
        "return -likelihood.trajectory_log_weight(",
        "return likelihood.trajectory_log_weight(",
        ("tests/runs/test_exact.py",),
    ),
    Break(  # every draw of v is the same, so that IWBO(n) is the ELBO
        "draws_of_a_bound_share_their_noise",
        "d3pm_jax/evaluation/bound.py",
        "draw_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, draw)",
        "draw_keys = keys",
        ("tests/runs/test_flows.py",),
    ),
    Break(  # a flow that is trained to be improbable
        "loss_of_a_flow_has_the_other_sign",
        "d3pm_jax/training/flow.py",
        "loss = -log_weights.sum() / total",
        "loss = log_weights.sum() / total",
        ("tests/runs/test_flows.py",),
    ),
)

BREAKS = (
    *NUMERICS,
    *SCHEDULES,
    *PROCESSES,
    *KERNELS,
    *LOSSES,
    *SAMPLING,
    *SAMPLERS,
    *EDITING,
    *STEERING,
    *MODELS,
    *TRAINING,
    *RUNS,
    *NETWORKS,
    *REPORT,
    *FLOWS,
)
