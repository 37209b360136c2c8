"""Bugs that people had in public repositories, each as a change of a small program that is right.

`--against` names each in a sentence, which `test_catalogue.py` expects; docs/known-bugs.md lists them.
"""

from typing import NamedTuple

GITHUB = "https://github.com/"
MASKED = "examples/masked_program.py"
UNIFORM = "examples/uniform_program.py"


class Bug(NamedTuple):
    """A bug, where it was, and the same in a program of ours."""

    name: str
    source: str  # the thread below github.com, or else the commit or line
    fact: str  # what was wrong there
    program: str
    old: str  # stands in the program once
    new: str
    sentence: str  # what `--against` prints of it

    @property
    def is_thread(self) -> bool:
        """Whether people write of it there."""
        return "/issues/" in self.source or "/pull/" in self.source

    @property
    def row(self) -> str:
        """Its row of the table in docs/known-bugs.md."""
        owner, repository, _, which, *_ = self.source.split("/")
        number = f"#{which}" if self.is_thread else f"at {which[:7]}"
        name = f"{owner}/{repository} {number}"
        return f"| [{name}]({GITHUB}{self.source}) | {self.fact} | `{self.sentence}` |"

    def plant(self, text: str) -> str:
        """The text of the program with the bug."""
        assert text.count(self.old) == 1, f"{self.name}: its text stands {text.count(self.old)} times"
        return text.replace(self.old, self.new)


