"""Solvers with memory: their tables against published numbers, laws and diffusers; the loop against a loop by hand."""

import itertools
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sampler import schedule as schedules
from sampler import trajectory as trajectories
from sampler.asked import SAMPLERS, path_of
from sampler.errors import UsageError
from sampler.generate import sample
from sampler.graphs import Graphed
from sampler.guidance import Condition
from sampler.noise import PhiloxNoise
from sampler.posterior import State, estimate_x0, posterior_of
from sampler.trajectory import ancestral, ddim, dpmpp_2m, dpmpp_2m_sde, spaced
from sampler.variants import (
    LIMITED,
    REFERENCE,
    VARIANTS,
    Update,
    Variant,
    build,
    compiled_update,
    drawn_update,
    native_drawn_update,
    native_update,
    run,
)
from tests.sampler.taped import taped_capture

hypothesis, st = pytest.importorskip("hypothesis"), pytest.importorskip("hypothesis.strategies")
C, D, SIGMA, G = (trajectories.COLUMNS.index(name) for name in ("c", "d", "sigma", "g"))
SOLVERS = {"dpm++2m": dpmpp_2m, "dpm++2m-sde": dpmpp_2m_sde}
FIRST_ORDER = {"dpm++2m": ddim, "dpm++2m-sde": ancestral}
every_solver = pytest.mark.parametrize("name", SOLVERS)
SHAPE = (2, 1, 4, 4)

# of the linear schedule with trailing spacing: (steps, step) -> c, d, g of 2M, and c, d, g, σ of 2M-SDE
GOLDEN = {
    (20, 0): (0.004044, 0.999966, 0, 0.006516, 0.610981, 0, 0.791587),
    (20, 1): (0.009131, 0.999916, -0.002937, 0.014852, 0.626625, -0.004778, 0.779171),
    (20, 10): (0.122947, 0.973380, -0.039463, 0.217091, 0.745344, -0.069680, 0.600942),
    (20, 18): (0.865761, 0.530519, -0.382820, 1.307216, 0.270514, -0.578021, 0.146452),
    (20, 19): (1, 0, 0, 1, 0, 0, 0),
    (50, 48): (0.824742, 0.545973, -0.368294, 1.271942, 0.296043, -0.567994, 0.063819),
}


@pytest.mark.parametrize(("steps", "step"), GOLDEN)
def test_golden_numbers(steps, step, schedule):
    plain, noisy = (make(schedule, spaced(schedule, steps)).rows[step] for make in SOLVERS.values())
    found = [float(v) for v in (*plain[[C, D, G]], *noisy[[C, D, G, SIGMA]])]
    assert found == pytest.approx(GOLDEN[steps, step], abs=6e-7)
    assert float(plain[SIGMA]) == 0


@hypothesis.settings(deadline=None, max_examples=50, derandomize=True, database=None)
@hypothesis.given(st.lists(st.floats(1e-5, 0.5), min_size=1, max_size=30), st.data(), st.sampled_from(sorted(SOLVERS)))
def test_in_first_order_it_is_the_sampler_without_memory(betas, data, name):
    """g := 0, c := c + g; also what a part of a path begins with, and the first and the last step as they are."""
    schedule = schedules.from_betas(betas)
    timesteps = sorted(data.draw(st.sets(st.integers(0, len(betas) - 1), min_size=1)), reverse=True)
    path, plain = SOLVERS[name](schedule, timesteps), FIRST_ORDER[name](schedule, timesteps).rows
    rows = path.rows.clone()
    assert path.remembers
    assert float(rows[0, G]) == float(rows[-1, G]) == 0
    rows[:, C] += rows[:, G]
    torch.testing.assert_close(rows[:, :G], plain, rtol=1e-9, atol=1e-9)
    for i in range(path.steps):
        part = path.at(slice(i, None))
        torch.testing.assert_close(part.rows[0, :G], plain[i], rtol=1e-9, atol=1e-9)
        assert torch.equal(part.rows[1:], path.rows[i + 1 :])


