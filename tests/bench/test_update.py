"""The update's benchmark: what is timed is checked, timing by a made-up clock, the figure from stored data."""

import itertools
import json
import random
from math import prod
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench import store
from bench.__main__ import main
from bench.test_update_cost import NAMES
from bench.update import command, figure, record, sweep, ways
from bench.update import cost as update_cost
from bench.update.cost import AGAINST
from bench.update.record import Point, UpdateCost
from bench.update.ways import COPY, MEMORY, OWN_NOISE, READS_NOISE, WAYS, Inputs, Way, unavailable, verify
from bench.workload import workload
from kernels import native
from sampler.errors import UsageError
from sampler.posterior import posterior
from tests.bench.synthetic import ENVIRONMENT, first_call, measurement, pairs

CPU = torch.device("cpu")
COMPILED = {"compiled", "compiled + randn"}
HERE = [name for name, way in WAYS.items() if not unavailable(way, CPU) and name not in COMPILED]


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return Inputs.draw((9, 2, 5, 7), CPU)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) for n in COMPILED] + HERE)
def test_every_way_is_the_definition(name: str, inputs: Inputs) -> None:
    verify(WAYS[name], WAYS[name].make(CPU), inputs)


def test_a_way_for_another_device_says_so() -> None:
    assert unavailable(WAYS["fused"], CPU) == "needs cuda"
    assert unavailable(WAYS["native"], torch.device("cuda")) == "needs cpu"


def test_bytes_that_cannot_be_avoided() -> None:
    """x, the output and perhaps the noise in, the next state out, four bytes each; with memory one more either way."""
    assert (COPY, OWN_NOISE, READS_NOISE, MEMORY) == (2 * 4, 3 * 4, 4 * 4, 2 * 4)
    for name, way in WAYS.items():
        if name != "copy" and "fed" not in name:
            noise = READS_NOISE if name in ("eager", "compiled", "native", "fused") else OWN_NOISE
            assert way.bytes_per_element == noise + MEMORY * ("memory" in name)


WRONG = {
    "off by a little": lambda i: posterior(i.x, i.out, i.z, i.row) + 1e-3,
    "nothing is written": lambda i: i.destination,
    "the middle is not written": lambda i: posterior(i.x, i.out, i.z, i.row).index_fill(
        0, torch.tensor([4]), torch.nan
    ),
    "the last sample is wrong": lambda i: posterior(i.x, i.out, i.z, i.row).index_fill(0, torch.tensor([8]), 0.5),
    "one in the middle is wrong": lambda i: posterior(i.x, i.out, i.z, i.row).index_fill(0, torch.tensor([4]), 0.5),
    "without the noise": lambda i: posterior(i.x, i.out, torch.zeros_like(i.z), i.row),
}


@pytest.mark.parametrize("at_once", [1, 3 * 70, 2**22])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_way_gets_no_figure(name: str, at_once: int, inputs: Inputs, monkeypatch) -> None:
    """However many samples are checked at a time."""
    monkeypatch.setattr(ways, "AT_ONCE", at_once)
    verify(WAYS["eager"], WAYS["eager"].make(CPU), inputs)
    way = Way("wrong", "", READS_NOISE, lambda device: WRONG[name], WAYS["eager"].check)
    (point,) = sweep.time_size([way], [inputs], CPU, lambda call, sets, calls: 1.0, 0.0, random.Random(0))
    assert point.seconds == []
    assert point.reason.startswith("ArithmeticError: wrong ")


class MadeUpTimer:
    """Each call takes what its way says; notes the order and how often."""

    def __init__(self, seconds: dict):
        self.seconds, self.log = seconds, []

    def __call__(self, call, sets, calls: int) -> float:
        name = call(next(sets))
        self.log.append((name, calls))
        return self.seconds[name]


def named(name: str, raises: bool = False) -> Way:
    def make(device):
        if raises:
            raise OSError("no such thing\nand more")
        return lambda inputs: name

    return Way(name, "", COPY, make)


@pytest.fixture
def unverified(monkeypatch) -> None:
    monkeypatch.setattr(sweep, "verify", lambda way, call, inputs: None)


