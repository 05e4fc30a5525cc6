"""One side's worker: imports model and rows from its own tree, and is driven line by line by the harness.

The harness hands this very file over, so it imports nothing of the house but what stands in the tree it is told, and
`child.py` beside it: a base without the harness, or with an older one, is driven alike. Protocol 1: one JSON object a
line each way.

    -> (first argument) {"tree", "folder", "model", "shape", "batch", "device", "threads", "steps", "guidance", "plant"}
    <- {"protocol": 1, "rows": {name: why it cannot run, or ""}, "python", "torch"}
    -> {"do": "build", "row"}                   <- {"first_call_s", "call_s", "steps", "graphs"}
    -> {"do": "slice", "row", "seed", "calls"}  <- {"cpu_s", "wall_s", "idle_cpu_s", "shape", "output", "mutated",
                                                    "repeated"}
    -> {"do": "inspect", "row"}                 <- {"peak_bytes", "resident_bytes", "heavy": {dtype: operations}}

`cpu_s` is a slice by the deciding clock (process CPU time; on a GPU, device events); `output` is what the timed
calls gave, float32 in base64; `mutated`: the calls changed their inputs; `repeated`: they gave what they had given
for another seed; `idle_cpu_s` is what the process spent while it should have been waiting. A fault is answered by
{"error": one sentence}. The worker ends when its standard input does.
"""

import base64
import contextlib
import functools
import gc
import hashlib
import importlib.util
import inspect
import json
import random
import sys
import time
from pathlib import Path

PROTOCOL = 1
MOST_NUMBERS = 1 << 16  # of an output that is sent whole; of a larger one, so many places drawn from the seed
KEPT_STATES = 8


def main(task):
    child = _child()
    child.die_with_parent()
    say, requests = child.answers(), child.orders()
    tree = Path(task["tree"])
    folder = tree / task.get("folder", "")
    places = dict.fromkeys((folder, folder / "src", tree, tree / "src"))
    sys.path[0:1] = [str(place) for place in places if place.is_dir()]
    try:
        import torch

        torch.set_num_threads(task["threads"])
        rows = FactoryRows(task, tree) if task["model"] else HouseRows(task, tree)
        say(protocol=PROTOCOL, rows=rows.names(), python=sys.version.split()[0], torch=torch.__version__)
    except BaseException as error:
        say(error=sentence(error))
        raise
    gc.disable()
    desk = Desk(rows)
    while True:
        say(**desk.answer(requests.get()))


class Desk:
    """Answers one request after another, and sees what the process spends in between, when it should be idle."""

    def __init__(self, rows):
        self.rows, self.idle_from = rows, time.process_time()

    def answer(self, request):
        idle_cpu_s = time.process_time() - self.idle_from
        try:
            return {"idle_cpu_s": idle_cpu_s, **DEEDS[request.pop("do")](self.rows, **request)}
        except Exception as error:  # any fault of the tree's code is its row's, told in one sentence
            return {"error": sentence(error)}
        finally:
            self.idle_from = time.process_time()


def _build(rows, row):
    """Build a row and call it: the first call compiles, the next ones say what a call costs."""
    from torch._dynamo.utils import counters

    graphs, start = counters["stats"]["unique_graphs"], time.perf_counter()
    rows.build(row)
    rows.prepare(row, 0, 1)[0]()
    first_call_s = time.perf_counter() - start
    call, _ = rows.prepare(row, 1, 4)
    start = time.perf_counter()
    call()
    rows.clock.settle()
    call_s = (time.perf_counter() - start) / 4
    graphs = counters["stats"]["unique_graphs"] - graphs
    return {"first_call_s": first_call_s, "call_s": call_s, "steps": rows.steps_of(row), "graphs": graphs}


