"""The discrete samplers of google/hackable_diffusion (`DiffusionSampler`), in JAX.

HACKABLE_DIFFUSION is the folder of a checkout. HACKABLE_OPTIONS: process=mask or uniform; cap=0, the most
that is masked again; epsilon=1e-6, its last time, or 0. It needs einops, immutabledict and typeguard.
"""

import checkout
import jax
import jax.numpy as jnp

URL = "https://github.com/google/hackable_diffusion"
FOLDER = checkout.open_folder("HACKABLE_DIFFUSION", URL, "hackable_diffusion/hd.py")
OPTIONS = checkout.read_options("HACKABLE_OPTIONS", process="mask", cap=0.0, epsilon=1e-6)
hd = checkout.load(FOLDER, "hackable_diffusion.hd", "kauldron")
checkout.loop_in_python(hd.sampling.sampling)
noise = OPTIONS.process
if OPTIONS.cap == OPTIONS.epsilon == 0:
    claims = "ancestral"


def sample(denoise, K, L, n, seed, calls):
    discrete = hd.corruption.discrete
    step = hd.sampling.discrete_step_sampler
    schedule = hd.corruption.schedules.LinearDiscreteSchedule()
    if noise == "mask":
        process = discrete.CategoricalProcess.masking_process(schedule, K)
        masked = step.MaskValueCorruptedMaskFn(process=process)
        remask = step.MaxCappedRemaskingFn(schedule=schedule, max_cap=OPTIONS.cap)
        functions = dict(corruption_mask_fn=masked, remasking_fn=remask)
        stepper = step.UnMaskingStep(corruption_process=process, **functions)
    else:
        process = discrete.CategoricalProcess.uniform_process(schedule, K)
        stepper = step.DiscreteDDIMStep(corruption_process=process)
    start_key, key = jax.random.split(jax.random.key(seed))
    start = process.sample_from_invariant(start_key, jnp.zeros((n, L, 1), int))
    times = hd.sampling.time_scheduling.UniformTimeSchedule(safety_epsilon=OPTIONS.epsilon)
    sampler = hd.sampling.DiffusionSampler(time_schedule=times, stepper=stepper, num_steps=calls + 1)
    return sampler(
        lambda xt, conditioning, time: {"logits": denoise(xt[..., 0], 1 - time[:, 0, 0])}, key, start
    )[0].xt[..., 0]