@pytest.mark.usefixtures("unverified")
def test_rounds_are_in_random_order_until_the_budget_is_spent(inputs: Inputs, monkeypatch) -> None:
    now = itertools.count()
    monkeypatch.setattr(sweep.time, "monotonic", lambda: next(now))
    timer = MadeUpTimer({"a": 1e-5, "b": 4e-4, "c": 1.0})
    points = sweep.time_size([named(n) for n in "abc"], [inputs], CPU, timer, 10.0, random.Random(1))
    rounds = len(points[0].seconds)
    assert rounds == 5 + 10  # the fewest, and one a 'second' for the ten that are given
    assert [p.seconds for p in points] == [[1e-5] * rounds, [4e-4] * rounds, [1.0] * rounds]
    timed = timer.log[6:]  # after two warm-ups a way
    orders = {tuple(n for n, _ in timed[i : i + 3]) for i in range(0, len(timed), 3)}
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(orders) > 2
    assert dict(timed) == {"a": 100, "b": 2, "c": 1}  # calls of a slice: about a millisecond's worth


def test_the_cost_of_an_update_is_measured_of_all_that_the_benchmark_names(monkeypatch) -> None:
    pytest.importorskip("diffusers")
    if why := native.available():
        pytest.skip(why)
    monkeypatch.setattr(update_cost, "ROUNDS", 1)
    monkeypatch.setattr(update_cost, "CALLS", 1)
    found = update_cost.measure(0)
    assert set(found) == set(NAMES)
    assert {len(seconds) for seconds in found.values()} == {1}
    assert {*AGAINST, *AGAINST.values()} <= set(NAMES)


@pytest.mark.usefixtures("unverified")
def test_rounds_have_a_least_and_a_most(inputs: Inputs) -> None:
    for budget_s, rounds in ((0.0, sweep.ROUNDS[0]), (1e9, sweep.ROUNDS[1])):
        (point,) = sweep.time_size([named("a")], [inputs], CPU, MadeUpTimer({"a": 1.0}), budget_s, random.Random(0))
        assert len(point.seconds) == rounds


@pytest.mark.usefixtures("unverified")
def test_a_way_that_raises_is_a_point_with_a_reason(inputs: Inputs) -> None:
    bad, good = sweep.time_size(
        [named("bad", raises=True), named("good")], [inputs], CPU, MadeUpTimer({"good": 1.0}), 0.0, random.Random(0)
    )
    assert bad.reason == "OSError: no such thing"
    assert not bad.seconds
    assert good.seconds


def test_sets_are_cold_when_their_turn_comes_again() -> None:
    shape = (2, 3, 64, 64)
    sets = sweep.sets_of(shape, CPU, cache_bytes=2 << 20)
    assert len(sets) * 16 * prod(shape) >= sweep.CACHES * (2 << 20)
    assert len({float(s.x[0, 0, 0, 0]) for s in sets}) == len(sets)
    assert len(sweep.sets_of(shape, CPU, cache_bytes=1)) == 2
    assert all(s.destination.isnan().all() for s in sets)


def test_sizes() -> None:
    for size in (size for sizes in sweep.SIZES_MIB.values() for size in sizes):
        shape = sweep.shape_of(size)
        assert shape[1:] == (3, 64, 64)
        assert abs(4 * prod(shape) / 2**20 - size) <= 48 / 1024 / 2
    for device, largest in (("cpu", 32), ("cuda", 2048)):
        sizes = sweep.SIZES_MIB[device]
        assert (sizes[0], sizes[-1]) == (largest, 0.1)  # what time cuts off is the smallest
        assert sorted(sizes, reverse=True) == list(sizes)
    assert sweep.fits((2, 3, 64, 64), 10 << 20)
    assert not sweep.fits((20, 3, 64, 64), 10 << 20)