def _slice(rows, row, seed, calls):
    """Time `calls` calls of a row on inputs drawn from the seed."""
    timed, inputs = rows.prepare(row, seed, calls)
    kept = [value.clone() for value in inputs]
    gc.collect(0)
    start = rows.clock.mark()
    output = timed()
    cpu_s, wall_s = rows.clock.between(start, rows.clock.mark())
    answer = encoded(output, seed)
    digest = hashlib.blake2b(answer["output"].encode()).digest()
    earlier = rows.answers.setdefault(row, {}).setdefault(digest, seed)
    mutated = not all(bool((a == b).all()) for a, b in zip(inputs, kept))
    return {"cpu_s": cpu_s, "wall_s": wall_s, "mutated": mutated, "repeated": earlier != seed, **answer}


HEAVY = ("conv", "mm", "linear", "attention")  # operators in whose names one of these stands do the work


def _inspect(rows, row):
    """Untimed: bytes of live tensors at the peak of a steady call and before it; heavy operations by type."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    call, _ = rows.prepare(row, 2, 1)
    call()
    gc.collect()
    found = {"resident_bytes": _resident_bytes(torch)}
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, record_shapes=True) as seen:
        call()
    events = list(seen.profiler.kineto_results.events())
    found["heavy"] = _heavy(events)
    if rows.device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return {**found, "peak_bytes": torch.cuda.max_memory_allocated() - before, "resident_bytes": before}
    live = peak = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return {**found, "peak_bytes": peak}


def _heavy(events):
    """How many convolutions, matrix products and attentions ran, by the type of their first tensor.

    Operators call one another (linear calls addmm; autocast casts in between): only the innermost are counted.
    """
    heavy = [e for e in events if "::" in e.name() and any(word in e.name() for word in HEAVY)]
    heavy.sort(key=lambda e: (e.start_thread_id(), e.start_ns(), -e.duration_ns()))
    found: dict[str, int] = {}
    for event, following in zip(heavy, [*heavy[1:], None]):
        inside = following is not None and following.start_thread_id() == event.start_thread_id()
        if inside and following.start_ns() < event.start_ns() + event.duration_ns():
            continue  # it calls the one that follows
        kind = next((kind for kind in event.dtypes() if kind), "unknown")
        found[kind] = found.get(kind, 0) + 1
    return found


DEEDS: dict = {"build": _build, "slice": _slice, "inspect": _inspect}


def _resident_bytes(torch):
    """Of all tensors that live, views counted once."""
    seen = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter):
            if thing.is_mkldnn:  # packed for oneDNN (frozen weights are): it has no storage to ask
                seen[id(thing)] = thing.numel() * thing.element_size()
            else:
                storage = thing.untyped_storage()
                seen[storage.data_ptr()] = storage.nbytes()
    return sum(seen.values())


class CpuClock:
    """Process CPU time decides: it counts every thread of the process."""

    def mark(self):
        return time.process_time(), time.perf_counter()

    def between(self, start, stop):
        return stop[0] - start[0], stop[1] - start[1]

    def settle(self):
        pass


class CudaClock:
    """Device events decide; a mark waits for every stream of the device, so no work escapes to another one."""

    def mark(self):
        import torch

        torch.cuda.synchronize()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event, time.perf_counter()

    def between(self, start, stop):
        stop[0].synchronize()
        return start[0].elapsed_time(stop[0]) / 1e3, stop[1] - start[1]

    def settle(self):
        import torch

        torch.cuda.synchronize()


class HouseRows:
    """The rows of a tree that holds this house: its own contenders around its own sampler."""

    def __init__(self, task, tree):
        contenders = _own("bench.contenders", tree)
        _own("sampler", tree)
        from sampler.models import load_model

        self.device, self.batch = task["device"], task["batch"]
        self.clock = CudaClock() if self.device.startswith("cuda") else CpuClock()
        self.contenders = dict(contenders.CONTENDERS)
        if task.get("plant"):
            self.contenders.update({c.name: c for c in importlib.import_module(task["plant"]).CONTENDERS})
        self.steps, self.model = task["steps"], load_model(task["name"], self.device)
        import torch

        labels = torch.arange(self.batch) % self.model.classes if self.model.classes else None
        self.condition = self.model.condition(labels)
        self.guidance = task["guidance"] if self.condition is not None else 1.0
        self.built, self.samplers, self.answers = {}, {}, {}

    def steps_of(self, row):
        """How many steps the row takes in all."""
        return len(self._timesteps(row))

    def _timesteps(self, row):
        from sampler import textbook

        trajectory = self.built[row][1]
        kind = getattr(self.contenders[row], "textbook", "")
        if kind == "ddpm":
            return list(range(self.model.schedule.steps - 1, -1, -1))
        if kind == "strided":
            return list(textbook.textbook_strided_timesteps(self.model.schedule, trajectory.steps))
        return list(trajectory.timesteps)

    def names(self):
        return {name: contender.unavailable(self.device) for name, contender in self.contenders.items()}

    def build(self, row):
        from sampler.variants import build

        contender = self.contenders[row]
        name = contender.variant.name
        if name not in self.samplers:
            self.samplers[name] = build(contender.variant, self.model.network, self.condition, self.guidance)
        self.built[row] = self.samplers[name], contender.path(self.model, self.steps)

    def prepare(self, row, seed, calls):
        """A function that takes `calls` steps, spread evenly over the row's trajectory from a drawn offset.

        With it come its inputs, which it must leave as they are.
        """
        import torch

        from sampler import textbook
        from sampler.noise import GeneratorNoise, PhiloxNoise
        from sampler.variants import run

        sampler, trajectory = self.built[row]
        kind = getattr(self.contenders[row], "textbook", "")
        timesteps = self._timesteps(row)
        positions = spread(len(timesteps), calls, seed)
        philox = PhiloxNoise(seed, range(self.batch))
        like = torch.empty(self.batch, *self.model.shape, device=self.model.device)
        x = philox.draw(self.model.schedule.steps, like)
        noise = GeneratorNoise(torch.Generator(self.model.device).manual_seed(seed))
        if not kind:
            path = trajectory.at(positions)
            return lambda: run(sampler, x, path, philox if sampler.draws else noise), [x]
        loop = textbook.textbook_ddpm
        if kind == "strided":
            loop = functools.partial(textbook.textbook_strided, steps=trajectory.steps)

        def timed():
            return loop(
                self.model.network, x, self.model.schedule, noise, self.condition, self.guidance,
                timesteps=[timesteps[i] for i in positions],
            )  # fmt: skip

        return timed, [x]


class FactoryRows:
    """The rows of any other tree: what `package.module:factory` makes, called as it is and, if asked for, compiled.

    The factory returns a `sampler.Model`; or a callable, which with `shape` is called as model(x) or model(x, t),
    x [batch, *shape] normal and t [batch] in 0…999; or (callable, inputs); floating inputs are drawn anew each time.
    """

    def __init__(self, task, tree):
        import torch

        module, _, factory = task["model"].partition(":")
        self.device = task["device"]
        self.clock = CudaClock() if self.device.startswith("cuda") else CpuClock()
        torch.manual_seed(0)  # a model with random weights gets the same on both sides
        made = getattr(_own(module, tree), factory)()
        self.model, inputs = made if isinstance(made, tuple) else (made, None)
        if hasattr(made, "network") and hasattr(made, "schedule"):  # a `sampler.Model`, as its other commands take
            self.model, inputs = made.network, _inputs_of(made, task["batch"])
        if not callable(self.model):
            raise TypeError(f"{task['model']} returned {type(self.model).__name__}; it must return something callable")
        if isinstance(self.model, torch.nn.Module):
            self.model.eval().to(self.device)
        if inputs is None:
            if not task["shape"]:
                raise ValueError(f"{task['model']} returns no inputs, so --shape must say what one sample looks like")
            x = torch.empty(task["batch"], *task["shape"])
            t = torch.zeros(task["batch"], dtype=torch.long)
            inputs = (x, t) if _takes_two(self.model) else (x,)
        self.inputs = [v.to(self.device) if isinstance(v, torch.Tensor) else v for v in inputs]
        self.draws_t = len(inputs) == 2 and made is self.model
        self.built, self.answers = {}, {}

    def names(self):
        return {"model": "", "compiled": ""}

    def steps_of(self, row):
        return 1

    def build(self, row):
        import torch

        self.built[row] = self.model if row == "model" else torch.compile(self.model, dynamic=False)

    def prepare(self, row, seed, calls):
        import numpy
        import torch

        rng = numpy.random.Generator(numpy.random.Philox(key=seed))
        lots = []
        for _ in range(min(calls, KEPT_STATES)):
            lot = []
            for value in self.inputs:
                if isinstance(value, torch.Tensor) and value.is_floating_point():
                    drawn = torch.from_numpy(rng.standard_normal(tuple(value.shape), dtype=numpy.float32))
                    value = drawn.to(value)
                elif self.draws_t:
                    value = torch.from_numpy(rng.integers(0, 1000, tuple(value.shape))).to(value)
                lot.append(value)
            lots.append(lot)
        call = self.built[row]

        def timed():
            with torch.inference_mode():
                return [call(*lots[i % len(lots)]) for i in range(calls)]

        return timed, [value for lot in lots for value in lot if isinstance(value, torch.Tensor)]


def _inputs_of(record, batch):
    """x, t and labels for the network of a model's record, the timesteps spread over its schedule."""
    import torch

    t = torch.linspace(0, record.schedule.steps - 1, batch).long()
    labels = torch.arange(batch) % record.classes if record.classes else None
    return torch.empty(batch, *record.shape), t, labels


