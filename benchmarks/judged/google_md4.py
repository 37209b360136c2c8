"""MD4's samplers (google-deepmind/md4, `sampling.simple_generate`), in JAX. MD4 is the folder of a checkout.

MD4_OPTIONS: sampler=ancestral, its default, topp or mean; topp=0.98; sampling_grid=cosine, its default, or
uniform. It needs the packages tfp-nightly, dm-tree, cloudpickle, decorator, gast and six.
"""

from types import SimpleNamespace

import checkout
import jax

FOLDER = checkout.open_folder("MD4", "https://github.com/google-deepmind/md4", "md4/sampling.py")
OPTIONS = checkout.read_options("MD4_OPTIONS", sampler="ancestral", topp=0.98, sampling_grid="cosine")
UNUSED = "absl chex clu distrax matplotlib orbax seaborn"
sampling = checkout.load(FOLDER, "md4.sampling", UNUSED)
md4 = checkout.load(FOLDER, "md4.models.diffusion.md4", UNUSED + " md4.models.backward")


checkout.loop_in_python(sampling)


class Judged(md4.MD4):
    """MD4 with a function in the place of its network."""

    denoise: object = None

    def setup(self):
        self.noise_schedule = md4.MaskingSchedule(self.data_shape, self.noise_schedule_type)

    def predict_x(self, zt, t, cond=None, train=False):
        return self.denoise(zt, self.noise_schedule.alpha(t)), None


def sample(denoise, K, L, n, seed, calls):
    steps = calls - 1  # its decoder asks once more
    model = Judged(
        data_shape=(L,), vocab_size=K, timesteps=steps, classes=-1, denoise=denoise, **vars(OPTIONS)
    )
    state = SimpleNamespace(params={}, state={})
    return sampling.simple_generate(jax.random.key(seed), state, n, model)
