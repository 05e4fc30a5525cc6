"""How a step is executed: eagerly, compiled with weights frozen, or as a replayed CUDA graph."""

import copy

import pytest
import torch
from torch import nn

from sampler import runtime
from sampler.errors import UsageError
from sampler.generate import sample
from sampler.guidance import Condition
from sampler.noise import GeneratorNoise, PhiloxNoise
from sampler.trajectory import ancestral, spaced
from sampler.variants import REFERENCE, VARIANTS, Variant, build, run


def test_eager_is_the_step_itself():
    def step(x, noise, t, row):
        return x

    assert runtime.eager(step) is step


def test_a_cuda_graph_needs_cuda(wavy, schedule):
    sampler = build(VARIANTS["cuda-graph"], wavy)
    with pytest.raises(UsageError, match="CUDA graphs need a CUDA device, but the sampler runs on cpu"):
        run(sampler, torch.zeros(1, 1, 4, 4), ancestral(schedule, (10, 5)), GeneratorNoise())


@pytest.mark.parametrize("name", [name for name, v in VARIANTS.items() if v.needs == "cuda"])
def test_a_variant_for_another_device_is_refused(name, tiny):
    trajectory = ancestral(tiny.schedule, (10, 5))
    with pytest.raises(UsageError, match=f"variant '{name}' needs a cuda device, but model 'tiny' is on 'cpu'"):
        sample(tiny, trajectory, count=1, variant=VARIANTS[name], progress=False)


class OneConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, t, condition=None):
        return self.convolution(x)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["frozen", "compiled"])
def test_frozen_weights_are_constants_of_the_compiled_step(first, schedule):
    """The proof that freezing engaged: a weight changed afterwards has no effect, and `compiled` sees it.

    In either order: neither may be handed the other's code by the compiler's cache.
    """
    torch._dynamo.reset()
    torch.manual_seed(0)
    network, trajectory = OneConvolution(), ancestral(schedule, (500, 300, 100))
    start = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    noise = PhiloxNoise(0, range(2))
    runtimes = {"frozen": runtime.compiled_frozen, "compiled": runtime.compiled, "eager": runtime.eager}

    def draw(name):
        return run(build(Variant("v", runtime=runtimes[name]), network), start, trajectory, noise)

    before = draw("eager")
    for name in sorted(("frozen", "compiled"), key=lambda name: name != first):
        torch.testing.assert_close(draw(name), before)
    with torch.no_grad():
        network.convolution.weight.mul_(-3)
    after = draw("eager")
    assert (after - before).abs().max() > 0.1
    torch.testing.assert_close(draw("frozen"), before)
    torch.testing.assert_close(draw("compiled"), after)


@pytest.mark.slow
def test_frozen_weights_are_those_of_the_network(schedule):
    """Another network of the same class, later in the same process, gets its own."""
    torch._dynamo.reset()
    start = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    trajectory, noise = ancestral(schedule, (500, 300, 100)), PhiloxNoise(0, range(2))
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = OneConvolution()
        frozen = run(build(Variant("v", runtime=runtime.compiled_frozen), network), start, trajectory, noise)
        torch.testing.assert_close(frozen, run(build(REFERENCE, network), start, trajectory, noise))


@pytest.mark.slow
def test_freezing_is_switched_off_again(schedule):
    import torch._inductor.config as inductor

    frozen = runtime.compiled_frozen(lambda x, noise, t, row: x + noise)
    one = torch.ones(1)
    assert float(frozen(one, one, one, one)) == 2
    assert inductor.freezing is False


def gpu_case(unet):
    network = copy.deepcopy(unet).cuda()
    condition = Condition.labels(torch.tensor([1, 5], device="cuda"), unet.null_label)
    return network, condition, torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0)).cuda()


@pytest.mark.gpu
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_replayed_graph_is_eager_bit_for_bit(scale, unet, schedule):
    network, condition, start = gpu_case(unet)
    trajectory, noise = ancestral(schedule, spaced(schedule, 20)), PhiloxNoise(0, range(2))
    eager = build(REFERENCE, network, condition, scale)
    graph = build(VARIANTS["cuda-graph"], network, condition, scale)
    expected = run(eager, start, trajectory, noise)
    assert torch.equal(run(eager, start, trajectory, noise), expected)
    assert torch.equal(run(graph, start, trajectory, noise), expected)
    assert torch.equal(run(graph, start, trajectory, noise), expected)  # replays alone


@pytest.mark.gpu
def test_the_output_of_a_graph_outlives_the_next_replay(unet, schedule):
    network, condition, start = gpu_case(unet)
    sampler = build(VARIANTS["cuda-graph"], network, condition, 3.0)
    trajectory, noise = ancestral(schedule, spaced(schedule, 5)), PhiloxNoise(0, range(2))
    kept, copies = [], []

    def after(i, x):
        kept.append(x)
        copies.append(x.clone())

    run(sampler, start, trajectory, noise, after_step=after)
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


@pytest.mark.gpu
def test_each_shape_gets_its_own_graph(unet, schedule):
    network, _, start = gpu_case(unet)
    trajectory = ancestral(schedule, spaced(schedule, 5))
    graph, eager = build(VARIANTS["cuda-graph"], network), build(REFERENCE, network)
    for batch in (2, 1, 2):
        noise = PhiloxNoise(0, range(batch))
        expected = run(eager, start[:batch], trajectory, noise)
        assert torch.equal(run(graph, start[:batch], trajectory, noise), expected)
