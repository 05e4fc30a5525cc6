"""Each kind of evidence has a contender here that lacks it, and is caught; and one that has it, and is not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from bench import contenders, evidence, memory
from bench.contenders import CONTENDERS, Contender, full_path
from bench.first_call import Captures, captures
from bench.inspection import Inspection, loop_steps
from bench.interleave import Stage
from bench.measurement import Measurement
from bench.profile import mark_network
from bench.tally import Tally
from bench.workload import workload
from sampler import guidance, precision, runtime, schedule, variants
from sampler.errors import UsageError
from sampler.guidance import Predict
from sampler.models import Model
from sampler.posterior import Guided, posterior
from sampler.variants import Update, Variant
from tests.bench.synthetic import first_call, measurement, pairs


class Network(nn.Module):
    """Two convolutions and a product of matrices, conditioned on nothing."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
        self.mix = nn.Linear(8, 8)

    def forward(self, x, t, condition):
        h = self.mix(self.one(x).movedim(1, -1)).movedim(-1, 1)
        return self.two(h)


def inspected(contender: Contender, network: Callable[[], nn.Module], events: list) -> tuple[Inspection, Model]:
    """An inspection in this process, on a small network, up to its scaling."""
    task = {"workload": workload("smoke", batch=2, steps=20).json()}
    inspection = Inspection(task, contender, lambda **event: events.append(event))
    torch.manual_seed(0)
    model = Model("small", network().eval(), (1, 8, 8), schedule.linear(), classes=10, null_label=10)
    inspection.tally = Tally(model.network)
    mark_network(model.network)
    inspection._watch_layouts(model.network)
    inspection.weights = 0
    inspection.stage, inspection.arm, inspection.static = memory.build(
        inspection.meter, lambda: Stage(inspection.workload, model, 2, tally=inspection.tally),
        lambda stage: stage.arm(contender), 0,
    )  # fmt: skip
    inspection.stage.first_call_s(inspection.arm)
    inspection.scaling()
    return inspection, model


def looked_at(contender: Contender, network: Callable[[], nn.Module] = Network) -> list[dict[str, Any]]:
    """The events of an inspection."""
    events: list[dict[str, Any]] = []
    inspected(contender, network, events)[0].evidence()
    return events


def verdict(contender: Contender) -> tuple[bool, str]:
    (event,) = [e for e in looked_at(contender) if e["event"] == "evidence"]
    against = [text for ok, text in event["findings"] if not ok]
    return not against, "; ".join(against or [text for _, text in event["findings"]])


def claims(name: str, variant: Variant, like: str, **more: Any) -> Contender:
    """A contender that claims what a shipped row does."""
    return Contender(name, "planted", variant, engaged=CONTENDERS[like].engaged, **more)


def eager_after_all(step):
    """An 'optimised' runtime whose compiled step is never the one that is called."""
    torch.compile(step)
    return runtime.eager(step)


def fp32_after_all(network):
    """An autocast that is prepared and never entered."""
    torch.autocast("cpu", torch.bfloat16)
    return precision.full(network)


def two_calls_after_all(network, condition, scale):
    """Batches the condition and then calls twice."""

    def predict(x, t):
        both = torch.cat([condition.value, condition.null]).chunk(2)
        return Guided(*(network(x, t.expand(len(x)), half) for half in both), scale)

    return Predict(predict)


def one_short(model: Model, steps: int):
    return full_path(model, steps).at(slice(1, None))


def skips(step):
    """Leaves every third step out."""
    calls = 0

    def run(x, *rest):
        nonlocal calls
        calls += 1
        return step(x, *rest) if calls % 3 else x

    return runtime.one_by_one(run)


def leaking():
    kept: list[torch.Tensor] = []

    def apply(x, *rest):
        kept.append(x.clone())
        return posterior(x, *rest)

    return apply