def test_the_device_sleeps_while_the_host_launches(monkeypatch) -> None:
    """Launches are queued behind the sleep, and the events stand after it: the host's time is not in between."""
    log = []

    class Event:
        def __init__(self, enable_timing: bool):
            assert enable_timing

        def record(self):
            log.append("event")

        def synchronize(self):
            log.append("wait")

        def elapsed_time(self, stop) -> float:
            return 6.0  # ms

    for name, value in {
        "Event": Event, "synchronize": lambda: log.append("idle"),
        "_sleep": lambda cycles: log.append(("sleep", cycles)),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    now = itertools.count(step=0.3)
    monkeypatch.setattr(sweep.time, "perf_counter", lambda: next(now))
    timer = sweep.CudaTimer()

    def call(item):
        log.append(item)

    assert timer(call, iter("abc"), 3) == pytest.approx(2e-3)
    assert log == ["idle", ("sleep", 12_000_000), "event", "a", "b", "c", "event", "wait"]
    log.clear()
    timer(call, iter("a"), 1)  # the host took 0.1 s a call: the sleep is longer now, up to its limit
    assert log[1] == ("sleep", int(timer.LONGEST_SLEEP_S * timer.CYCLES_PER_S))


def cost(step: bool = True) -> UpdateCost:
    """Two sizes; the copy moves 10 GB/s, the fused update 9, and the eager one 2; alone it is 8 times as fast."""
    sweep_points = []
    for samples in (2, 100):
        shape = (samples, 3, 64, 64)
        for way, rate in (("copy", 10), ("eager + randn", 2), ("native, drawn", 9)):
            seconds = WAYS[way].bytes_per_element * prod(shape) / rate / 1e9
            sweep_points.append(Point(way, shape, WAYS[way].bytes_per_element, [seconds * f for f in (0.9, 1, 1.1)]))
    inside = [
        Point("eager + randn", (4, 1, 28, 28), 12, [80e-6] * 3),
        Point("native, drawn", (4, 1, 28, 28), 12, [1e-5]),
    ]
    absent = [Point("diffusers", (0,), 12, reason="diffusers is not installed")]
    ratios = {process: [0.99, 0.9904, 0.9896] for process in range(4)}
    step_of = measurement(
        ["reference", "native-update"],
        [first_call("reference", 1000), first_call("native-update", 1000), *pairs("native-update", ratios, 0.02)],
    )
    return UpdateCost(
        dict(ENVIRONMENT), "2026-01-02T03:04:05+00:00", "made up", "cpu", 1 << 20, sweep_points, [*inside, *absent],
        step_of if step else None,
    )  # fmt: skip


def test_figures_of_a_point() -> None:
    made = cost()
    size = made.sizes_mib[1]
    fused = made.at(size, "native, drawn")
    assert fused is not None
    assert size == pytest.approx(100 * 48 / 1024)
    assert fused.gb_per_s == pytest.approx([10, 9, 9 / 1.1])
    assert made.share_of_copy(fused) == pytest.approx(0.9)
    assert made.at(size, "diffusers") is None


def test_a_run_is_kept_whole_and_read_again(tmp_path: Path) -> None:
    record.save(cost(), tmp_path / "update.json")
    again = record.load(tmp_path / "update.json")
    assert again.json() == cost().json()
    assert figure.png(again) == figure.png(cost())
    assert figure.table(again) == figure.table(cost())


@pytest.mark.parametrize("text", ["", "{}", '{"schema": 1}', '{"schema": 99}', "[1]"])
def test_what_is_no_run_is_refused(text: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "update.json"
    path.write_text(text)
    assert main(["update", "--again", str(path)]) == 3
    assert capsys.readouterr().err.startswith(f"error: {path}")


def test_micro_beside_end_to_end() -> None:
    """80 → 10 µs alone is 70 µs of a step of 20 ms: 1.0035 times, whatever the pairs say (here 1.0101)."""
    alone, step, image = figure.savings(cost())
    assert alone[1:3] == ((pytest.approx(80), "µs"), (pytest.approx(10), "µs"))
    assert alone[3].startswith("8.0×\n70 µs saved")
    assert step[1][0] == pytest.approx(20)
    assert step[2][0] == pytest.approx(20 * 0.99, rel=1e-4)
    assert "1.010×" in step[3]
    assert "1.004× expected of 70 µs" in step[3]
    assert step[3].endswith("\na difference")
    assert image[0] == "an image (1,000 steps, batch 4)"
    assert image[1] == (pytest.approx(20 * 1000 / 4 / 1e3), "s")
    assert image[3].startswith("50 … 50 ms saved, measured\n17.5 ms expected")
    assert figure.message(cost()) == "Fused, the update is 8.0× as fast, which saves 0.35% of a step"
    assert figure.message(cost(step=False)) == "Fused, the update is 8.0× as fast"


def test_a_step_in_which_no_difference_is_seen_says_so() -> None:
    made = cost()
    noisy = {process: [0.9 + 0.06 * process] for process in range(4)}
    made.step = measurement(
        ["reference", "native-update"], [first_call("reference", 1000), *pairs("native-update", noisy)]
    )
    assert figure.savings(made)[1][3].endswith("no difference seen")


def test_what_was_not_measured_is_not_drawn_as_if() -> None:
    made = cost()
    made.in_the_loop = made.in_the_loop[2:]
    assert figure.savings(made) == []
    assert figure.png(made)
    assert "not timed: diffusers (diffusers is not installed)" in figure.table(made)


def test_the_command_measures_keeps_and_draws(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(command, "WAYS", {name: WAYS[name] for name in ("copy", "eager", "eager + randn")})
    monkeypatch.setattr(sweep, "last_cache_bytes", lambda device: 1)
    given = ["--largest", "0.2", "--budget", "0.01", "--step-budget", "0", "--out", str(tmp_path)]
    assert main(["update", *given]) == 0
    (path,) = tmp_path.glob("*/update/update.json")
    drawn = path.with_suffix(".png").read_bytes()
    stored = json.loads(path.read_text())
    assert {p["way"] for p in stored["sweep"]} == {"copy", "eager", "eager + randn"}
    assert [p["shape"] for p in stored["in_the_loop"]] == [[4, 1, 28, 28]] * 3
    assert all(len(p["seconds"]) >= sweep.ROUNDS[0] for p in stored["sweep"])
    assert main(["update", "--again", str(path)]) == 0
    assert path.with_suffix(".png").read_bytes() == drawn
    with pytest.raises(UsageError):  # it does not pass for a measurement of the rows
        store.newest(tmp_path)
    assert "share of the copy" in capsys.readouterr().out


def test_the_step_of_a_stored_measurement(tmp_path: Path) -> None:
    made = cost().step
    assert made is not None
    extra = measurement(
        ["reference", "native-update", "ddim"], [*made.events, first_call("ddim", 50), *pairs("ddim", {0: [0.1]})]
    )
    path = store.save(extra, tmp_path)
    asked = SimpleNamespace(device="cpu", step_from=path, step_budget=0.0)
    step = command._step(asked, print, "made up")  # type: ignore[arg-type]
    assert step is not None
    assert step.rows == ["reference", "native-update"]
    assert step.events == made.events
    asked.device = "cuda"
    with pytest.raises(UsageError, match="holds no speed-up of the row 'fused-drawn'"):
        command._step(asked, print, "made up")  # type: ignore[arg-type]


def test_a_step_measured_later_is_put_beside_what_is_stored(tmp_path: Path) -> None:
    stored, later = tmp_path / "update" / "update.json", cost().step
    assert later is not None
    record.save(cost(step=False), stored)
    path = store.save(later, tmp_path)
    assert main(["update", "--again", str(stored), "--step-from", str(path)]) == 0
    assert record.load(stored).json() == cost().json()
    assert stored.with_suffix(".png").is_file()


def test_shapes_that_do_not_fit_are_left_out(monkeypatch) -> None:
    monkeypatch.setattr(command, "WAYS", {"copy": WAYS["copy"]})
    monkeypatch.setattr(sweep, "last_cache_bytes", lambda device: 1)
    monkeypatch.setattr(sweep, "free_bytes", lambda device: 14 << 20)
    made = command.measure(CPU, workload("quick"), None, 0.01, print, "made up", sizes_mib=(0.1, 8))
    assert made.sizes_mib == [pytest.approx(0.1, abs=0.03)]


def test_an_interruption_keeps_the_sizes_that_were_measured(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(command, "WAYS", {"copy": WAYS["copy"]})
    monkeypatch.setattr(sweep, "last_cache_bytes", lambda device: 1)
    timed, real = [], sweep.time_size

    def interrupted(*given):
        timed.append(given)
        if len(timed) == 3:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(sweep, "time_size", interrupted)
    given = ["--budget", "0.01", "--step-budget", "0", "--out", str(tmp_path)]
    assert main(["update", *given]) == 130
    (path,) = tmp_path.glob("*/update/update.json")
    kept = record.load(path)
    assert kept.interrupted
    assert kept.sizes_mib == [pytest.approx(32, abs=0.1)]  # the largest
    assert kept.inside("copy") is not None
    assert "interrupted" in capsys.readouterr().err
