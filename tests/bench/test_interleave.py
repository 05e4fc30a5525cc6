"""Slices and pairs, on networks that do nothing but let a made-up clock run."""

import itertools
import random
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bench.clock import CpuClock
from bench.contenders import Contender
from bench.interleave import WARM_STEPS, Arm, Stage, time_pair
from bench.workload import workload
from sampler import precision, schedule
from sampler.graphs import Graphed
from sampler.models import Model
from sampler.noise import PhiloxNoise
from sampler.posterior import posterior, posterior_of
from sampler.runtime import one_by_one
from sampler.trajectory import dpmpp_2m, spaced
from sampler.variants import EVERYWHERE, LIMITED, Update, Variant, drawn_update
from tests.sampler.taped import taped_capture

TICK = Fraction(1)


class Clock(CpuClock):
    """Time that passes only when told to; the wall runs three times as fast."""

    def __init__(self):
        self.now, self.marks = Fraction(0), 0
        super().__init__(self._read, lambda: 3 * self.now)

    def _read(self):
        self.marks += 1
        return self.now


class Network(nn.Module):
    """Predicts zeros; a call takes one tick."""

    def __init__(self, clock: Clock):
        super().__init__()
        self.clock, self.seen = clock, []

    def forward(self, x, t, condition):
        self.seen.append(int(t[0]))
        self.clock.now += TICK
        return torch.zeros_like(x)


def stage_on(clock: Clock, classes: int = 10, **given) -> Stage:
    model = Model("none", Network(clock), (1, 2, 2), schedule.linear(), classes=classes, null_label=classes)
    return Stage(workload("quick", **given), model, 2)


def slowed(stage: Stage, clock: Clock, name: str, ticks: int) -> Arm:
    """An arm whose update takes so many ticks a step, beside the network's."""

    def apply(x, *rest):
        clock.now += ticks * TICK
        return posterior(x, *rest)

    return stage.arm(Contender(name, "planted", Variant(name, update=Update(lambda: apply))))


def test_a_pair_never_swaps_its_results_and_its_order_is_a_fair_coin() -> None:
    clock = Clock()
    stage = stage_on(clock, classes=0)
    arms = [slowed(stage, clock, name, ticks) for name, ticks in (("one", 4), ("other", 9))]
    order: list[str] = []
    for arm in arms:
        timed = arm.time_slice
        arm.time_slice = lambda *a, name=arm.contender.name, timed=timed: (order.append(name), timed(*a))[1]
    noises = [arm.noise(1, 2) for arm in arms]

    def run(seed: int) -> list[bool]:
        rng, firsts = random.Random(seed), []
        for _ in range(200):
            order.clear()
            pair = time_pair(*arms, stage.x, noises, clock, rng)
            assert (pair["reference_s"], pair["row_s"]) == (5, 10)
            assert (pair["reference_wall_s"], pair["row_wall_s"]) == (15, 30)
            assert order == (["one", "other"] if pair["reference_first"] else ["other", "one"])
            firsts.append(pair["reference_first"])
        return firsts

    firsts = run(0)
    assert 75 <= sum(firsts) <= 125  # 3.5 standard deviations of a fair coin
    runs = sum(a != b for a, b in itertools.pairwise(firsts))
    assert 72 <= runs <= 127  # neither alternating nor in blocks
    assert run(0) == firsts
    assert run(1) != firsts


def test_a_slice_is_steps_untimed_and_then_the_timed_ones() -> None:
    clock = Clock()
    stage = stage_on(clock, classes=0, slice_steps=5)
    arm = slowed(stage, clock, "one", 0)
    network = stage.model.network
    began = clock.now
    decisive, wall = arm.time_slice(stage.x, arm.noise(1, 2), clock, random.Random(0))
    assert clock.now - began == WARM_STEPS + 5  # more steps were taken,
    assert (decisive, wall) == (1, 3)  # five were timed, by two marks
    assert clock.marks == 2
    assert len(set(network.seen[: WARM_STEPS + 1])) == 1  # than those: the first timed step, again and again