def hoarding(network, condition, scale):
    """Remembers its predictions by timestep, so as to be quick the second time."""
    plain, memory = guidance.sequential_cfg(network, condition, scale), {}

    def predict(x, t):
        key = int(t)
        if key not in memory:
            memory[key] = plain.of_input(x, t)
        return memory[key]

    return Predict(predict)


LACKING = {
    "a compiled row that is eager":
        (claims("x", Variant("x", runtime=eager_after_all), "compiled"), "the network ran eagerly"),
    "an autocast that stays float32":
        (claims("x", Variant("x", precision=fp32_after_all), "autocast-bf16"), "bfloat16 in 0 of"),
    "batched guidance that calls twice":
        (claims("x", Variant("x", guide=two_calls_after_all), "batched-cfg"), "not 11 network calls of 4"),
    "one step too few":
        (claims("x", Variant("x"), "reference", path=one_short), "19 steps a run on a path of 19, not 20"),
    "steps left out":
        (claims("x", Variant("x", runtime=skips), "reference"), "not 22 network calls of 2"),
    "channels-last that is not":
        (claims("x", Variant("x"), "channels-last"), "channels-last out of 0 of"),
    "a kernel that never runs":
        (claims("x", Variant("x"), "native-update"), "native_posterior_drawn ran 0 times"),
    "a compiled update that is not":
        (claims("x", Variant("x"), "compiled-update"), "compiled graph ran 0 times"),
    "a leak of one tensor a step":
        (claims("x", Variant("x", update=Update(leaking)), "reference"), "keeps 600 B a step"),
    "a hidden cache":
        (claims("x", Variant("x", guide=hoarding), "reference"), "keeps 7"),
    "guidance limited to where no step lies":
        (claims("x", Variant("x", guided_between=(200.0, 300.0)), "limited-guidance"), "guides no step of 20"),
    "half precision where float32 is claimed":
        (claims("x", Variant("x", precision=precision.cast(torch.bfloat16)), "reference"), "float32 in 0 of"),
}  # fmt: skip


@pytest.mark.parametrize("lack", LACKING)
def test_lacking_evidence_is_caught(lack: str) -> None:
    contender, said = LACKING[lack]
    ok, text = verdict(contender)
    assert not ok
    assert said in text


HONEST = ("reference", "textbook", "batched-cfg", "channels-last", "autocast-bf16", "cast-bf16", "limited-guidance",
          "strided", "ddim", "textbook-strided", "native-update")  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_what_engaged_is_believed(name: str) -> None:
    contender = CONTENDERS[name]
    if contender.unavailable("cpu"):
        pytest.skip(contender.unavailable("cpu"))
    ok, text = verdict(contender)
    assert ok, text
    assert " a run" in text
    assert "keeps" in text


def test_the_profiled_loop_holds_the_rows_own_share_of_guided_steps() -> None:
    """Ten steps of it, after one by which its tables are made and its graphs filled."""
    (profile,) = [e for e in looked_at(CONTENDERS["limited-guidance"]) if e["event"] == "profile"]
    assert (profile["steps"], profile["guided"]) == (10, 4)
    (seen,) = [e["seen"] for e in looked_at(CONTENDERS["ddim"]) if e["event"] == "evidence"]
    assert seen["counts"]["steps"] == 11


class Graph:
    """A stand-in for CUDAGraph on a machine that has none."""

    def __init__(self, do):
        self.do, self.replayed = do, 0

    def replay(self):
        self.replayed += 1
        self.do()


def graph_row(really: bool) -> tuple[list[evidence.Finding], Graph]:
    """Ten steps of a row that captures a graph, and replays it or goes on calling the network."""

    class Mine(Graph):
        pass

    model = Model("small", Network(), (1, 8, 8), schedule.linear())
    tally = Tally(model.network, Mine)
    graph = Mine(lambda: None)

    def graphed(step):
        def run(x, z, t, row):
            if really:
                graph.replay()
                return x
            return step(x, z, t, row)

        return runtime.one_by_one(run)

    stage = Stage(workload("smoke"), model, 2, tally=tally)
    arm = stage.arm(Contender("graphed", "planted", Variant("graphed", runtime=graphed)))
    arm.advance(stage.x, list(range(10)), arm.noise(0, 2))
    seen = evidence.Seen(batch=2, counts=dict(tally.counts["graphed"]), cuda=True)
    return evidence.judge([evidence.replayed], seen), graph