BUGS = (
    Bug(
        "no_weight",
        "inclusionAI/dFactory/issues/17",
        "The cross entropy of masked places had no weight 1/p_mask, which LLaDA's loss has.",
        MASKED,
        "weight = -alpha_derivative(t) / (1 - alpha(t))",
        "weight = torch.ones_like(t)",
        "loss is that of JAX without the weight -alpha' / (1 - alpha): mask",
    ),
    Bug(
        "every_place_counted",
        "lucidrains/mlm-pytorch/pull/3",
        "The loss was taken at every token, and not only at those that had been masked.",
        MASKED,
        "(weight[:, None] * ce * is_masked)",
        "(weight[:, None] * ce)",
        "loss is that of JAX with every place counted, not the masked ones: mask",
    ),
    Bug(
        "visible_places_counted",
        "lucidrains/voicebox-pytorch/issues/6",
        "The loss was set to 0 where the input had been masked, and kept elsewhere.",
        MASKED,
        "is_masked = xt == K\n",
        "is_masked = xt != K\n",
        "loss is that of JAX with the places counted that are not masked: mask",
    ),
    Bug(
        "masks_exchanged",
        "dome272/MaskGIT-pytorch/pull/16",
        "The cosine gives how many tokens stay, and the code masked as many.",
        MASKED,
        "torch.rand(x0.shape) > keep",
        "torch.rand(x0.shape) < keep",
        "loss is that of JAX with alpha and 1 - alpha exchanged in the noise: x_t",
    ),
    Bug(
        "logits_one_place_off",
        "apple/ml-diffucoder/issues/15",
        "The last logits were cut off as in autoregressive code, and each token had its neighbour's.",
        MASKED,
        "logits = network(xt, t)  #",
        "logits = network(xt, t).roll(1, 1)  #",
        "loss is that of JAX with logits of one place before: mask",
    ),
    Bug(
        "mask_is_predicted",
        "nishide-dev/unturtle/pull/50",
        "The mask kept its logit, so that the model put masks where it should have put tokens.",
        MASKED,
        "    logits[..., K] = -math.inf\n",
        "",
        "loss is that of JAX with the mask among the categories that are predicted: mask",
    ),
    Bug(
        "one_t",
        "hao-ai-lab/FastVideo/pull/885",
        "All ranks drew the same time step, where each needs its own.",
        MASKED,
        "return 1 - (torch.arange(batch) + offset) / batch",
        "return (1 - offset).expand(batch)",
        "loss is that of JAX with one t for the whole batch: t",
    ),
    Bug(
        "one_noise",
        "ecmwf/WeatherGenerator/issues/267",
        "Consecutive examples were masked at the same places.",
        MASKED,
        "is_masked = torch.rand(x0.shape) > keep",
        "is_masked = torch.rand(1, x0.shape[1]) > keep",
        "loss is that of JAX with the same noise for every example of a batch: x_t",
    ),
    Bug(
        "noise_that_repeats",
        "Gen-Verse/dLLM-RL/issues/31",
        "Masks were drawn once before training, and every epoch had the same ones.",
        MASKED,
        "    t = draw_times(len(x0))\n",
        "    torch.manual_seed(0)\n    t = draw_times(len(x0))\n",
        "loss is that of JAX with the same noise in every call: x_t",
    ),
    Bug(
        "visible_places_drawn_again",
        "valeoai/Halton-MaskGIT/issues/36",
        "The sampler chose among all tokens, and drew anew some that had been revealed.",
        MASKED,
        "(x == K) & reveal",
        "reveal",
        "sample is that of JAX with visible places drawn again: mask",
    ),
    Bug(
        "times_in_the_other_order",
        "nathan-barry/tiny-diffusion/issues/2",
        "The network was told times that rise from the least noise on, while masks were removed.",
        MASKED,
        "denoise(x, alpha(t))",
        "denoise(x, alpha(1 - s))",
        "sample is that of JAX with the network's times in the other order: mask",
    ),
    Bug(
        "asked_at_the_next_level",
        "nkalyanv99/UNI-D2/pull/3",
        "A review found the noise levels of t and s exchanged: the network got that of s.",
        MASKED,
        "denoise(x, alpha(t))",
        "denoise(x, alpha(s))",
        "sample is that of JAX with the network asked at the alpha of the step after: mask",
    ),
    Bug(
        "masks_left",
        "NVIDIA-NeMo/Automodel/issues/3149",
        "Places that were chosen outside of the block were dropped again, and masks were left at the end.",
        MASKED,
        "(alpha(s) - alpha(t)) / (1 - alpha(t))",
        "alpha(s) - alpha(t)",
        "sample is that of JAX with alpha_s - alpha_t of the masks revealed: mask",
    ),
    Bug(
        "cosine_squared",
        "lilianweng/lilianweng.github.io/issues/9",
        "A text had the cosine without the square of its source. Here a square is one too many.",
        UNIFORM,
        "f = torch.cos((torch.arange(T + 1) / T + 0.008) / 1.008 * math.pi / 2)\n",
        "f = torch.cos((torch.arange(T + 1) / T + 0.008) / 1.008 * math.pi / 2) ** 2\n",
        "alpha_bar is that of JAX squared, as iDDPM has it: cosine",
    ),
    Bug(
        "one_step_early",
        "Project-MONAI/MONAI/pull/8427",
        "The first step of the cosine schedule had alpha_bar = 1 and added no noise.",
        UNIFORM,
        "return torch.cumprod(1 - beta, 0)",
        "return torch.cat([torch.ones(1), torch.cumprod(1 - beta, 0)[:-1]])",
        "alpha_bar is that of JAX one step earlier: cosine",
    ),
    Bug(
        "beta_exchanged",
        "mila-iqia/diffusion_for_multi_scale_molecular_dynamics/pull/90",
        "The matrices of an absorbing process kept a category with probability beta in place of 1 - beta.",
        UNIFORM,
        "return torch.cumprod(1 - beta, 0)",
        "return torch.cumprod(beta, 0)",
        "alpha_bar is that of JAX with beta and 1 - beta exchanged: cosine",
    ),
    Bug(
        "asked_at_x0",
        "cloneofsimo/d3pm/issues/1",
        "The loss gave the network x_0 itself, which it was to predict.",
        UNIFORM,
        "network(xt, t)",
        "network(x0, t)",
        "loss is that of JAX with the network asked at x_0, not at x_t: x_t",
    ),
    Bug(
        "weight_on_the_kl",
        "cloneofsimo/d3pm/issues/5",
        "The hybrid loss multiplied the bound by the coefficient, and not the cross entropy.",
        UNIFORM,
        "kl(true, predicted) + ce_weight * ce",
        "ce_weight * kl(true, predicted) + ce",
        "loss is that of JAX with ce_weight on the KL: uniform",
    ),
    Bug(
        "kl_reversed",
        "huggingface/trl/pull/4935",
        "A review found the arguments of F.kl_div exchanged: the divergence of the other direction.",
        UNIFORM,
        "kl(true, predicted)",
        "kl(predicted, true)",
        "loss is that of JAX with KL(p, q) in place of KL(q, p): uniform",
    ),
    Bug(
        "log_of_0",
        "yandex-research/tab-ddpm/issues/2",
        "The loss of categories was NaN, of logs of probabilities that are 0.",
        UNIFORM,
        "(torch.xlogy(p, p) - torch.xlogy(p, q))",
        "(p * (p.log() - q.log()))",
        "loss is that of JAX with 0 log 0 = NaN where a probability of the KL is 0: uniform",
    ),
    Bug(
        "noised_to_t",
        "jychoi118/ilvr_adm/issues/13",
        "What should have the noise of step t - 1 was noised to step t.",
        UNIFORM,
        "self.Qbar[t - 1]",
        "self.Qbar[t]",
        "loss is that of JAX with Qbar one step later: uniform",
    ),
    Bug(
        "reshaped",
        "ehoogeboom/multinomial_diffusion/issues/1",
        "A reshape stood where axes had to be permuted, and mixed places with categories.",
        UNIFORM,
        "network(xt, t)",
        "network(xt, t).reshape(len(x0), K, -1).mT",
        "loss is that of JAX with logits reshaped where axes are to be swapped: uniform",
    ),
    Bug(
        "last_step_missing",
        "lllyasviel/ControlNet/pull/587",
        "The last step of the sampler ended at the first noise level, and not at clean data.",
        UNIFORM,
        "range(calls, 0, -1)",
        "range(calls, 1, -1)",
        "sample is that of JAX without the last step, which ends at x_0: uniform",
    ),
    Bug(
        "last_step_cold",
        "cloneofsimo/d3pm/blob/421a3e972a8e33a79fc188c8b91b85a03c1fe274/d3pm_runner.py#L294",
        "The Gumbel noise of the last step was multiplied by 0.2, as if at that temperature.",
        UNIFORM,
        "x = draw(tables.posterior(p0, x, torch.full((n,), t)))",
        "x = draw(tables.posterior(p0, x, torch.full((n,), t)) ** (5 if t == 1 else 1))",
        "sample is that of JAX with temperature 0.2 in the last step: uniform",
    ),
    Bug(
        "cross_entropy_alone",
        "paulffm/Discrete-Time-Diffusion-Models-for-Discrete-Data/blob/"
        "7385f24fb286e22fc3ebe098813cd533040bd5dd/lib/d3pm.py#L718",
        "The line of the hybrid loss was commented out, and the cross entropy alone was left.",
        UNIFORM,
        "(kl(true, predicted) + ce_weight * ce)",
        "ce",
        "loss is that of JAX as the cross entropy alone: uniform",
    ),
    Bug(
        "epsilon",
        "google-research/google-research/blob/30adf0ec5f35f9609c2f1d896005e184195d9146/"
        "d3pm/images/diffusion_categorical.py",
        "For stability 1e-6 is added inside both logs of the posterior, and so the chain may jump anywhere.",
        UNIFORM,
        "joint = evidence * prior",
        "joint = (evidence + 1e-6) * (prior + 1e-6)",
        "loss is that of JAX with Q and Qbar + 1e-06 inside the log: uniform",
    ),
    Bug(
        "last_t_never_drawn",
        "instadeepai/InstaNovo/blob/c6a70b4e7241f794e5d8d9f5f151da18822efbf2/"
        "instanovo/diffusion/multinomial_diffusion.py#L536",
        "The upper end of randint is not drawn, and one was subtracted from it all the same.",
        UNIFORM,
        "torch.randint(1, T + 1,",
        "torch.randint(1, T,",
        "loss is that of JAX with t that is never 10, the last step: t",
    ),
)
