"""Every named variant draws the reference's samples from the same noise, and does what its name says."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from sampler import graphs, guidance, precision, runtime
from sampler import schedule as schedules
from sampler.errors import UsageError
from sampler.guidance import Condition
from sampler.noise import GeneratorNoise, PhiloxNoise
from sampler.posterior import State, posterior
from sampler.trajectory import ancestral, spaced
from sampler.variants import (
    REFERENCE,
    VARIANTS,
    Variant,
    build,
    check_guided,
    compiled_update,
    drawn_update,
    fused_drawn_update,
    fused_fed_update,
    native_drawn_update,
    native_update,
    run,
    variant,
)

BATCH, STEPS, SCALE = 2, 8, 3.0
SHAPE = (BATCH, 1, 28, 28)
HALF = {
    "autocast-bf16",
    "autocast-fp16",
    "cast-bf16",
    "cast-fp16",
    "all-half",
    "all-half-limited",
    "all-equal-steps-cuda",
}
COMPILED = {n for n, v in VARIANTS.items() if "compil" in v.runtime.__name__ or v.update is compiled_update}


def named_variants(device: str, without: set[str] = frozenset()):
    mark = {"cpu": lambda name: pytest.mark.slow if name in COMPILED else (), "cuda": lambda name: ()}[device]
    return [
        pytest.param(name, marks=mark(name))
        for name, v in VARIANTS.items()
        if v.needs in ("", device) and name not in without
    ]


def test_a_process_holds_more_compiled_updates_than_dynamo_keeps_of_one(monkeypatch):
    compiles = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **how: compiles(function, backend="eager", **how))
    row = torch.tensor([1.1, 0.4, 0.2, 0.7, 0.3, 1.0])
    for size in range(2, 12):  # a piece for each shape
        x, out, z = torch.randn(3, 2, 1, size, size, generator=torch.Generator().manual_seed(size)).unbind()
        assert torch.equal(compiled_update.of_states()(State(x), out, z, row).x, posterior(x, out, z, row))


def states(way, network, trajectory, noise, dtype=torch.float32, device="cpu", scale=SCALE):
    """x after every step, from the same start, labels and noise."""
    seen = []
    condition = Condition.labels(torch.tensor([1, 5], device=device), network.null_label)
    start = noise.draw(trajectory.train_steps, torch.empty(SHAPE, device=device)).to(dtype)
    sampler = build(way, network, condition, scale)
    run(sampler, start, trajectory, noise, after_step=lambda i, x: seen.append(x.detach().clone().double().cpu()))
    return torch.stack(seen)


def errors(actual, expected):
    """Root mean square error after each step, in units of the expected values'."""
    of_each = (1, 2, 3, 4)
    return (actual - expected).square().mean(of_each).sqrt() / expected.square().mean(of_each).sqrt()


@pytest.fixture(scope="module")
def trajectory(schedule):
    return ancestral(schedule, spaced(schedule, STEPS))


@pytest.fixture(scope="module")
def noise():
    return PhiloxNoise(3, range(BATCH))


@pytest.fixture(scope="module")
def exact(unet, trajectory, noise):
    """The same samples in float64, guided where the variant is."""
    network, kept = copy.deepcopy(unet).double(), {}

    def compute(way: Variant):
        if way.guided_between not in kept:
            oracle = Variant("oracle", guided_between=way.guided_between)
            kept[way.guided_between] = states(oracle, network, trajectory, noise, torch.float64)
        return kept[way.guided_between]

    return compute


def test_the_reference_repeats_itself_bit_for_bit(unet, trajectory, noise):
    first = states(REFERENCE, unet, trajectory, noise)
    assert torch.equal(states(REFERENCE, unet, trajectory, noise), first)


@pytest.mark.parametrize("name", named_variants("cpu", without=HALF))
def test_single_precision(name, unet, trajectory, noise, exact):
    """Within 1e-4, and at most twice as far from float64 as the reference is."""
    way = VARIANTS[name]
    expected = exact(way)
    actual = states(way, unet, trajectory, noise)
    assert float((actual - expected).abs().max() / expected.abs().max()) < 1e-4
    plain = states(Variant("plain", guided_between=way.guided_between), unet, trajectory, noise)
    assert (errors(actual, expected) < 2 * errors(plain, expected) + 1e-6).all()