def test_a_graph_that_is_never_replayed_is_caught_and_one_that_is_believed() -> None:
    (lacking,), graph = graph_row(really=False)
    assert not lacking.ok
    assert graph.replayed == 0
    assert "0 graph replays in 10 steps, 10 network calls from Python" in lacking.text
    (engaged,), graph = graph_row(really=True)
    assert engaged.ok
    assert graph.replayed == 10  # counting does not replace the replay


def test_a_graph_over_five_steps_is_replayed_once_for_five() -> None:
    def found(replays: int, steps: int = 60) -> bool:
        return evidence.replayed_over(5)(evidence.Seen(2, {"steps": steps, "replays": replays}, cuda=True)).ok

    assert [found(n) for n in (0, 11, 12, 20, 59, 60, 61)] == [False, False, True, True, True, False, False]
    assert found(2, steps=6)  # one by one what is left, then five at once
    assert evidence.replayed_over(5)(evidence.Seen(2, {"steps": 60})) is None  # not on a CPU


def test_counts_belong_to_the_row_that_made_them() -> None:
    model = Model("small", Network(), (1, 8, 8), schedule.linear(), classes=10, null_label=10)
    tally = Tally(model.network)
    stage = Stage(workload("smoke"), model, 2, tally=tally)
    one, other = (stage.arm(CONTENDERS[name]) for name in ("reference", "channels-last"))  # the other's is a copy
    one.advance(stage.x, [0, 1, 2], one.noise(0, 2))
    model.network(stage.x, torch.tensor([1]), None)  # nobody's
    other.advance(stage.x, [5], other.noise(0, 2))
    assert tally.counts["reference"]["network calls of 2"] == 6
    assert tally.counts["channels-last"]["network calls of 2"] == 2
    assert (tally.counts["reference"]["steps"], tally.counts["channels-last"]["steps"]) == (3, 1)
    tally.clear()
    assert not tally.counts


def test_a_compiled_step_holds_nothing_of_the_count_and_calls_are_counted_when_it_falls_back() -> None:
    network = Network()
    tally = Tally(network)
    run = torch.compile(network, backend="eager", fullgraph=True)
    x, t = torch.ones(2, 1, 8, 8), torch.tensor([1, 1])
    with tally.of("row", 1, 0):
        run(x, t, None)
    assert tally.counts["row"]["compilations"] == 1
    assert evidence.Seen(2, dict(tally.counts["row"])).calls == {}
    tally.clear()
    with tally.of("row", 1, 0):
        run(x, t, None)
    seen = evidence.Seen(2, dict(tally.counts["row"]))
    assert (seen.counts["compilations"], seen.calls) == (0, {})
    assert evidence.compiled(seen).ok
    with tally.of("row", 1, 0):
        network(x, t, None)
    assert not evidence.compiled(evidence.Seen(2, dict(tally.counts["row"]))).ok


@pytest.mark.parametrize("fault", ["graph breaks", "compilations", "graphs skipped"])
def test_a_compiled_row_that_breaks_recompiles_or_skips_its_graphs_is_caught(fault: str) -> None:
    finding = evidence.compiled(evidence.Seen(2, {"steps": 10, fault: 1}))
    assert not finding.ok
    assert f"1 {fault}" in finding.text


CONVOLUTIONS = [["convolution", "float32", 2, 40]]