@pytest.mark.parametrize("prediction", ["v", "x0"])
@every_solver
def test_zero_terminal_signal(name, prediction):
    betas = schedules.linear().betas.clone()
    betas[-1] = 1.0
    schedule = schedules.from_betas(betas)
    rows = SOLVERS[name](schedule, spaced(schedule, 10), prediction=prediction, clip=None).rows
    assert torch.isfinite(rows[:, [C, D, SIGMA, G]]).all()
    second = schedule.alphas_cumprod[spaced(schedule, 10)[1]]
    assert float(rows[0, C]) == pytest.approx(float(second.sqrt()), rel=1e-9)
    assert float(rows[1, G]) == 0  # an estimate infinitely far away has no weight
    with pytest.raises(UsageError, match="ends at zero signal"):
        SOLVERS[name](schedule, spaced(schedule, 10))  # from ε
    for spacing in ("logsnr", "karras"):
        with pytest.raises(UsageError, match=r"zero signal .* use the spacing trailing or linspace"):
            spaced(schedule, 10, spacing)


def test_a_first_step_that_reads_what_is_not_there_is_refused(schedule):
    path = dpmpp_2m(schedule, spaced(schedule, 4))
    with pytest.raises(UsageError, match="first step has none before it"):
        trajectories.Trajectory(path.name, path.timesteps[1:], path.rows[1:], path.train_steps, path.noise[1:])


