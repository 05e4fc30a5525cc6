"""How a step is executed: eagerly, compiled with weights frozen, or as a replayed CUDA graph."""

import copy

import pytest
import torch
from torch import nn

from sampler import runtime
from sampler.errors import UsageError
from sampler.generate import sample
from sampler.guidance import Condition
from sampler.noise import PhiloxNoise
from sampler.trajectory import ancestral, spaced
from sampler.variants import REFERENCE, VARIANTS, Variant, build, run


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
    samplers = {name: build(Variant("v", runtime=runtimes[name]), network) for name in runtimes}

    def draw(name):
        return run(samplers[name], start, trajectory, noise)

    before = draw("eager")
    for name in sorted(("frozen", "compiled"), key=lambda name: name != first):
        torch.testing.assert_close(draw(name), before)
    with torch.no_grad():
        network.convolution.weight.mul_(-3)
    after = draw("eager")
    assert (after - before).abs().max() > 0.1
    torch.testing.assert_close(draw("frozen"), before)
    torch.testing.assert_close(draw("compiled"), after)
    anew = build(Variant("v", runtime=runtime.compiled_frozen), network)
    torch.testing.assert_close(run(anew, start, trajectory, noise), after)


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


class Deep(nn.Module):
    """Convolutions and a product, which oneDNN packs, biases that the code names, and a scalar that it holds."""

    def __init__(self, seed: int, width: int = 16, scale: float = 1.0):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.last = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 1, 1, bias=False)
        self.middle = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.product = nn.Linear(36, 36)
        self.scale = nn.Parameter(torch.tensor(scale))
        self.register_buffer("shift", torch.tensor(0.25))

    def forward(self, x, t, condition=None):
        x = self.first(x)
        for layer in self.middle:
            x = torch.nn.functional.silu(layer(x)) * self.scale + self.shift
        return self.product(self.last(x).flatten(1)).view(-1, 1, 6, 6)


def changed(seed: int, change) -> nn.Module:
    network = Deep(seed)
    with torch.no_grad():
        change(network)
    return network


@pytest.fixture
def look_up(schedule, tmp_path, monkeypatch):
    """Build and run with weights frozen, as a process of its own would; what became of it in Inductor's cache."""
    import torch._inductor.config as inductor
    from torch._dynamo.utils import counters

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    start = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    trajectory, noise = ancestral(schedule, (500, 300, 100)), PhiloxNoise(0, range(2))

    def look(network: nn.Module) -> dict[str, int]:
        torch._dynamo.reset()
        counters.clear()
        with inductor.patch(fx_graph_cache=True, force_disable_caches=False):
            frozen = run(build(Variant("v", runtime=runtime.compiled_frozen), network), start, trajectory, noise)
        torch.testing.assert_close(frozen, run(build(REFERENCE, network), start, trajectory, noise))
        return {how: n for how in ("miss", "hit", "bypass") if (n := counters["inductor"][f"fxgraph_cache_{how}"])}

    return look


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), [
    (lambda: Deep(0), lambda: Deep(1)),
    (lambda: Deep(0), lambda: Deep(0, width=17)),
    (lambda: Deep(0), lambda: Deep(0, scale=3.0)),
    (lambda: Deep(0), lambda: changed(0, lambda n: n.shift.fill_(2.0))),
    (lambda: Deep(0), lambda: changed(0, lambda n: n.middle[1].bias.add_(1.0))),
    (lambda: changed(0, lambda n: setattr(n.middle[0].bias, "data", n.middle[1].bias.data)), lambda: Deep(0)),
    (lambda: changed(0, lambda n: setattr(n.middle[0].weight, "data", n.middle[1].weight.data)), lambda: Deep(0)),
], ids=["weights", "form", "scalar", "buffer", "bias", "shared biases", "shared weights"])  # fmt: skip
def test_frozen_code_is_found_again_by_the_very_weights_it_was_made_from(look_up, one, other):
    assert look_up(one()) == {"miss": 1}
    assert look_up(other()) == {"miss": 1}
    assert look_up(one()) == {"hit": 1}
    assert look_up(other()) == {"hit": 1}


@pytest.mark.slow
def test_what_is_packed_while_code_is_generated_is_found_by_its_weights_alone(look_up):
    """A tuned product: its packed weights lie in the entry itself."""
    import torch._inductor.config as inductor
    from torch._dynamo.utils import counters

    with inductor.patch(max_autotune=True, max_autotune_gemm_backends="CPP"):
        assert look_up(Deep(0)) == {"miss": 1}
        assert counters["inductor"]["cpp_templated_kernel_counter"]
        assert look_up(Deep(1)) == {"miss": 1}
        assert look_up(Deep(0)) == {"hit": 1}


@pytest.mark.slow
def test_weights_that_share_their_memory_are_as_good_as_equal_ones(look_up):
    """One name in the code for both: it is right for whoever has the same bytes twice."""
    assert look_up(changed(0, lambda n: setattr(n.middle[0].bias, "data", n.middle[1].bias.data))) == {"miss": 1}
    assert look_up(changed(0, lambda n: n.middle[0].bias.copy_(n.middle[1].bias))) == {"hit": 1}