def test_float32_that_is_multiplied_in_tensorfloat_32_is_caught_where_there_is_a_device() -> None:
    """Its operators take float32 either way; only its kernels tell."""
    seen = evidence.Seen(2, {"steps": 10}, products=CONVOLUTIONS, kernels={"sm80_xmma_fprop_f32f32": 40}, cuda=True)
    fast = replace(seen, kernels={"sm80_xmma_fprop_implicit_gemm_tf32f32": 1, **(seen.kernels or {})})
    assert evidence.in_float32(seen).ok
    finding = evidence.in_float32(fast)
    assert not finding.ok
    assert finding.text == "float32 in 40 of 40 convolutions, 1 kernels in TensorFloat-32"
    half = replace(seen, products=[["convolution", "bfloat16", 2, 40]])
    assert not evidence.in_float32(half).ok


def test_a_tensorfloat_32_row_without_its_kernels_is_caught() -> None:
    counts = {"steps": 10, "network calls of 2": 20}
    kernels = {"sm80_xmma_fprop_f32f32": 40, "cutlass_80_tensorop_s1688gemm_128x256_16x3_nn_align4": 20}
    seen = evidence.Seen(2, counts, products=CONVOLUTIONS, kernels=kernels, cuda=True)
    assert evidence.in_tensorfloat32(seen).ok
    for lacking in (kernels | {"cutlass_80_tensorop_s1688gemm_128x256_16x3_nn_align4": 19}, {"ampere_sgemm": 99}):
        assert not evidence.in_tensorfloat32(replace(seen, kernels=lacking)).ok


@pytest.mark.parametrize(("launches", "graphs", "ok"), [(0, 10, True), (1, 10, False), (0, 12, False), (0, 0, False)])
def test_a_graphed_loop_in_which_the_host_launches_kernels_is_caught(launches: int, graphs: int, ok: bool) -> None:
    seen = evidence.Seen(2, {"steps": 11, "replays": 11}, launches=launches, graph_launches=graphs, cuda=True)
    finding = evidence.launches_graphs_alone(seen)
    assert finding.ok == ok
    assert f"{launches} kernels and {graphs} graphs" in finding.text
    assert evidence.launches_graphs_alone(replace(seen, cuda=False)) is None
    assert evidence.launches_graphs_alone(replace(seen, launches=None)) is None  # not looked for on the timed calls


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_row_with_a_kernel_or_a_graph_of_ours_must_show_it(name: str) -> None:
    contender = CONTENDERS[name]
    variant = contender.variant
    if variant.update.needs == "cuda":
        kernel = contenders.OUR_NOISE if variant.update is variants.kernel_noise_update else contenders.OUR_KERNEL
        assert kernel in contender.engaged
    assert (evidence.launches_graphs_alone in contender.engaged) == variant.captures


def test_copies_between_host_and_device_are_caught_where_there_is_a_device() -> None:
    seen = evidence.Seen(2, {"steps": 10}, copies=3, cuda=True)
    assert not evidence.stays_on_the_device(seen).ok
    assert evidence.stays_on_the_device(replace(seen, copies=0)).ok
    assert evidence.stays_on_the_device(replace(seen, cuda=False)) is None


def test_channels_last_that_is_changed_back_in_every_other_convolution_is_caught_in_a_graph() -> None:
    seen = evidence.Seen(2, {"steps": 10}, products=CONVOLUTIONS, nhwc=(0, 0), cuda=True)  # 40 convolutions
    for changes, ok in ((0, True), (19, True), (20, False), (80, False)):
        kernels = {"void cudnn::ops::nhwcToNchwKernel<float>": changes, "another": 99}
        assert evidence.keeps_channels_last(replace(seen, kernels=kernels)).ok == ok
    assert not evidence.keeps_channels_last(replace(seen, products=[], kernels={"nchwToNhwcKernel": 1})).ok


def test_a_compiled_batch_is_known_by_its_convolutions() -> None:
    products = [["convolution", "float32", 8, 42], ["matrix product", "float32", 8, 14]]
    seen = evidence.Seen(4, {"steps": 2, "guided": 2}, products=products, convolutions=21)
    assert evidence.contains(evidence.once_doubled)(seen).ok
    assert not evidence.contains(evidence.twice)(seen).ok
    assert evidence.contains(evidence.twice)(replace(seen, products=[["convolution", "float32", 4, 84]])).ok