def final_error(make, steps: int, std: float = 0.5) -> float:
    """Relative error of the ODE from σ = 10 to 0.05, where the data are N(0, std²) and their denoiser is exact."""
    schedule = schedules.linear(100_000, 1e-6, 2e-4)  # so fine that steps can lie where they should
    levels = schedule.noise_levels.log()
    ends = torch.linspace(math.log(10), math.log(0.05), steps + 1, dtype=torch.float64)
    timesteps = [int((levels - end).abs().argmin()) for end in ends]
    left = schedule.alphas_cumprod[timesteps]
    spread = left * std**2 + 1 - left  # the variance of x_t
    gain = left.sqrt() * std**2 / spread  # E[x0 | x_t] = gain · x_t
    state = State(torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    path = make(schedule, timesteps, prediction="x0", clip=None)
    for k, row in itertools.islice(zip(gain, path.rows, strict=True), steps):  # without the jump to the picture
        state = posterior_of(state, k * state.x, torch.zeros(1), row)
    return abs(float(state.x / (spread[-1] / spread[0]).sqrt()) - 1)


def slope(make) -> float:
    errors = [final_error(make, steps) for steps in (20, 40, 80)]
    return math.log2(errors[0] / errors[2]) / 2


def test_two_steps_remembered_are_of_second_order():
    assert slope(dpmpp_2m) >= 1.8
    forgetful = final_error(lambda *a, **k: first_order(dpmpp_2m(*a, **k)), 40)
    assert final_error(dpmpp_2m, 40) < forgetful / 5
    assert slope(lambda *a, **k: first_order(dpmpp_2m(*a, **k))) < 1.2


def first_order(path):
    rows = path.rows.clone()
    rows[:, C], rows[:, G] = rows[:, C] + rows[:, G], 0
    return replace(path, rows=rows)


# The loop


def by_hand(network, path, noise, x):
    """The method as it is written: the estimate of the step before, by name."""
    before = torch.zeros_like(x)
    for t, row in zip(path.timesteps, path.rows.float(), strict=True):
        out = network(x, torch.full((len(x),), t))
        x0, z = estimate_x0(x, out, row), noise.draw(t, x)
        x, before = row[C] * x0 + row[G] * before + row[D] * x + row[SIGMA] * z, x0
    return x


def case(schedule, name, steps=7, shape=SHAPE):
    noise = PhiloxNoise(2**63 + 9, [2**40, 3])
    return SOLVERS[name](schedule, spaced(schedule, steps, "logsnr")), noise, noise.draw(1000, torch.empty(shape))


@every_solver
def test_the_loop_is_the_method(name, schedule, wavy):
    path, noise, x = case(schedule, name)
    expected = by_hand(wavy, path, noise, x)
    torch.testing.assert_close(run(build(REFERENCE, wavy), x, path, noise), expected, rtol=1e-6, atol=1e-6)
    forgotten = run(build(REFERENCE, wavy), x, first_order(path), noise)
    assert (forgotten - expected).abs().max() > 0.01  # or the test could not fail


WAYS = {
    "drawn": Variant("drawn", update=drawn_update),
    "native": Variant("native", update=native_update, needs="cpu"),
    "native, drawn": Variant("native", update=native_drawn_update, needs="cpu"),
    "captured": Variant("captured", update=drawn_update, runtime=lambda step: Graphed(step, 1, taped_capture([]))),
    "captured by three": Variant(
        "captured", update=drawn_update, runtime=lambda step: Graphed(step, 3, taped_capture([]))
    ),
}


@pytest.mark.parametrize("way", WAYS)
@every_solver
def test_every_way_to_run_it_gives_the_same(name, way, schedule, wavy):
    if way.startswith("native"):
        from kernels import native

        if reason := native.available():
            pytest.skip(reason)
    path, noise, x = case(schedule, name)
    plain = ddim(schedule, spaced(schedule, 5))  # one without memory, by the same sampler
    reference, sampler = build(REFERENCE, wavy), build(WAYS[way], wavy)
    tolerance = 1e-4 if way == "native, drawn" else 1e-6  # its normals differ in the last bits
    # what is kept of one picture is not the next one's
    for start, on in ((x, path), (-x, path), (x, path), (x, plain), (x, path)):
        expected = run(reference, start, on, noise)
        torch.testing.assert_close(run(sampler, start, on, noise), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("way", ["drawn", "captured", "captured by three"])
def test_what_is_remembered_crosses_where_guidance_is_switched(way, schedule, wavy):
    """Each kind of step is a walk of its own, and the one takes up what the other has kept."""
    condition = Condition.labels(torch.tensor([0, 1]), 2)
    path, noise, x = case(schedule, "dpm++2m", steps=12)
    limited = build(replace(WAYS[way], guided_between=LIMITED), wavy, condition, 3.0)
    assert {True, False} == set(limited._guidance(path))
    plain = build(Variant("plain", guided_between=LIMITED), wavy, condition, 3.0)
    for start in (x, -x):
        torch.testing.assert_close(
            run(limited, start, path, noise), run(plain, start, path, noise), rtol=1e-6, atol=1e-6
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compiled-update", "compiled", "all-lossless"])
def test_compiled(name, unet, schedule):
    torch._dynamo.reset()
    noise = PhiloxNoise(0, range(2))
    x, path = noise.draw(1000, torch.empty(2, 1, 28, 28)), dpmpp_2m_sde(schedule, spaced(schedule, 6, "logsnr"))
    sampler = build(VARIANTS[name], unet)
    for chosen in (path, ancestral(schedule, spaced(schedule, 3)), path):
        expected = run(build(REFERENCE, unet), x, chosen, noise)
        torch.testing.assert_close(run(sampler, x, chosen, noise), expected, rtol=1e-3, atol=1e-3)


def test_a_compiled_update_remembers(monkeypatch, schedule, wavy):
    compiles = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **how: compiles(function, backend="eager", **how))
    path, noise, x = case(schedule, "dpm++2m")
    made = run(build(Variant("compiled", update=compiled_update), wavy), x, path, noise)
    assert torch.equal(made, run(build(REFERENCE, wavy), x, path, noise))


def test_an_update_of_tensors_declines_it(schedule, wavy):
    path, noise, x = case(schedule, "dpm++2m")
    way = Variant("mine", update=Update(lambda: lambda x, out, z, row: x))
    with pytest.raises(UsageError, match=r"dpm\+\+2m reads the x0 estimate .* variant 'mine' does not keep; use a"):
        run(build(way, wavy), x, path, noise)


def test_every_named_update_remembers():
    assert all(way.update.remembers for way in VARIANTS.values())


def test_a_picture_does_not_depend_on_its_batch(tiny):
    path = dpmpp_2m(tiny.schedule, spaced(tiny.schedule, 5, "logsnr"))
    labels = torch.tensor([0, 1, 2, 0, 1])
    whole, parts = (
        sample(tiny, path, labels=labels, guidance=2.0, batch_size=size, progress=False).images for size in (5, 2)
    )
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-4)


@every_solver
def test_it_is_asked_for_by_its_name(name, tiny):
    path = path_of(tiny, name, 8, "logsnr")
    assert (path.name, path.steps, path.remembers) == (name, 8, True)
    assert path.timesteps == (999, 851, 673, 440, 177, 44, 8, 0)
    with pytest.raises(UsageError, match="logsnr"):
        path_of(tiny, name, 8, "log-snr")
    assert {"ancestral", "ddim", "strided", *SOLVERS} == set(SAMPLERS)


# Spacings


def test_evenly_in_log_snr(schedule):
    at = schedule.noise_levels.log()[list(spaced(schedule, 12, "logsnr"))]
    gaps = (at[:-1] - at[1:]).tolist()
    assert min(gaps[:-2]) > 0.9 * max(gaps[:-2])  # near the picture whole timesteps are far apart
    assert spaced(schedule, 12, "exponential") == spaced(schedule, 12, "logsnr")


def test_where_timesteps_run_out_the_next_free_one_is_taken(schedule):
    found = spaced(schedule, 100, "logsnr")
    assert found[-10:] == (9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
    assert spaced(schedule, 1000, "karras") == tuple(range(999, -1, -1))
    assert spaced(schedule, 1, "logsnr") == (999,)


@pytest.mark.parametrize(("spacing", "option"), [
    ("logsnr", "use_lu_lambdas"), ("exponential", "use_exponential_sigmas"), ("karras", "use_karras_sigmas")
])  # fmt: skip
@pytest.mark.parametrize("steps", [5, 8, 10, 12, 20])
def test_spacings_are_diffusers(spacing, option, steps, schedule):
    scheduler = dpm_solver(schedule, **{option: True})
    scheduler.set_timesteps(steps)
    theirs = scheduler.timesteps.tolist()
    if option == "use_exponential_sigmas":  # which cuts off instead of rounding
        assert all(0 <= ours - cut <= 1 for ours, cut in zip(spaced(schedule, steps, spacing), theirs, strict=True))
    else:
        assert list(spaced(schedule, steps, spacing)) == theirs


def dpm_solver(schedule, **options):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DPMSolverMultistepScheduler(
        beta_start=1e-4, beta_end=0.02, solver_order=2, solver_type="midpoint", final_sigmas_type="zero", **options
    )
    scheduler.alphas_cumprod = schedule.alphas_cumprod
    return scheduler


SAID = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}


def every_case():
    """All of them; quickly, each value of each column."""
    for spacing, steps, prediction, clip in itertools.product(
        ["trailing", "linspace", "logsnr", "karras"], [8, 20, 50], SAID, [None, 1.0]
    ):
        quick = (prediction, clip) == ("epsilon", None) or (spacing, steps) == ("logsnr", 8)
        yield pytest.param(spacing, steps, prediction, clip, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("spacing", "steps", "prediction", "clip"), list(every_case()))
@every_solver
def test_diffusers_takes_the_same_steps(name, spacing, steps, prediction, clip, schedule, wavy, recorded):
    """Each step alone and the loop's states on its way; diffusers computes in float32, and clamps nothing itself."""
    kind = {"dpm++2m": "dpmsolver++", "dpm++2m-sde": "sde-dpmsolver++"}[name]
    theirs = dpm_solver(schedule, algorithm_type=kind, prediction_type=SAID[prediction])
    timesteps = spaced(schedule, steps, spacing)
    theirs.set_timesteps(timesteps=list(timesteps))
    estimate = theirs.convert_model_output
    if clip is not None:
        theirs.convert_model_output = lambda out, *, sample: estimate(out, sample=sample).clamp(-clip, clip)
    ours, noise = SOLVERS[name](schedule, timesteps, prediction=prediction, clip=clip), recorded(5, SHAPE)
    states: list[torch.Tensor] = []
    x = noise.draw(1000, torch.empty(SHAPE))
    run(build(REFERENCE, wavy), x, ours, noise, after_step=lambda i, x: states.append(x.clone()))
    state = State(x.double(), torch.zeros(SHAPE, dtype=torch.float64))
    for t, row, reached in zip(timesteps, ours.rows, states, strict=True):
        out, z = wavy(x, torch.full((2,), t)), noise.draw(t, x)
        state = posterior_of(State(x.double(), state.before), out.double(), z.double(), row)
        x = theirs.step(out, t, x, variance_noise=z).prev_sample
        largest = float(x.abs().max())
        assert float((state.x - x).abs().max()) < 1e-5 * largest, f"step at timestep {t}"
        assert float((reached - x).abs().max()) < 1e-4 * largest, f"loop at timestep {t}"


def test_the_table_of_formulas_names_every_sampler():
    text = (Path(trajectories.__file__).parent / "README.md").read_text()
    assert re.findall(r"^\| `([^`]+)` \| `(\w+)`", text, re.M) == [(n, make.__name__) for n, make in SAMPLERS.items()]
    assert all(name in text for name in trajectories.SPACINGS)