def spread(steps, calls, seed):
    """`calls` of `steps` positions, ascending and evenly spread from an offset drawn from the seed."""
    calls = min(calls, steps)
    offset = random.Random(seed).random() * steps / calls
    return [min(steps - 1, int(offset + i * steps / calls)) for i in range(calls)]


def encoded(output, seed):
    """An output's shape and numbers; of a large one, places drawn from the seed.

    Only a plain tensor is taken: any other may do its work when it is read, after the clock has stopped.
    """
    import torch

    for one in map(_tensor, output if isinstance(output, list) else [output]):
        if type(one) is not torch.Tensor:
            raise TypeError(f"it returned {type(one).__name__}, not a plain tensor: it may work only when it is read")
    if isinstance(output, list):
        output = torch.stack([_tensor(o).detach().float() for o in output])
    flat = output.detach().reshape(-1).to("cpu", torch.float32)
    if flat.numel() > MOST_NUMBERS:
        places = torch.randint(flat.numel(), (MOST_NUMBERS,), generator=torch.Generator().manual_seed(seed))
        flat = flat[places]
    return {"shape": list(output.shape), "output": base64.b64encode(flat.numpy().tobytes()).decode()}


def sentence(error):
    """An exception in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def _own(name, tree):
    """Import a module, and refuse one that does not come from the tree."""
    module = importlib.import_module(name)
    places = [module.__file__] if module.__file__ else list(module.__path__)
    if not all(Path(place).resolve().is_relative_to(tree.resolve()) for place in places):
        raise ImportError(f"{name} was imported from {places[0]}, not from the tree under test, {tree}")
    return module


def _takes_two(model):
    model = getattr(model, "_orig_mod", model)  # of a compiled one, whose own signature says nothing
    call = getattr(model, "forward", model)
    with contextlib.suppress(ValueError):
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        given = [p for p in inspect.signature(call).parameters.values() if p.kind in kinds]
        return len([p for p in given if p.default is p.empty]) == 2
    return False


def _tensor(output):
    import torch

    while not isinstance(output, torch.Tensor):
        if hasattr(output, "sample") and not callable(output.sample):  # diffusers' way of returning
            output = output.sample
        elif isinstance(output, (tuple, list)) and output:
            output = output[0]
        else:
            raise TypeError(f"the model returned {type(output).__name__}; a tensor, or a tuple that starts with one")
    return output


def _child():
    """`bench/child.py` as it stands beside this file, whatever the tree under test holds."""
    made = importlib.util.spec_from_file_location("ddpm_bench_child", Path(__file__).parents[1] / "child.py")
    assert made is not None and made.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