def test_a_compiler_may_make_products_of_1x1_convolutions_alone() -> None:
    seen = evidence.Seen(4, {"steps": 2, "guided": 2}, convolutions=21, pointwise=5)
    for convolutions, ok in ((42, True), (34, True), (32, True), (33, False), (30, False), (44, False)):
        ran = [["convolution", "float32", 8, convolutions]]
        assert evidence.contains(evidence.once_doubled)(replace(seen, products=ran)).ok == ok


def test_guided_steps_and_others_are_graphs_of_their_own() -> None:
    """Of 11 steps 4 call twice: one graph may make products of what the other leaves as convolutions."""
    seen = evidence.Seen(4, {"steps": 11, "guided": 4}, convolutions=21, pointwise=5)
    for convolutions, ok in ((7 * 21 + 8 * 16, True), (7 * 18 + 8 * 21, True), (15 * 21, True), (15 * 16 - 1, False),
                             (7 * 21 + 8 * 21 + 1, False)):  # fmt: skip
        ran = [["convolution", "float32", 4, convolutions]]
        assert evidence.contains(evidence.twice)(replace(seen, products=ran)).ok == ok
    # where nothing may become a product, a call too few is seen
    alike = replace(seen, pointwise=0, products=[["convolution", "float32", 4, 14 * 21]])
    assert not evidence.contains(evidence.twice)(alike).ok
    batched = [["convolution", "float32", 8, 4 * 17], ["convolution", "float32", 4, 7 * 21]]
    assert evidence.contains(evidence.once_doubled)(replace(seen, products=batched)).ok
    assert not evidence.contains(evidence.once_doubled)(replace(seen, products=batched[:1])).ok


class Captured(nn.Conv2d):
    """A network that says in which format it computes, whatever its input."""

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x)


class FakeGraph:
    """torch.cuda.graph as far as a capture is concerned: what is inside runs, and is recorded by nobody."""

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        return False


def test_the_formats_of_a_captured_row_are_those_that_were_captured() -> None:
    """Not those of the same seams run eagerly, which may differ in what a compiler made of them."""
    network, x = Captured(1, 1, 3), torch.ones(2, 1, 8, 8)
    with torch.inference_mode(), captures(FakeGraph) as found:
        network(x.double().float())
        with FakeGraph():
            pass  # PyTorch makes an empty graph, to keep a pool alive
        for _ in range(2):
            with FakeGraph():
                network(x)
    assert len(found.made) == 3
    assert found.products(steps=10) == [["convolution", "bfloat16", 2, 10]]
    assert found.products(steps=10, captured_steps=4) == [["convolution", "bfloat16", 2, 5]]
    assert 0 < found.seconds < 60
    assert FakeGraph.__enter__(None) is None  # as it was


def test_a_replayed_row_of_whose_captures_nothing_was_seen_shows_no_format() -> None:
    seen = evidence.Seen(2, {"steps": 10, "replays": 10}, products=Captures().products(10), cuda=True)
    assert not evidence.in_float32(seen).ok


def judged_row(findings: list, where: str = "inspection") -> Measurement:
    event = {"event": "evidence", "row": "batched-cfg", "where": where, "process": 0, "seen": {}, "findings": findings}
    events = [first_call("reference", 1000), first_call("batched-cfg", 1000), *pairs("batched-cfg", {0: [0.5]}), event]
    return measurement(["reference", "batched-cfg"], events)


@pytest.mark.parametrize("where", ["inspection", "timed"])
def test_a_row_without_its_evidence_is_red_and_has_no_speedup(where: str) -> None:
    from bench.__main__ import failures

    made = judged_row([[True, "fine"], [False, "called twice"]], where)
    row = made.row("batched-cfg")
    assert row.status == "red"
    assert row.speedup is None
    assert "not shown to have engaged: called twice" in row.reason
    assert [name for name, _ in failures(made)] == ["batched-cfg"]
    assert judged_row([[True, "fine"]], where).row("batched-cfg").status == "ok"