def test_a_slice_is_looked_at_while_it_warms_up_and_not_while_it_is_timed() -> None:
    clock = Clock()
    stage = stage_on(clock, classes=0, slice_steps=5)
    one, other = (slowed(stage, clock, name, 0) for name in ("one", "other"))
    marks_at_peek = []
    pair = time_pair(one, other, stage.x, [one.noise(1, 2)] * 2, clock, random.Random(0),
                     lambda: marks_at_peek.append(clock.marks))  # fmt: skip
    assert marks_at_peek == [0, 2]  # before the first mark of either slice
    assert (pair["reference_s"], pair["row_s"]) == (1, 1)


@pytest.mark.parametrize(("step_s", "warm_steps"), [(0.3, 2), (0.01, 2), (0.0099, 3), (0.004, 5), (1e-4, 8)])
def test_a_short_step_is_warmed_up_for_more_often(step_s: float, warm_steps: int) -> None:
    clock = Clock()
    stage = stage_on(clock, classes=0)
    arm = stage.arm(Contender("one", "planted", Variant("one")))
    arm.warm_for(step_s)
    began = clock.now
    assert arm.time_slice(stage.x, arm.noise(1, 2), clock, random.Random(0)) == (1, 3)
    assert clock.now - began == warm_steps + 1


def on_a_gpu(arm: Arm) -> Arm:
    """As if its model were there; nothing but `warm_for` asks."""
    return replace(arm, model=SimpleNamespace(device=torch.device("cuda")))  # type: ignore[arg-type]