@pytest.mark.parametrize("name", [case for case in named_variants("cpu") if case.values[0] in HALF])
def test_half_precision(name, unet, trajectory, noise, exact):
    """bfloat16 keeps 16 bits fewer than float32, and its error is that much larger at most.

    It must also be larger by 10 bits at least, or the network was not in half precision.
    """
    way = VARIANTS[name]
    expected = exact(way)
    actual = errors(states(way, unet, trajectory, noise), expected)
    plain = Variant("plain", guided_between=way.guided_between)
    single = errors(states(plain, unet, trajectory, noise), expected)
    assert (actual < 2**16 * single).all()
    assert (actual > 2**10 * single).all()


@pytest.mark.gpu
@pytest.mark.parametrize("name", named_variants("cuda"))
def test_on_a_gpu(name, unet, trajectory, noise, exact):
    """As exact as its number format; and, once warm, its loop never waits for the device."""
    way, network = VARIANTS[name], copy.deepcopy(unet).cuda()
    condition = Condition.labels(torch.tensor([1, 5], device="cuda"), network.null_label)
    start = noise.draw(trajectory.train_steps, torch.empty(SHAPE, device="cuda"))
    sampler = build(way, network, condition, SCALE)
    first = run(sampler, start, trajectory, noise)  # compiles, tunes and captures
    with torch.inference_mode(), sampler.context():
        x = start.clone()
        state = State(x, input=sampler.feed.of(x) if sampler.feed else None)
        legs = sampler.legs(trajectory, noise, x)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for walk, leg in legs:
                state = walk(state, leg, lambda i, x: None)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.testing.assert_close(state.x, first, rtol=1e-2, atol=1e-2)
    expected = exact(way)[-1:]
    plain = Variant("plain", guided_between=way.guided_between)
    single = errors(states(plain, network, trajectory, noise, device="cuda")[-1:], expected)
    actual = errors(first.double().cpu()[None], expected)
    bits = {"tf32": 13, **dict.fromkeys(HALF, 16)}.get(name, 1)
    assert (actual < 2**bits * single + 1e-6).all()
    if name in HALF:
        assert (actual > 2**7 * single).all()


class Labelled(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.label = nn.Conv2d(1, 1, 3, padding=1), nn.Embedding(4, 1)

    def forward(self, x, t, condition):
        return torch.tanh(self.convolution(x) + self.label(condition)[..., None, None])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(n for n in COMPILED if VARIANTS[n].needs != "cuda"))
