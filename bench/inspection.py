"""An inspection: one contender alone in a fresh process, untimed, looked at from every side.

Its first call in parts, its memory, the proofs that it engaged, a profile, and the comparison on the same noise.
"""

import gc
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch
from torch import nn
from torch.profiler import record_function

from bench import evidence, memory, roof
from bench.contenders import CONTENDERS, REFERENCE, Contender, full_path
from bench.first_call import TritonWork, captures, compile_times, triton_work
from bench.interleave import Arm, Stage
from bench.meter import Usage, forget_peak, meter_for
from bench.profile import UPDATE, Loop, MarkedNoise, mark_network, profiled
from bench.quality import same_noise
from bench.tally import Tally
from bench.workload import from_json
from sampler import runtime
from sampler.errors import UsageError
from sampler.models import Model, load_model
from sampler.noise import PhiloxNoise
from sampler.posterior import State
from sampler.runtime import AfterStep, Leg
from sampler.variants import check_guided

FORESEE_FROM = 32  # images at once; below, a machine that can load the network can run it
STEPS = (6, 12)  # at which the peak is metered, to see what a step adds
POINT_STEPS, LARGE_BATCH = 2, 64  # at other batches
STRETCHES, STRETCH = 10, 20  # over which the pace of a row is taken, and steps of each
TRIES, NEARLY = 4, 0.9  # at the largest batch within a limit, and how full it should be then
PROFILED_STEPS = 10  # of any ten evenly spread steps, limited guidance (40 % of the path) guides exactly four


class Unfit(Exception):
    """What a row is about does not occur in this workload: it can be neither right nor wrong."""


