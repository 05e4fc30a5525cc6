"""What a row costs beside its step: first call, break-even, memory; derived from a measurement's events."""

import math
from dataclasses import dataclass
from typing import Any

from bench import memory
from bench.contenders import CONTENDERS, REFERENCE
from bench.kinds import in_tf32
from bench.measurement import Measurement, Row
from bench.roof import WINOGRAD
from bench.students_t import Interval, mean_interval

FIRST_CALL_PARTS = ("load_s", "compile_s", "autotune_s", "capture_s")


@dataclass(frozen=True)
class Cost:
    """The whole cost of one row; what was not looked at is None."""

    row: Row

    def _event(self, kind: str, **where: Any) -> dict[str, Any] | None:
        found = [e for e in self.row.measurement.of(kind, self.row.name) if where.items() <= e.items()]
        return found[-1] if found else None

    @property
    def first_call(self) -> dict[str, float]:
        """Seconds of the parts of the first call that are known apart."""
        event = self._event("first_call") or {}
        return {part: event[part] for part in FIRST_CALL_PARTS if part in event}

    @property
    def image_s(self) -> float | None:
        """Seconds an image; of the reference's whole run and the measured ratio, which shares its minutes."""
        reference = self.row.measurement.row(REFERENCE).whole_run_s
        if reference is None or self.row.speedup is None:
            return None
        return reference / self.row.speedup.value / self.row.measurement.workload.batch

    def break_even(self, over: "Cost") -> float | None:
        """From how many images on this row is the cheaper of the two, first calls included; inf: never."""
        mine, theirs = self.row.first_call_s, over.row.first_call_s
        if None in (mine, theirs, self.image_s, over.image_s):
            return None
        saved_s = over.image_s - self.image_s  # type: ignore[operator]
        dearer_s = mine[0] - theirs[0]  # type: ignore[index]
        if saved_s <= 0:
            return 0.0 if dearer_s < 0 and saved_s == 0 else math.inf
        return max(0.0, dearer_s / saved_s)

    @property
    def break_even_over_reference(self) -> float | None:
        return self.break_even(Cost(self.row.measurement.row(REFERENCE)))

    @property
    def break_even_over_uncompiled(self) -> float | None:
        """Over the fastest row that changes no picture and compiles nothing."""
        return self.break_even(Cost(best_uncompiled(self.row.measurement)))

    def phase(self, phase: str) -> dict[str, Any] | None:
        return self._event("memory", phase=phase)

    @property
    def fit(self) -> memory.Fit | None:
        """How the peak grows; None also where only one batch was metered (each would compile anew)."""
        event = self._event("memory_scaling")
        return memory.fit(event["points"]) if event else None

    @property
    def per_step_bytes(self) -> float | None:
        event = self._event("memory_scaling")
        if not event:
            return None
        (_, few, least), (_, many, most) = event["points"][:2]
        return (most - least) / (many - few)

    @property
    def largest_batch(self) -> int | None:
        """The largest batch foreseen to fit into the memory that was free."""
        event = self._event("memory_scaling")
        return None if self.fit is None or not event else self.fit.largest_batch(event["available"], self.row.steps)

    @property
    def attempt(self) -> dict[str, Any] | None:
        """The largest batch that was tried and stayed within the given memory."""
        tried = self.row.measurement.of("attempt", self.row.name)
        return max((e for e in tried if e["peak"] <= e["within"]), key=lambda e: e["batch"], default=None)

    @property
    def profile(self) -> dict[str, Any] | None:
        return self._event("profile")

    @property
    def launches_a_step(self) -> float | None:
        """Kernels and graphs launched (CUDA) or operators called (CPU) from the host in a step."""
        if self.profile is None:
            return None
        return (self.profile["launches"] + self.profile.get("graph_launches", 0)) / self.profile["steps"]

    @property
    def kinds_ms(self) -> dict[str, float]:
        """Milliseconds a step by kind of operation, with the profiler's own cost in them."""
        if self.profile is None:
            return {}
        return {kind: us / 1e3 / self.profile["steps"] for kind, us in self.profile["by_kind_us"].items()}

    @property
    def gap_share(self) -> float | None:
        """Share of the loop in which the device waited for the host; None where there is no device."""
        gaps_us = (self.profile or {}).get("gaps_us")
        return None if gaps_us is None else gaps_us / self.profile["span_us"]  # type: ignore[index]

    @property
    def update_share(self) -> float | None:
        """Share of a step that the update takes: by Amdahl's law no fused one can save more.

        On a device its own time and the gaps in which the device waited for the host to launch it. None in steps that
        are compiled or captured as a whole, unless its kernel is one of ours.
        """
        if self.profile is None:
            return None
        update_us = self.profile.get("update_us", self.profile["by_kind_us"].get("update"))
        return update_us / self.profile["span_us"] if update_us else None

    @property
    def number_format(self) -> str | None:
        """The format of most convolutions: 'tf32' where kernels multiply float32 by way of it."""
        seen = (self._event("evidence", where="inspection") or {}).get("seen", {})
        products = [p for p in seen.get("products", []) if p[0] == "convolution"]
        if not products:
            return None
        of_most = max(products, key=lambda p: p[3])[1]
        return "tf32" if of_most == "float32" and in_tf32(seen.get("kernels", {})) else of_most

    @property
    def _roof(self) -> dict[str, Any]:
        found = self.row.measurement.of("roof")
        return found[-1] if found else {}

    @property
    def flop_an_image(self) -> float | None:
        """Floating-point operations of the network calls that an image takes, as the definition counts them."""
        if self.profile is None or not self._roof:
            return None
        calls_a_step = 1 + self.profile["guided"] / self.profile["steps"]
        return self._roof["flop_an_image"] * calls_a_step * self.row.steps

    @property
    def roof_share(self) -> float | None:
        """Achieved over attainable matrix rate, in the row's number format."""
        rate = self._roof.get("matrix_flop_per_s", {}).get(self.number_format)
        if rate is None or self.flop_an_image is None or self.image_s is None:
            return None
        return self.flop_an_image / self.image_s / rate

    @property
    def implausible(self) -> str:
        """Why the row is faster than the device allows, or ''."""
        if self.roof_share is not None and self.roof_share > WINOGRAD:
            return f"implausible: {self.roof_share:.1f} times the matrix rate measured here"
        floor_ms = (self.launches_a_step or 0) * self._roof.get("call_us", 0.0) / 1e3
        if self.row.step_ms is not None and self.row.step_ms < floor_ms:
            return f"implausible: its launches alone take {floor_ms:.2f} ms a step"
        return ""

    @property
    def disturbed(self) -> tuple[int, int] | None:
        """Slices during which the machine was throttled or busy with others, and all; None where nobody watched."""
        pairs = self.row.pairs
        if not self.row.measurement.watched:
            return None
        return sum(bool(p.get("disturbed")) for p in pairs), len(pairs)

    @property
    def energy_an_image_j(self) -> Interval | None:
        """Joules an image with its 95 % interval over the parts of whole runs, where the device counts energy."""
        parts = [e for e in self.row.measurement.of("segment", self.row.name) if e.get("energy_j")]
        a_step = [e["energy_j"] / e["steps"] for e in parts]
        images = self.row.measurement.workload.batch
        return mean_interval([j * self.row.steps / images for j in a_step]) if a_step else None

    @property
    def findings(self) -> list[tuple[bool, str]]:
        """What the proofs found, in the inspection and then on the timed calls (summed over processes)."""
        events = self.row.measurement.of("evidence", self.row.name)
        inspected = [e for e in events if e["where"] == "inspection"]
        return [(ok, text) for e in inspected for ok, text in e["findings"]]

    @property
    def timed_steps(self) -> int:
        """Steps on whose calls the proofs were checked while they were timed."""
        events = self.row.measurement.of("evidence", self.row.name)
        return sum(e["seen"]["counts"].get("steps", 0) for e in events if e["where"] == "timed")

    @property
    def evidence(self) -> str:
        """In one line."""
        if not self.findings:
            return "–"
        text = "; ".join(text if ok else f"NOT SHOWN: {text}" for ok, text in self.findings)
        return text + (f"; checked on {self.timed_steps:,} timed steps" if self.timed_steps else "")


def best_uncompiled(measurement: Measurement) -> Row:
    """The fastest row that changes no picture, of those that would compile nothing even without any cache."""
    return measurement.fastest(
        "uncompiled", lambda row: not (Cost(row).first_call.get("compile_s") or _compiles(row.name))
    )


def _compiles(name: str) -> bool:
    """Whether the row's technique is to compile, as far as it is one of ours."""
    return name in CONTENDERS and bool(CONTENDERS[name].compiles)