def test_a_compiled_step_is_compiled_once(name, schedule):
    """In the first, middle and last step of a loop, in the next batch, and with other labels."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    network = Labelled()
    trajectory = ancestral(schedule, spaced(schedule, 4))
    first, *others = (Condition.labels(torch.tensor(labels), 3) for labels in ([0, 1], [2, 0], [1, 1]))
    plain = Variant("plain", guided_between=VARIANTS[name].guided_between)
    fast, slow = (build(way, network, first, SCALE) for way in (VARIANTS[name], plain))
    for condition in (first, *others):
        for sampler in (fast, slow):
            sampler.rebind(condition)
        noise = PhiloxNoise(0, range(2))
        start = noise.draw(1000, torch.empty(2, 1, 6, 6))
        actual, expected = (run(sampler, start, trajectory, noise) for sampler in (fast, slow))
        tolerance = 5e-2 if name in HALF else 1e-4
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
    steps = 1 if VARIANTS[name].guides_everywhere else 2  # guided, and not
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == steps


@pytest.mark.parametrize("noise_schedule", [schedules.linear(), schedules.cosine(), schedules.linear(100)])
def test_limited_guidance_lies_at_its_noise_levels_on_any_schedule(noise_schedule):
    """Near (0.28, 2.9], as far as the schedule goes; whatever the spacing of its steps."""
    levels = noise_schedule.noise_levels
    for steps, spacing in ((noise_schedule.steps, "trailing"), (50, "karras")):
        path = ancestral(noise_schedule, spaced(noise_schedule, steps, spacing))
        on = VARIANTS["limited-guidance"].guides(path)
        guided = [float(levels[t]) for t, yes in zip(path.timesteps, on, strict=True) if yes]
        assert min(guided) == pytest.approx(0.28, abs=0.1)
        assert max(guided) == pytest.approx(min(2.9, float(levels[-1])), abs=0.5)


def test_no_guided_step_is_told(schedule):
    few = ancestral(schedule, spaced(schedule, 1))
    with pytest.raises(UsageError, match=r"'limited-guidance' guides where 0\.24 < σ <= 2\.92 alone, .* no step of 1"):
        check_guided(VARIANTS["limited-guidance"], few, SCALE)
    check_guided(VARIANTS["limited-guidance"], few, 1.0)  # none was asked for
    check_guided(REFERENCE, few, SCALE)


def test_limited_guidance_calls_twice_at_middle_levels_only(schedule, wavy, counted, recorded):
    network = counted(wavy)
    condition = Condition.labels(torch.tensor([0, 1]), 2)
    trajectory = ancestral(schedule, (999, 470, 469, 300, 70, 69, 0))
    noise = recorded(0, (2, 1, 4, 4))
    start, calls = noise.draw(1000, torch.empty(2, 1, 4, 4)), []
    sampler = build(VARIANTS["limited-guidance"], network, condition, SCALE)
    run(sampler, start, trajectory, noise, after_step=lambda i, x: calls.append(len(network.batches)))
    assert calls == [1, 2, 4, 6, 8, 9, 10]

    always = build(REFERENCE, wavy, condition, SCALE)
    never = build(REFERENCE, wavy, condition, 1.0)
    x = run(never, start, trajectory.at(slice(0, 2)), noise)
    x = run(always, x, trajectory.at(slice(2, 5)), noise)
    x = run(never, x, trajectory.at(slice(5, 7)), noise)
    assert torch.equal(run(sampler, start, trajectory, noise), x)


@pytest.mark.parametrize("name", ["autocast-bf16", "cast-bf16"])
def test_convolutions_run_in_half_precision(name, unet, trajectory, noise):
    network, dtypes = copy.deepcopy(unet), set()
    way = VARIANTS[name]
    hooked = dataclasses.replace(way, layout=lambda net: hook(net, dtypes))
    states(hooked, network, trajectory.first(1), noise)
    assert dtypes == {torch.bfloat16}
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def hook(network, dtypes):
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, i, out: dtypes.add(out.dtype))
    return network


def test_channels_last_is_a_copy_whose_convolutions_are_nhwc(unet):
    network = precision.channels_last(unet)
    weight, original = network.stem.weight, unet.stem.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert original.is_contiguous()
    assert original.data_ptr() != weight.data_ptr()
    with torch.no_grad():
        hidden = network.stem(torch.rand(1, 4, 14, 14))
    assert hidden.is_contiguous(memory_format=torch.channels_last)


@pytest.fixture
def tf32_flags():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_set_in_the_loop_and_put_back(allowed, trajectory, noise, tf32_flags):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    seen = []

    def watch(x, t, condition):
        seen.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
        return torch.zeros_like(x)

    watch.null_label = 10
    for name, inside in (("reference", False), ("tf32", True)):
        seen.clear()
        states(VARIANTS[name], watch, trajectory.first(1), noise)
        assert set(seen) == {(inside, inside)}
        assert torch.backends.cuda.matmul.allow_tf32 is allowed
        assert torch.backends.cudnn.allow_tf32 is allowed


def test_autocast_is_entered_once_and_left(unet, trajectory, noise):
    states(VARIANTS["autocast-bf16"], unet, trajectory.first(1), noise)
    assert not torch.is_autocast_enabled("cpu")


def test_the_state_stays_in_single_precision(unet, trajectory, noise):
    condition = Condition.labels(torch.tensor([1, 5]), unet.null_label)
    start = noise.draw(1000, torch.empty(SHAPE))
    for name in ("cast-bf16", "autocast-bf16"):
        x = run(build(VARIANTS[name], unet, condition, SCALE), start, trajectory.first(2), noise)
        assert x.dtype is torch.float32


@pytest.mark.parametrize("name", named_variants("cpu", without=COMPILED | HALF))
def test_the_start_is_left_as_it_was(name, unet, trajectory, noise):
    condition = Condition.labels(torch.tensor([1, 5]), unet.null_label)
    start = noise.draw(1000, torch.empty(SHAPE))
    before = start.clone()
    run(build(VARIANTS[name], unet, condition, SCALE), start, trajectory.first(2), noise)
    assert torch.equal(start, before)


def test_seams_nest_in_one_order(wavy, trajectory, recorded):
    """Each seam wraps the ones inside it, whichever a variant names."""
    calls = []

    def layout(network):
        calls.append(("layout", network))
        return nn.Sequential(network)

    def make_precise(network):
        calls.append(("precision", type(network).__name__))
        return precision.Prepared(lambda x, t, c: network[0](x, t, c))

    def guide(network, condition, scale):
        calls.append(("guide", callable(network)))
        return guidance.unguided(network, condition, scale)

    def execute(step):
        calls.append(("runtime", type(step).__name__))
        return runtime.eager(step)

    way = Variant("spy", layout, make_precise, guide, runtime=execute)
    sampler = build(way, wavy)
    assert calls == [("layout", wavy), ("precision", "Sequential"), ("guide", True), ("runtime", "Step")]
    noise = recorded(0, SHAPE)
    start = noise.draw(1000, torch.empty(SHAPE))
    expected = run(build(REFERENCE, wavy), start, trajectory, noise)
    assert torch.equal(run(sampler, start, trajectory, noise), expected)


def test_names_are_unique_and_found():
    assert all(name == v.name for name, v in VARIANTS.items())
    assert variant("batched-cfg") is VARIANTS["batched-cfg"]


def test_an_unknown_variant_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match="unknown variant 'batch-cfg'; did you mean 'batched-cfg'"):
        variant("batch-cfg")
    with pytest.raises(UsageError, match=r"unknown variant 'zzz'; known: all-equal-steps, .*, tf32"):
        variant("zzz")


MISFITS = [
    ({"runtime": runtime.compiled, "update": native_update, "needs": "cpu"}, "cannot contain a kernel of ours"),
    ({"runtime": runtime.compiled_frozen, "update": native_drawn_update, "needs": "cpu"}, "cannot contain a kernel"),
    ({"runtime": graphs.graphed, "needs": "cuda"}, "give it an update that draws its own"),
    ({"runtime": graphs.graphed_over(3), "needs": "cuda"}, "give it an update that draws its own"),
    ({"runtime": graphs.graphed, "update": drawn_update}, "say needs='cuda'"),
    ({"update": fused_drawn_update}, "its update needs 'cuda', so it does too"),
    ({"update": native_update, "needs": "cuda"}, "its update needs 'cpu', so it does too"),
    ({"update": fused_fed_update, "needs": "cuda"}, "there is nothing to feed"),
    ({"update": fused_fed_update, "precision": precision.tf32, "needs": "cuda"}, "there is nothing to feed"),
]


@pytest.mark.parametrize(("seams", "reason"), MISFITS)
def test_seams_that_do_not_fit_are_refused(seams, reason):
    with pytest.raises(UsageError, match=f"variant 'both': .*{reason}"):
        Variant("both", **seams)


def test_seams_that_fit_are_not_refused():
    Variant("fed by doubling", guide=guidance.batched_cfg, update=fused_fed_update, needs="cuda")
    Variant("fed by a cast", precision=precision.cast(torch.float16), update=fused_fed_update, needs="cuda")
    Variant("captured", update=fused_drawn_update, runtime=graphs.graphed, needs="cuda")


@pytest.mark.parametrize("interval", [(0.5, 0.5), (0.7, 0.2), (-0.1, 0.5), (float("nan"), 1.0)])
def test_an_interval_of_guidance_must_be_one(interval):
    with pytest.raises(UsageError, match=r"variant 'odd': guided_between .* is no interval of noise levels"):
        Variant("odd", guided_between=interval)


def test_a_variant_that_draws_needs_counter_based_noise(unet, trajectory):
    sampler = build(VARIANTS["native-update"], unet)
    with pytest.raises(UsageError, match="'native-update' draws its own noise and needs a PhiloxNoise source"):
        run(sampler, torch.zeros(SHAPE), trajectory, GeneratorNoise())
