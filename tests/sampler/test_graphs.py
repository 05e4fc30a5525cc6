"""The replayed step, held without a GPU: a tape of tensor operations stands in for the CUDA graph."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from sampler import graphs, guidance
from sampler.errors import UsageError
from sampler.graphs import Graphed, cuda_capture
from sampler.guidance import Condition
from sampler.noise import GeneratorNoise, PhiloxNoise
from sampler.posterior import State, posterior_of
from sampler.trajectory import ancestral, ddim, spaced
from sampler.variants import LIMITED, Update, Variant, build, drawn_update, run
from tests.sampler.taped import taped_capture

SHAPE = (2, 1, 6, 6)
CONDITION = Condition.labels(torch.tensor([0, 1]), 2)


def fed_by_definition(state, out, key, row, destination=None):
    x, before, _ = posterior_of(state, out, key.draw(state.x), row)
    made = State(x, before, torch.cat([x] * (len(state.input) // len(x))).to(state.input.dtype))
    if destination is None:
        return made
    for part, new in zip(destination.parts, made.parts, strict=True):
        part.copy_(new)
    return destination


UPDATES = {
    "out of place": (drawn_update, guidance.sequential_cfg),
    "fed, in place": (
        Update(lambda: fed_by_definition, draws=True, feeds=True, in_place=True, remembers=True),
        guidance.batched_cfg,
    ),
}


@pytest.fixture
def taped(wavy):
    """(a sampler whose steps are replayed, its tapes): `steps` in a graph, with an update of the table above."""

    def make(steps: int = 1, update: str = "out of place", **seams):
        tapes: list = []
        apply, guide = UPDATES[update]
        seams = {"update": apply, "guide": guide, **seams}
        way = Variant("taped", runtime=lambda step: Graphed(step, steps, taped_capture(tapes)), **seams)
        return build(way, wavy, CONDITION, 3.0), tapes

    return make


def start(noise: PhiloxNoise, dtype=torch.float32, shape=SHAPE):
    return noise.draw(1000, torch.empty(shape, dtype=dtype))


def eager(network, trajectory, noise, x, **seams):
    return run(build(Variant("eager", update=drawn_update, **seams), network, CONDITION, 3.0), x, trajectory, noise)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_replays_are_the_eager_steps_bit_for_bit(steps, update, taped, wavy, schedule):
    """Any length, also one that is no multiple: every row, timestep and noise is read where the counter stands."""
    sampler, tapes = taped(steps, update)
    noise = PhiloxNoise(2**63 + 9, [2**40, 3])
    for count in (12, 7, 1):
        trajectory, x = ancestral(schedule, spaced(schedule, count)), start(noise)
        assert torch.equal(run(sampler, x, trajectory, noise), eager(wavy, trajectory, noise, x))
    assert len(tapes) == sampler.guided.captures == (1 if steps == 1 else 2)  # of `steps` steps, and of what is left


def test_one_graph_serves_every_seed_id_timestep_and_row(taped, wavy, schedule):
    """Nothing of the first request is frozen into it."""
    sampler, tapes = taped()
    requests = [
        (ancestral(schedule, spaced(schedule, 9)), PhiloxNoise(1, [0, 1])),
        (ddim(schedule, (800, 5), eta=0.5), PhiloxNoise(2**64 - 1, [0, 1])),
        (ancestral(schedule, (999, 400, 31), variance="beta", clip=None), PhiloxNoise(1, [7, 2**62])),
    ]
    for trajectory, noise in requests:
        x = start(noise)
        assert torch.equal(run(sampler, x, trajectory, noise), eager(wavy, trajectory, noise, x))
    assert len(tapes) == 1
    assert sampler.guided.replays == 9 + 2 + 3


def test_every_shape_and_dtype_gets_its_own_graph(taped, wavy, schedule):
    tapes: list = []
    way = Variant("taped", update=drawn_update, runtime=lambda step: Graphed(step, 1, taped_capture(tapes)))
    sampler = build(way, wavy)
    trajectory = ancestral(schedule, spaced(schedule, 4))
    inputs = [
        (torch.float32, SHAPE),
        (torch.float64, SHAPE),
        (torch.float32, (2, 1, 4, 9)),
        (torch.float32, (3, 1, 6, 6)),
    ]
    for times in (1, 2):
        for dtype, shape in inputs:
            noise = PhiloxNoise(0, range(shape[0]))
            x = start(noise, dtype, shape)
            result = run(sampler, x, trajectory, noise)
            expected = run(build(Variant("eager", update=drawn_update), wavy), x, trajectory, noise)
            assert result.dtype is dtype
            assert torch.equal(result, expected)
        assert len(tapes) == len(inputs), times


def test_each_stretch_of_guidance_is_a_graph_of_its_own(taped, wavy, schedule):
    sampler, tapes = taped(guided_between=LIMITED)
    trajectory, noise = ancestral(schedule, spaced(schedule, 20)), PhiloxNoise(4, range(2))
    x = start(noise)
    assert torch.equal(run(sampler, x, trajectory, noise), eager(wavy, trajectory, noise, x, guided_between=LIMITED))
    assert len(tapes) == 2
    assert sampler.guided.replays + sampler.conditional.replays == 20


def test_a_leg_longer_than_the_table_gets_a_larger_one(taped, wavy, schedule, monkeypatch):
    monkeypatch.setattr(graphs, "SMALLEST_TABLE", 8)
    sampler, tapes = taped()
    noise = PhiloxNoise(4, range(2))
    for count in (6, 50):
        trajectory, x = ancestral(schedule, spaced(schedule, count)), start(noise)
        assert torch.equal(run(sampler, x, trajectory, noise), eager(wavy, trajectory, noise, x))
    assert len(tapes) == 2


def test_after_is_told_of_the_last_step_of_each_replay(taped, wavy, schedule):
    sampler, _ = taped(5)
    trajectory, noise = ancestral(schedule, spaced(schedule, 12)), PhiloxNoise(4, range(2))
    x, seen, expected = start(noise), {}, {}
    run(sampler, x, trajectory, noise, after_step=lambda i, state: seen.update({i: state.clone()}))
    whole = build(Variant("eager", update=drawn_update), wavy, CONDITION, 3.0)
    run(whole, x, trajectory, noise, after_step=lambda i, state: expected.update({i: state}))
    assert list(seen) == [0, 1, 6, 11]
    assert all(torch.equal(state, expected[i]) for i, state in seen.items())


def test_the_result_outlives_the_next_run_and_the_start_is_left_alone(taped, schedule):
    sampler, _ = taped(2, "fed, in place")
    trajectory, noise = ancestral(schedule, spaced(schedule, 4)), PhiloxNoise(4, range(2))
    x = start(noise)
    before, first = x.clone(), run(sampler, x, trajectory, noise)
    kept = first.clone()
    run(sampler, x + 1, trajectory, noise)
    assert torch.equal(first, kept)
    assert torch.equal(x, before)


def test_a_step_that_waits_for_the_device_cannot_be_taped(taped, wavy, schedule):
    """The stand-in refuses what a capture refuses, or the tests above would prove little."""

    def peeks(x, t, condition=None):
        return wavy(x, t, condition) * float(t[0])

    sampler = build(
        Variant("peeks", update=drawn_update, runtime=lambda step: Graphed(step, 1, taped_capture([]))), peeks
    )
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        run(sampler, torch.zeros(SHAPE), ancestral(schedule, (5, 3)), PhiloxNoise(0, range(2)))


def test_the_prediction_alone_is_compiled_inside_a_graph(wavy, schedule, monkeypatch):
    compiled, codes = [], []

    def compile_(function, **how):
        compiled.append(how)
        codes.append(function.__code__)
        return function

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(graphs, "cuda_capture", lambda: taped_capture([]))
    update, guide = UPDATES["fed, in place"]
    way = Variant("compiled", guide=guide, update=update, runtime=lambda step: graphs.graphed_compiled(step))
    trajectory, noise = ancestral(schedule, spaced(schedule, 6)), PhiloxNoise(4, range(2))
    x = start(noise)
    result = run(build(way, wavy, CONDITION, 3.0), x, trajectory, noise)
    assert torch.equal(result, eager(wavy, trajectory, noise, x))
    assert compiled == [{"dynamic": False, "fullgraph": True}]
    build(way, wavy, CONDITION, 3.0)
    assert codes[0] is not codes[1]  # Dynamo keeps eight pieces of each


def test_noise_from_outside_is_refused(wavy, schedule):
    step_of = Variant("outside", runtime=lambda step: Graphed(step, 1, taped_capture([])))
    with pytest.raises(UsageError, match="a captured step draws its own noise"):
        run(build(step_of, wavy), torch.zeros(SHAPE), ancestral(schedule, (5, 3)), GeneratorNoise())


def test_a_graph_over_no_steps_is_refused():
    with pytest.raises(UsageError, match="a graph over 0 steps cannot be"):
        graphs.graphed_over(0)(None)


class FakeCuda:
    """torch.cuda as far as a capture needs it, noting the order of what is asked of it."""

    def __init__(self, error: str = ""):
        self.log: list[str] = []
        self.error = error

    def install(self, monkeypatch):
        main = SimpleNamespace(wait_stream=lambda other: self.log.append("main waits"))
        side = SimpleNamespace(wait_stream=lambda other: self.log.append("side waits"))
        pools = iter(("pool 1", "pool 2"))
        for name, value in {
            "device": lambda device: nullcontext(),
            "Stream": lambda: (self.log.append("a stream is made"), side)[1],
            "current_stream": lambda: main,
            "stream": lambda stream: nullcontext(self.log.append("on the side" if stream is side else "?")),
            "CUDAGraph": lambda: SimpleNamespace(replay=lambda: self.log.append("replay")),
            "graph_pool_handle": lambda: next(pools),
            "graph": self.graph,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(graphs, "release_workspaces", lambda: self.log.append("release"))

    def graph(self, graph, pool):
        self.log.append(f"capture in {pool}")
        if self.error:
            raise RuntimeError(self.error)
        return nullcontext()


ON_CUDA = SimpleNamespace(is_cuda=True, device="cuda:0")


def test_a_capture_warms_up_on_a_side_stream_and_keeps_to_one_pool(monkeypatch):
    cuda = FakeCuda()
    cuda.install(monkeypatch)
    capture = cuda_capture()
    replay = capture(lambda: cuda.log.append("work"), ON_CUDA)
    replay()
    warm = ["side waits", "on the side", *["work"] * graphs.WARM_UPS, "main waits", "release"]
    assert cuda.log == ["a stream is made", *warm, "capture in pool 1", "work", "release", "replay"]
    capture(lambda: None, ON_CUDA)
    assert cuda.log[-2:] == ["capture in pool 1", "release"]
    assert cuda.log.count("a stream is made") == 1  # what a warm-up frees is the next one's to use


def test_a_failed_capture_says_what_a_step_must_not_do(monkeypatch):
    FakeCuda("CUDA error: operation not permitted when stream is capturing\nlong advice").install(monkeypatch)
    with pytest.raises(
        UsageError, match=r"cannot be captured .*: CUDA error: operation not permitted .*; a captured step"
    ):
        cuda_capture()(lambda: None, ON_CUDA)


def test_the_cache_of_casts_is_off_in_a_capture_alone(monkeypatch):
    FakeCuda().install(monkeypatch)
    seen = []
    assert torch.is_autocast_cache_enabled()
    cuda_capture()(lambda: seen.append(torch.is_autocast_cache_enabled()), ON_CUDA)
    assert set(seen) == {False}
    assert torch.is_autocast_cache_enabled()


def test_a_cpu_is_refused():
    with pytest.raises(UsageError, match="CUDA graphs need a CUDA device, but the sampler runs on cpu"):
        cuda_capture()(lambda: None, torch.zeros(1))