@pytest.mark.parametrize(("step_s", "steps"), [(0.2, 1), (0.004, 2), (5e-4, 10), (3e-4, 17), (1e-5, 50)])
def test_on_a_gpu_a_slice_lasts_long_enough_to_hide_that_it_begins_on_an_idle_device(step_s: float, steps: int) -> None:
    """At least 10 steps, or 5 ms, of every kind of step; in whole graphs, and in true proportion."""
    stage = stage_on(Clock())
    arm = on_a_gpu(stage.arm(Contender("one", "planted", Variant("one"))))
    arm.warm_for(step_s)
    assert (arm.slice_steps, arm.warm_steps) == (steps, WARM_STEPS)
    assert steps >= 10 or steps * step_s >= 5e-3
    arm.warm_for(10.0)
    assert arm.slice_steps == steps  # never fewer than it had
    five = on_a_gpu(replace(stage.arm(Contender("five", "planted", Variant("five"))), at_once=5))
    five.warm_for(step_s)
    assert five.slice_steps == 5 * -(-steps // 5)
    limited = on_a_gpu(stage.arm(Contender("limited", "planted", Variant("limited", guided_between=LIMITED))))
    limited.warm_for(step_s)
    assert limited.slice_steps % 5 == 0
    assert steps <= 0.4 * limited.slice_steps < steps + 2  # the guided ones are the fewer


@pytest.mark.parametrize("textbook", ["", "ddpm", "strided"])
def test_every_loop_is_sliced_alike(textbook: str) -> None:
    clock = Clock()
    stage = stage_on(clock, classes=0, slice_steps=5)
    arm = stage.arm(Contender("one", "planted", Variant("one"), textbook=textbook))
    for seed in range(20):
        stage.model.network.seen.clear()
        assert arm.time_slice(stage.x, arm.noise(1, 2), clock, random.Random(seed)) == (1, 3)
        seen = stage.model.network.seen
        warming, timed = seen[:WARM_STEPS], seen[WARM_STEPS:]
        assert set(warming) == {timed[0]}
        gaps = [a - b for a, b in itertools.pairwise(timed)]
        assert gaps == [200] * 4


def test_slices_of_limited_guidance_hold_its_exact_share_of_guided_steps() -> None:
    clock = Clock()
    stage = stage_on(clock)
    arm = stage.arm(Contender("limited", "planted", Variant("limited", guided_between=LIMITED)))
    assert sum(arm.guided) == 400
    for seed in range(300):  # a guided step calls the network twice: 2 of 5 guided make 7 calls
        assert arm.time_slice(stage.x, arm.noise(1, 2), clock, random.Random(seed))[0] == Fraction(7, 5)


def test_a_slice_of_a_solver_with_memory_reads_what_the_step_before_it_made() -> None:
    """Wherever the slice lies: its untimed steps make the first estimate, and no timed one is without."""
    clock, read = Clock(), []

    def watched(state, out, z, row):
        made = posterior_of(state, out, z, row)
        read.append((float(row[6]) != 0, None if not read else state.before is read[-1][2], made.before))
        return made

    stage = stage_on(clock, classes=0, slice_steps=4)
    row = Contender("remembers", "planted", Variant("remembers", update=Update(lambda: watched, remembers=True)),
                    lambda model, steps: dpmpp_2m(model.schedule, spaced(model.schedule, 50, "logsnr")))  # fmt: skip
    arm = stage.arm(row)
    for seed in range(20):
        read.clear()
        arm.time_slice(stage.x, arm.noise(1, 2), clock, random.Random(seed))
        weighs, true = ([one[i] for one in read] for i in (0, 1))
        assert len(read) == WARM_STEPS + 4
        assert not weighs[0]  # nothing was before it
        assert all(true[1:])
        assert all(weighs[WARM_STEPS:-1])  # of a path, only the first and the last step have no history


def test_what_a_change_between_kinds_of_steps_costs_is_in_no_slice() -> None:
    """A whole run changes twice in a thousand steps; a slice of five that paid for it would show the row too slow."""
    clock = Clock()
    stage = stage_on(clock)

    def runtime(step):
        def walk(x, leg, after):
            clock.now += 100  # caches are cold after the other kind
            return one_by_one(step)(x, leg, after)

        return walk

    way = Variant("limited", guided_between=LIMITED, runtime=runtime)
    arm = stage.arm(Contender("limited", "planted", way))
    for seed in range(50):
        assert arm.time_slice(stage.x, arm.noise(1, 2), clock, random.Random(seed))[0] == Fraction(7, 5)


@pytest.mark.parametrize(("steps", "slice_steps"), [(20, 5), (50, 5), (50, 7), (3, 5), (1, 5), (1000, 1)])
def test_slices_cover_the_whole_trajectory_evenly(steps: int, slice_steps: int) -> None:
    clock = Clock()
    stage = stage_on(clock, classes=0, steps=steps, slice_steps=slice_steps)
    arm = stage.arm(Contender("one", "planted", Variant("one")))
    visits: Counter[int] = Counter()
    rng, slices = random.Random(0), 400
    taken: list[list[int]] = []

    def advance(x, positions, noise, after_step):
        taken.append(positions)
        for i in range(len(positions)):
            after_step(i, x)

    arm.advance = advance
    for _ in range(slices):
        arm.time_slice(stage.x, None, clock, rng)
    k = min(slice_steps, steps)
    for positions in taken:
        warming, timed = positions[:WARM_STEPS], positions[WARM_STEPS:]
        assert set(warming) == {timed[0]}
        assert len(timed) == k
        assert len(set(timed)) == k
        assert 0 <= timed[0] < steps / k
        assert all(steps // k <= b - a <= -(-steps // k) for a, b in itertools.pairwise(timed))
        visits.update(timed)
    if steps <= 50:
        mean = slices * k / steps
        assert all(abs(visits[i] - mean) <= 4.5 * mean**0.5 for i in range(steps))
    else:  # its positions in the four quarters of the path
        quarters = Counter(i * 4 // steps for i in visits.elements())
        assert all(70 <= quarters[q] <= 130 for q in range(4))


def test_one_variant_is_built_once_for_rows_that_differ_in_the_path() -> None:
    stage = stage_on(Clock())
    variant = Variant("shared")
    one, other = (stage.arm(Contender(n, "planted", variant)) for n in ("one", "other"))
    assert one.sampler is other.sampler


@pytest.mark.parametrize("loop", ["ddpm", "strided", ""])
def test_every_loop_that_claims_float32_runs_without_tensorfloat_32(loop: str) -> None:
    """cuDNN's own default is on: a baseline that used it would be another one."""
    stage, seen = stage_on(Clock(), classes=0), []

    def forward(x, t, condition):
        seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        return torch.zeros_like(x)

    stage.model.network.forward = forward
    arm = stage.arm(Contender("one", "planted", Variant("one"), textbook=loop))
    with precision.tf32(stage.model.network).context():
        arm.advance(stage.x, [0, 1], arm.noise(0, 2))
        assert torch.backends.cudnn.allow_tf32  # as it was
    assert seen == [(False, False)] * 2


def five_in_a_graph(clock: Clock, tapes: list) -> tuple[Stage, Arm]:
    stage = stage_on(clock, classes=0, slice_steps=1)
    stage.model.network.forward = lambda x, t, condition: torch.zeros_like(x)  # looks at no value, as a capture asks
    way = Variant("five", update=drawn_update, runtime=lambda step: Graphed(step, 5, taped_capture(tapes)))
    return stage, stage.arm(Contender("five", "planted", way))


def test_after_the_first_call_nothing_is_left_to_capture() -> None:
    """Neither the graph over five steps nor the one that takes what is left over."""
    clock, tapes = Clock(), []
    stage, arm = five_in_a_graph(clock, tapes)
    stage.first_call_s(arm)
    assert len(tapes) == 2
    arm.advance(stage.x, list(range(23)), PhiloxNoise(1, range(2)))
    assert len(tapes) == 2


def test_where_guidance_is_limited_each_kind_of_step_is_timed_by_whole_graphs_too() -> None:
    clock = Clock()
    stage = stage_on(clock, slice_steps=1)
    stage.model.network.forward = lambda x, t, condition: torch.zeros_like(x)
    way = Variant("five", update=drawn_update, guided_between=LIMITED,
                  runtime=lambda step: Graphed(step, 5, taped_capture([])))  # fmt: skip
    arm = stage.arm(Contender("five", "planted", way))
    arm.time_slice(stage.x, PhiloxNoise(1, range(2)), clock, random.Random(0))
    assert arm.slice_steps == 25
    assert arm.sampler.guided.replays == WARM_STEPS + 2  # ten of the 25 are guided: two graphs
    assert arm.sampler.conditional.replays == WARM_STEPS + 3


@pytest.mark.parametrize(("steps", "between"), [(20, LIMITED), (13, LIMITED), (3, EVERYWHERE), (4, EVERYWHERE)])
def test_whole_graphs_are_timed_where_the_steps_make_no_whole_number_of_them(steps: int, between) -> None:
    """More are taken than were asked for, and count as those that were: here every step takes one tick."""
    clock = Clock()
    stage = stage_on(clock, steps=steps, slice_steps=1)

    class FiveAtOnce:
        steps = 5

        def __call__(self, x, leg, after):
            single, several = len(leg.timesteps) % 5, len(leg.timesteps) // 5
            position = leg.first - 1
            for length in [1] * single + [5] * several:
                clock.now += length
                position += length
                after(position, x.x)
            return x

    way = Variant("five", update=drawn_update, guided_between=between, runtime=lambda step: FiveAtOnce())
    arm = stage.arm(Contender("five", "planted", way))
    for seed in range(30):
        assert arm.time_slice(stage.x, PhiloxNoise(1, range(2)), clock, random.Random(seed)) == (1, 3)


@pytest.mark.parametrize(("between", "walks"), [(EVERYWHERE, [3, 0]), (LIMITED, [3, 3])])
def test_a_first_call_takes_three_steps_of_each_kind(between, walks: list[int]) -> None:
    """`reduce-overhead` warms up in a first, records in a second, and is ready for the third."""
    taken = [0, 0]

    def counting(at: int):
        def runtime(step):
            def run(x, *rest):
                taken[at] += 1
                return x

            return one_by_one(run)

        return runtime

    made = itertools.count()
    stage = stage_on(Clock())
    way = Variant("counted", guided_between=between, runtime=lambda step: counting(next(made))(step))
    stage.first_call_s(stage.arm(Contender("counted", "planted", way)))
    assert taken == walks


def test_a_graph_over_five_steps_is_timed_by_whole_ones() -> None:
    """Slices of one step would replay only the graph of one that takes what is left over."""
    clock, tapes = Clock(), []
    stage, arm = five_in_a_graph(clock, tapes)
    assert arm.slice_steps == 5
    arm.time_slice(stage.x, PhiloxNoise(1, range(2)), clock, random.Random(0))
    assert arm.sampler.guided.captures == 2
    assert arm.sampler.guided.replays == WARM_STEPS + 1  # the steps that warm the caches, and the five that are timed