@pytest.mark.slow
def test_code_for_one_kind_of_cpu_is_not_found_by_another(look_up, monkeypatch):
    """A cache that machines share: code written for wider vectors and compiled for narrower ones is wrong."""
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    assert look_up(Deep(0)) == {"miss": 1}
    mine = str(pick_vec_isa())
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2" if "avx512" in mine else "default")
    assert str(pick_vec_isa()) != mine
    assert look_up(Deep(0)) == {"miss": 1}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compiled", "compiled_frozen"])
def test_a_process_may_build_more_compiled_samplers_than_dynamo_compiles_of_one_function(name, schedule):
    import torch._dynamo.config as dynamo

    torch._dynamo.reset()
    start, trajectory = torch.ones(1, 1, 4, 4), ancestral(schedule, (100,))
    for seed in range(dynamo.recompile_limit + 1):
        torch.manual_seed(seed)
        network = OneConvolution()
        network.register_buffer("own", torch.ones(seed + 1))  # of another form than those before
        made = run(build(Variant("v", runtime=getattr(runtime, name)), network), start, trajectory, PhiloxNoise(0, [0]))
        torch.testing.assert_close(made, run(build(REFERENCE, network), start, trajectory, PhiloxNoise(0, [0])))


@pytest.mark.slow
def test_freezing_is_switched_off_again(schedule):
    import torch._inductor.config as inductor

    network = OneConvolution()
    run(build(Variant("v", runtime=runtime.compiled_frozen), network), torch.ones(1, 1, 4, 4),
        ancestral(schedule, (10,)), PhiloxNoise(0, range(1)))  # fmt: skip
    assert inductor.freezing is False


def gpu_case(unet):
    network = copy.deepcopy(unet).cuda()
    condition = Condition.labels(torch.tensor([1, 5], device="cuda"), unet.null_label)
    return network, condition, torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0)).cuda()


@pytest.mark.gpu
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_replayed_graph_is_eager(scale, unet, schedule):
    network, condition, start = gpu_case(unet)
    trajectory, noise = ancestral(schedule, spaced(schedule, 20)), PhiloxNoise(0, range(2))
    eager = build(REFERENCE, network, condition, scale)
    graph = build(VARIANTS["cuda-graph"], network, condition, scale)
    expected = run(eager, start, trajectory, noise)
    assert torch.equal(run(eager, start, trajectory, noise), expected)
    first = run(graph, start, trajectory, noise)
    torch.testing.assert_close(first, expected, rtol=0, atol=2e-5)  # the kernel's normals differ in the last bits
    assert torch.equal(run(graph, start, trajectory, noise), first)  # replays alone


@pytest.mark.gpu
def test_each_shape_gets_its_own_graph(unet, schedule):
    network, _, start = gpu_case(unet)
    trajectory = ancestral(schedule, spaced(schedule, 5))
    graph, eager = build(VARIANTS["cuda-graph"], network), build(REFERENCE, network)
    for batch in (2, 1, 2):
        noise = PhiloxNoise(0, range(batch))
        expected = run(eager, start[:batch], trajectory, noise)
        torch.testing.assert_close(run(graph, start[:batch], trajectory, noise), expected, rtol=0, atol=2e-5)
    assert graph.guided.captures == 2


FAULTS = {
    "CUDA graphs skipped": ("inductor", "cudagraph_skips"),
    "graph breaks": ("graph_break", "a print"),
    "recompilations": ("stats", "unique_graphs"),
}


@pytest.fixture
def counters(monkeypatch):
    """The compiler's counters, set back afterwards."""
    from collections import Counter, defaultdict

    import torch._dynamo.utils

    monkeypatch.setattr(torch._dynamo.utils, "counters", defaultdict(Counter))
    return torch._dynamo.utils.counters


def watched_run(schedule, counters, at: int, group: str, name: str, runs: int = 1):
    """A 'compiled' step that compiles once, as it should, and does something else in its call number `at`."""
    calls = 0

    def step(x, noise, t, row):
        nonlocal calls
        if calls == 0:
            counters["stats"]["unique_graphs"] += 1
        if calls == at:
            counters[group][name] += 1
        calls += 1
        return x

    sampler = build(Variant("watched", runtime=lambda inner: runtime._watched(step)), OneConvolution())
    for _ in range(runs):
        run(sampler, torch.zeros(1, 1, 4, 4), ancestral(schedule, (9, 5, 3)), PhiloxNoise(0, range(1)))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("at", [1, 2, 4])
def test_what_a_compiled_step_does_silently_is_an_error(at, fault, schedule, counters):
    with pytest.raises(RuntimeError, match=f"did not run as one compiled piece: 1 {fault}"):
        watched_run(schedule, counters, at, *FAULTS[fault], runs=2)


@pytest.mark.parametrize("fault", ["CUDA graphs skipped", "graph breaks"])
def test_so_it_is_while_compiling(fault, schedule, counters):
    with pytest.raises(RuntimeError, match=fault):
        watched_run(schedule, counters, 0, *FAULTS[fault])


def test_the_one_compilation_is_none(schedule, counters):
    watched_run(schedule, counters, 99, "stats", "unique_graphs", runs=2)
    assert counters["stats"]["unique_graphs"] == 1