def test_a_row_that_was_never_looked_at_is_red_where_others_were() -> None:
    made = judged_row([[True, "fine"]])
    assert made.row("batched-cfg").status == "ok"
    made.events.append({"event": "evidence", "row": "reference", "where": "inspection", "process": -1, "seen": {},
                        "findings": []})  # fmt: skip
    assert made.row("batched-cfg").status == "ok"
    made.events = [e for e in made.events if e["event"] != "evidence" or e["row"] == "reference"]
    made = measurement(made.rows, made.events)
    assert made.row("batched-cfg").status == "red"
    assert "its inspection came to no finding" in made.row("batched-cfg").reason


def test_every_shipped_row_names_proofs_for_each_seam_it_changes() -> None:
    reference = CONTENDERS["reference"]
    for name, contender in CONTENDERS.items():
        variant = contender.variant
        differs = [seam for seam in ("layout", "precision", "guide", "update", "runtime")
                   if getattr(variant, seam) is not getattr(reference.variant, seam)]  # fmt: skip
        if differs and contender.needs != "half":
            assert contender.engaged != evidence.PLAIN, f"{name} changes {differs} and proves nothing of it"
        assert set(evidence.ALWAYS) <= set(contender.engaged)


def test_the_steps_of_a_loop_are_counted_and_not_believed() -> None:
    model = Model("small", Network(), (1, 8, 8), schedule.linear(), classes=10, null_label=10)
    stage = Stage(workload("smoke", steps=20), model, 1)
    wanted = {"reference": 20, "textbook": 1000, "strided": 5, "ddim": 1, "native-update": 20, "limited-guidance": 20}
    assert {name: loop_steps(stage.arm(CONTENDERS[name]), stage) for name in wanted} == wanted


def test_a_run_of_999_steps_is_not_one_of_1_000() -> None:
    model = Model("small", Network(), (1, 8, 8), schedule.linear(), classes=10, null_label=10)
    stage = Stage(workload("smoke", steps=1000), model, 1)
    arm = stage.arm(claims("x", Variant("x"), "reference", path=one_short))
    seen = evidence.Seen(1, {}, asked_steps=1000, path_steps=arm.steps, loop_steps=loop_steps(arm, stage))
    finding = evidence.takes(evidence.every_step)(seen)
    assert not finding.ok
    assert finding.text == "999 steps a run on a path of 999, not 1,000"


def test_a_batch_that_would_not_fit_is_refused_before_it_is_tried(monkeypatch) -> None:
    model = Model("small", Network().eval(), (1, 8, 8), schedule.linear(), classes=10, null_label=10)
    task = {"workload": workload("smoke", batch=512).json(), "lanes": 2}
    inspection = Inspection(task, CONTENDERS["reference"], lambda **event: None)
    monkeypatch.setattr(memory, "available_bytes", lambda device: 2 * 2**20)
    with pytest.raises(UsageError, match=r"out of memory at batch 512: needed about [\d.]+ MiB, had 1.0 MiB"):
        inspection._foresee(model)
    monkeypatch.setattr(memory, "available_bytes", lambda device: 8 * 2**30)
    inspection._foresee(model)


def test_the_largest_batch_within_a_limit_is_foreseen_and_tried() -> None:
    events: list[dict] = []
    inspection, _ = inspected(CONTENDERS["reference"], Network, events)
    inspection.task["within"] = 2 * 2**20
    inspection.attempt()
    *_, last = [e for e in events if e["event"] == "attempt"]
    assert last["batch"] > 8
    assert 0.9 * 2 * 2**20 <= last["peak"] <= 2 * 2**20
    inspection.task["within"] = 10
    with pytest.raises(UsageError, match="not one image fits within"):
        inspection.attempt()