class Inspection:
    """What can be looked at of a contender (the methods without an underscore), in the order of `LOOKS`."""

    def __init__(self, task: dict[str, Any], contender: Contender, emit):
        self.task, self.contender, self.emit = task, contender, emit
        self.workload = from_json(task["workload"])
        torch.set_num_threads(self.workload.threads)
        self.meter = meter_for(torch.device(self.workload.device))
        self.had = float(memory.available_bytes(torch.device(self.workload.device)))
        self.model: Model | None = None
        self.layouts: list[bool] = []
        self.looking = False

    def first_call(self) -> None:
        """Load, build and call the row for the first time, metered; how long each part took."""
        start = time.perf_counter()
        with self.meter.watch() as loading:
            model = self.model = load_model(self.workload.model, self.workload.device)
            self._check_fit(model)
        self.tally = Tally(model.network, torch.cuda.CUDAGraph if model.device.type == "cuda" else None)
        mark_network(model.network)
        self._watch_layouts(model.network)
        self._foresee(model)
        self.weights = loading.live_after - loading.live_before
        self.stage, self.arm, self.static = memory.build(
            self.meter, lambda: Stage(self.workload, model, self.workload.batch, tally=self.tally),
            lambda stage: stage.arm(self.contender), self.weights,
        )  # fmt: skip
        loading.live_peak = max(loading.live_peak, self.meter.live)
        load_s = time.perf_counter() - start
        with self.meter.watch() as calling, captures() as self.captured, self._triton_work() as triton:
            seconds = self.stage.first_call_s(self.arm)
        self.emit(event="first_call", row=self.contender.name, steps=self.arm.steps,
                  seconds=seconds - self.captured.looking_s, load_s=load_s, capture_s=self.captured.seconds,
                  **triton.added_to(compile_times()))  # fmt: skip
        self._memory("weights loaded", loading, 0)
        self.static.keep(calling, packs=self.contender.variant.runtime is runtime.compiled_frozen)
        self._memory("first call", calling, memory.state_bytes(self.arm, self.stage))
        if model.device.type == "cuda":
            torch.cuda.empty_cache()  # what compiling and tuning left in reserve is not the steady state's
        self.tally.clear()

    def scaling(self) -> None:
        """The steady state, and how its peak grows with the steps and, where nothing must be compiled, the batch."""
        few, many = STEPS
        held = self._held(self._positions(POINT_STEPS))  # first: a profiler's own records would be in the way
        with self.meter.watch(timeline=True) as fresh:
            self._advance(self._positions(many))  # whose pictures are gone before the meter is read
        kept = (fresh.live_after - fresh.live_before) / many
        points, rises = [], []
        for steps in STEPS:
            # the same few positions over and over, that the two differ in nothing but how often
            positions = sorted(self._positions(POINT_STEPS) * (steps // POINT_STEPS))
            with self.meter.watch() as usage:
                self._advance(positions)
            points.append([self.workload.batch, steps, usage.live_peak + usage.workspace])
            rises.append(usage.live_peak - usage.live_before)
            if steps == few:
                usage.held = usage.held if held is None else held
                self._memory("steady", usage, memory.state_bytes(self.arm, self.stage))
        self.kept_bytes = max(kept, (rises[1] - rises[0]) / (many - few))
        self.emit(event="timeline", row=self.contender.name, steps=many, points=memory.thinned(fresh.timeline))
        if self._is_eager():
            points += [self._point(batch) for batch in other_batches(self.workload.batch)]
        self.points = points
        self.emit(event="memory_scaling", row=self.contender.name, points=points,
                  table_bytes=memory.table_bytes(self.arm),
                  available=memory.available_bytes(self.stage.model.device))  # fmt: skip

    def attempt(self) -> None:
        """The largest batch foreseen to stay within the task's `within` bytes, tried, and foreseen anew from that."""
        points, within = list(self.points), self.task["within"]
        for _ in range(TRIES):
            made = memory.fit(points)
            if made is None:
                return  # a row that compiles was metered at one batch alone
            batch = made.largest_batch(within, POINT_STEPS)
            if batch < 1:
                one = memory.human(made.peak(1, POINT_STEPS))
                raise UsageError(f"not one image fits within {memory.human(within)}; it takes {one}")
            peak = self._point(batch)[-1]
            self.emit(event="attempt", row=self.contender.name, batch=batch, within=within,
                      foreseen=made.peak(batch, POINT_STEPS), peak=peak)  # fmt: skip
            if NEARLY * within <= peak <= within:
                return
            points.append([batch, POINT_STEPS, peak])

    def start_snapshot(self) -> None:
        """Let the CUDA allocator remember what it does from here on."""
        torch.cuda.memory._record_memory_history()
        self.meter.is_recorded = True

    def keep_snapshot(self) -> None:
        """Write what the allocator did, for PyTorch's viewer (pytorch.org/memory_viz)."""
        path = f"{self.task['snapshot']}/{self.contender.name}.pickle"
        torch.cuda.memory._dump_snapshot(path)
        torch.cuda.memory._record_memory_history(enabled=None)
        self.emit(event="snapshot", row=self.contender.name, path=path)

    def evidence(self) -> None:
        """A few profiled steps: what ran, and what the contender's proofs make of it."""
        positions = self._positions(PROFILED_STEPS)
        noise = self.arm.noise(1, self.stage.batch)
        drawn = noise if self.arm.sampler.draws else MarkedNoise(noise)
        self.tally.clear()
        cuda = self.stage.model.device.type == "cuda"
        self.layouts.clear()
        self.looking = True
        loop = Loop(len(positions), cuda)
        with profiled(cuda) as profile, native_calls() as natives:
            self.arm.advance(self.stage.x, positions[:1] + positions, drawn, loop)
        self.looking = False
        counts = dict(self.tally.counts.get(self.contender.name, {}))
        if counts.get("replays"):
            profile.products = self.captured.products(counts["steps"], captured_steps(self.arm))
        convolutions, pointwise = self._convolutions()
        seen = evidence.Seen(
            batch=self.stage.batch, counts=counts,
            asked_steps=self.workload.steps, timesteps=self.workload.timesteps, path_steps=self.arm.steps,
            loop_steps=loop_steps(self.arm, self.stage), guided_steps=self._guided_steps(),
            products=profile.products, convolutions=convolutions, pointwise=pointwise,
            kernels={**profile.kernels, **natives}, nhwc=(sum(self.layouts), len(self.layouts)), copies=profile.copies,
            launches=profile.launches, graph_launches=profile.graph_launches,
            kept_bytes=getattr(self, "kept_bytes", None), table_bytes=memory.table_bytes(self.arm), cuda=cuda,
        )  # fmt: skip
        findings = evidence.judge(self.contender.engaged, seen)
        self.emit(event="evidence", row=self.contender.name, where="inspection", seen=seen.json(),
                  findings=[list(f) for f in findings])  # fmt: skip
        self.emit(event="profile", row=self.contender.name, steps=loop.steps,
                  guided=sum(self.arm.guided[i] for i in positions), **profile.json())  # fmt: skip

    def _check_fit(self, model: Model) -> None:
        """Unfit where guidance is limited to noise levels at which the few steps of a short path never are."""
        path = self.contender.path(model, self.workload.steps)
        try:
            check_guided(self.contender.variant, path, self.workload.guidance)
        except UsageError as error:
            raise Unfit(str(error)) from None

    def _guided_steps(self) -> int | None:
        """Of the row's own path, where it limits guidance, and there is any."""
        if self.contender.variant.guides_everywhere or self.arm.condition is None or self.arm.guidance == 1:
            return None
        return sum(self.arm.guided)

    def _convolutions(self) -> tuple[int, int]:
        """How many of them a call of the network takes, and how many of those are 1×1."""
        model, condition = self.stage.model, self.stage.condition
        layers = [m for m in model.network.modules() if isinstance(m, nn.Conv2d)]
        pointwise = sum(m.kernel_size == (1, 1) for m in layers)
        if self.workload.own is None:
            return len(layers), pointwise
        # somebody else's network may leave some of its layers out, use one twice, or have no layer for one
        t = torch.zeros(self.stage.batch, dtype=torch.long, device=model.device)
        with torch.inference_mode(), profiled(cuda=False) as profile:
            model.network(self.stage.x, t, None if condition is None else condition.value)
        return sum(count for kind, *_, count in profile.products if kind == "convolution"), pointwise

    def _triton_work(self) -> AbstractContextManager[TritonWork]:
        """Only where our Triton kernels run: importing Triton takes a second."""
        return triton_work() if self.stage.model.device.type == "cuda" else nullcontext(TritonWork())

    def compare(self) -> None:
        """Run the variant and the reference on the same short path and noise, and report how far apart they end."""
        of_a_kind = self.contender.path is full_path or self.contender.probed_on_its_path
        if self.contender.textbook or not of_a_kind:
            return
        probe(self.stage, self.arm, self.workload.seed, self.emit)

    def same_noise(self) -> None:
        """Layer 1 of quality: how far the row leaves a float64 run on the same noise, at every step of a short path."""
        if self.workload.same_noise and not self.contender.textbook and self.contender.loop is None:
            found = same_noise.of_contender(self.stage, self.contender, self.arm.sampler)
            self.emit(event="divergence", row=self.contender.name, **found.json())

    def whole(self) -> None:
        """One whole run: it must come to its end, with pictures that are finite."""
        start = time.perf_counter()
        x = self.arm.advance(self.stage.x, list(range(self.arm.steps)), self.arm.noise(1, self.stage.batch))
        if not bool(torch.isfinite(x).all()):
            raise ValueError("its pictures hold NaN or infinity after a whole run")
        self.emit(event="whole", row=self.contender.name, steps=self.arm.steps, seconds=time.perf_counter() - start)

    def start(self) -> None:
        """Wall seconds until the row is ready, from loading the weights on, and then of a step; with no meter on."""
        began = time.perf_counter()
        stage, arm = self._loaded()
        stage.first_call_s(arm)
        ready_s, noise, seconds = time.perf_counter() - began, arm.noise(1, stage.batch), []
        for i in range(STRETCHES):  # spread over the path; long enough that what a call takes beside its steps is small
            first = i * arm.steps // STRETCHES
            self.emit(event="doing", text=f"stretch {i + 1} of {STRETCHES}", row=self.contender.name, phase="run")
            positions = list(range(first, min(first + STRETCH, arm.steps)))
            start = time.perf_counter()
            arm.advance(stage.x, positions, noise)
            _wait_for(stage.model.device)
            seconds.append((time.perf_counter() - start) / len(positions))
        self.emit(event="start", row=self.contender.name, ready_s=ready_s, step_s=fmean(seconds), steps=arm.steps)

    def _loaded(self) -> tuple[Stage, Arm]:
        model = load_model(self.workload.model, self.workload.device)
        stage = Stage(self.workload, model, self.workload.batch)
        return stage, stage.arm(self.contender)

    def draw(self) -> None:
        """As many batches as the task says, of the last one its share of steps; timed from loading the weights on."""
        start = time.perf_counter()
        stage, arm = self._loaded()
        left = max(1, round(self.task["batches"] * arm.steps))
        while left > 0:
            self.emit(event="doing", text=f"drawing, {left:,} steps left", row=self.contender.name, phase="run")
            arm.advance(stage.x, list(range(min(left, arm.steps))), arm.noise(left, stage.batch))
            left -= arm.steps
        _wait_for(stage.model.device)
        self.emit(event="drawn", row=self.contender.name, batches=self.task["batches"],
                  seconds=time.perf_counter() - start)  # fmt: skip

    def roof(self) -> None:
        """What the device can do at most, and what the network asks of it an image; the same for every row."""
        model = load_model(self.workload.model, self.workload.device)
        batch = self.workload.batch
        stage = Stage(self.workload, model, batch)
        t = torch.zeros(batch, dtype=torch.long, device=model.device)
        asked = roof.work(model.network, stage.x, t, None if stage.condition is None else stage.condition.value)
        self.emit(event="roof", **roof.measure(model.device),
                  **{f"{name}_an_image": value / batch for name, value in asked.items()})  # fmt: skip

    def _memory(self, phase: str, usage: Usage, in_the_loop: int) -> None:
        self.emit(event="memory", row=self.contender.name, phase=phase, live_peak=usage.live_peak,
                  live_after=usage.live_after, held=usage.held, graph_pools=usage.graph_pools, driver=usage.driver,
                  parts=memory.parts(usage, self.static, in_the_loop))  # fmt: skip

    def _foresee(self, model) -> None:
        """Refuse, before it is tried, a batch that the machine's memory would not hold (a CPU has no second chance)."""
        batch, lanes = self.workload.batch, self.task.get("lanes", 1)
        if batch < FORESEE_FROM or model.device.type == "cuda":
            return
        needed, had = self._peak(model, batch), memory.available_bytes(model.device) / lanes
        if needed > had:
            raise UsageError(memory.out_of_memory(batch, needed, had))

    def needed(self) -> float | None:
        """Bytes that the batch would take, foreseen from small ones after it did not fit; lets go of what was built."""
        self.stage = self.arm = None  # type: ignore[assignment]
        gc.collect()
        if self.model is None:
            return None  # not even the weights fitted
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            return self._peak(self.model, self.workload.batch)
        except Exception as error:
            if not memory.is_out_of_memory(error):
                raise
            return None  # small ones do not fit either

    def _peak(self, model, batch: int) -> float:
        """Foreseen from small batches of the variant run eagerly."""
        self._sketch(model, 1, 1)  # what a first call alone asks for would hide what an image adds
        made = memory.fit([self._sketch(model, b, steps) for b, steps in ((4, 1), (16, 1), (4, 2))])
        return made.peak(batch, 2) if made else 0.0

    def _sketch(self, model, batch: int, steps: int) -> list[float]:
        """One metered point of the variant run eagerly."""
        eager = replace(self.contender, variant=replace(self.contender.variant, runtime=runtime.eager))
        stage = Stage(self.workload, model, batch)
        arm = stage.arm(eager)
        with self.meter.watch() as usage:
            arm.advance(stage.x, list(range(min(steps, arm.steps))), arm.noise(0, batch))
        return [batch, steps, usage.live_peak + usage.workspace]

    def _point(self, batch: int) -> list[float]:
        """(batch, steps, peak bytes) of the row alone at another batch."""
        model = self.stage.model
        stage, arm, static = memory.build(
            self.meter, lambda: Stage(self.workload, model, batch), lambda s: s.arm(self.contender), self.weights
        )  # fmt: skip
        stage.first_call_s(arm)
        noise = arm.noise(1, batch)
        with self.meter.watch() as usage:
            arm.advance(stage.x, self._positions(POINT_STEPS), noise)
        tensors = static.weights + static.state + usage.live_peak - usage.live_before
        return [batch, POINT_STEPS, tensors + usage.workspace]

    def _held(self, positions: list[int]) -> int | None:
        """Peak of what the process holds, in a run that no profiler makes heavier; None on CUDA, where none does."""
        if self.stage.model.device.type == "cuda":
            return None
        forget_peak()
        self._advance(positions)
        return self.meter.held_peak()

    def _advance(self, positions: list[int]) -> torch.Tensor:
        return self.arm.advance(self.stage.x, positions, self.arm.noise(1, self.stage.batch))

    def _positions(self, steps: int) -> list[int]:
        """So many positions spread evenly over the row's own path (some twice on a shorter one)."""
        return [int((i + 0.5) * self.arm.steps / steps) for i in range(steps)]

    def _is_eager(self) -> bool:
        return self.contender.variant.runtime is runtime.eager

    def _watch_layouts(self, network: nn.Module) -> None:
        def look(module: nn.Module, inputs: Any, out: torch.Tensor) -> None:
            if torch.compiler.is_compiling():
                return
            ambiguous = out.shape[1] == 1 or out.shape[2:].numel() == 1  # both layouts are the same
            if self.looking and not ambiguous:
                self.layouts.append(out.is_contiguous(memory_format=torch.channels_last))

        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(look)


LOOKS = ("first_call", "scaling", "evidence", "compare", "same_noise")
ALONE = ("roof",)  # looked at once, while nothing else runs


def other_batches(batch: int) -> tuple[int, int, int]:
    """At which the peak is metered too: larger ones, but of a large batch smaller ones, for they take their time."""
    if batch > LARGE_BATCH:
        return 1, batch // 4, batch // 2
    return (1, 2 * batch, 4 * batch) if batch > 1 else (2, 4, 8)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def probe(stage: Stage, arm: Arm, seed: int, emit) -> None:
    """How far an arm ends from the reference on the same short path and noise."""
    noise, path = PhiloxNoise(seed, range(stage.batch)), arm.probe_path
    truth = stage.arm(CONTENDERS[REFERENCE]).probe(stage.x, noise, path)
    error = (arm.probe(stage.x, noise, path) - truth).abs()
    emit(event="probe", row=arm.contender.name, largest=float(error.max()), rms=float(error.square().mean().sqrt()))


def captured_steps(arm: Arm) -> int:
    """Steps that lie in the graphs of the arm's own walks; 0 where it has none, or they are PyTorch's."""
    walks = {id(walk): walk for walk in (arm.sampler.guided, arm.sampler.conditional)}
    return sum(getattr(walk, "captured_steps", 0) for walk in walks.values())


def loop_steps(arm: Arm, stage: Stage) -> int:
    """How many steps the row's loop really takes of its path, counted with walks (or a network) that do nothing."""
    taken = 0

    def call(x: torch.Tensor, *_: Any) -> torch.Tensor:
        nonlocal taken
        taken += len(x) // stage.batch  # a call of two batches is guided
        return x

    def walk(state: State, leg: Leg, after: AfterStep) -> State:
        nonlocal taken
        taken += len(leg.timesteps)
        return state

    if arm.contender.textbook or arm.contender.loop is not None:
        calls = 1 if arm.condition is None or arm.guidance == 1 else 2
        hollow = replace(arm, model=replace(arm.model, network=call), tally=None)  # type: ignore[arg-type]
    else:
        calls = 1
        hollow = replace(arm, sampler=replace(arm.sampler, guided=walk, conditional=walk), tally=None)
    hollow.advance(stage.x, list(range(arm.steps)), arm.noise(0, stage.batch))
    return taken // calls


@contextmanager
def native_calls() -> Iterator[Counter[str]]:
    """Calls of our C++ kernels inside, by name: no profiler sees them."""
    counts: Counter[str] = Counter()
    module = sys.modules.get("kernels.native")
    functions = {n: f for n, f in vars(module).items() if n.startswith("native_") and callable(f)} if module else {}

    def counted(name: str, function):
        def call(*arguments, **options):
            counts[name] += 1
            with record_function(UPDATE):
                return function(*arguments, **options)

        return call

    for name, function in functions.items():
        setattr(module, name, counted(name, function))
    try:
        yield counts
    finally:
        for name, function in functions.items():
            setattr(module, name, function)
