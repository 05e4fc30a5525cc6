"""What the tuner measures: the kernel behind a sleep, and nothing of what keeps the state; on a made-up device."""

from functools import partial

import pytest
import torch

from kernels.tuning import CALLS, SLICES, device_ms, kept


class Device:
    """Launches take the host 0.1 ms each; the device runs them one after another, and sleeps when it is told to."""

    LAUNCH_S = 1e-4

    def __init__(self, kernel_s: float):
        self.kernel_s, self.host_s, self.free_s, self.log = kernel_s, 0.0, 0.0, []

    def Event(self, enable_timing: bool):
        device = self

        class Event:
            def record(self):
                self.at_s = max(device.host_s, device.free_s)

            def synchronize(self):
                device.host_s = max(device.host_s, self.at_s)

            def elapsed_time(self, stop):
                return (stop.at_s - self.at_s) * 1e3

        return Event()

    def synchronize(self):
        self.log.append("idle")
        self.host_s = max(self.host_s, self.free_s)

    def _sleep(self, cycles: int):
        self.free_s = max(self.host_s, self.free_s) + cycles / 2e9

    def launch(self):
        self.log.append("call")
        self.host_s += self.LAUNCH_S
        self.free_s = max(self.host_s, self.free_s) + self.kernel_s


@pytest.mark.parametrize("kernel_s", [2e-6, 1e-4, 2e-3])
def test_a_kernel_is_timed_and_not_its_launches(kernel_s: float) -> None:
    """However much longer a launch takes than what it starts; after all that came before has ended."""
    device = Device(kernel_s)
    found = device_ms(device.launch, (0.5, 0.2, 0.8), device, lambda: device.host_s)
    assert found == pytest.approx([kernel_s * 1e3] * 3)
    assert device.log[0] == "idle"
    timed = device.log.count("call") - 1 - 2 * CALLS[0]
    assert SLICES * CALLS[0] <= timed <= SLICES * CALLS[1]


def test_quantiles_are_of_the_slices() -> None:
    device, made = Device(1e-4), iter(range(100))
    device.Event = lambda enable_timing: _Lasting(next(made))  # type: ignore[method-assign]
    low, median, high = device_ms(device.launch, (0.0, 0.5, 1.0), device, lambda: device.host_s)
    assert low < median < high


class _Lasting:
    def __init__(self, number: int):
        self.number = number

    def record(self):
        pass

    def synchronize(self):
        pass

    def elapsed_time(self, stop):
        return float(self.number)


def test_the_state_is_what_it_was_even_where_a_configuration_cannot_run() -> None:
    state = torch.arange(4.0)
    with kept(state):
        state.mul_(torch.nan)
    assert state.tolist() == [0, 1, 2, 3]

    def break_it() -> None:
        with kept(state):
            state.zero_()
            raise ValueError("too many registers")

    with pytest.raises(ValueError, match="too many registers"):
        break_it()
    assert state.tolist() == [0, 1, 2, 3]


def test_our_kernel_is_tuned_by_that_and_keeps_its_state_outside_of_what_is_timed(monkeypatch) -> None:
    """Triton's own tuner calls it for every configuration, with the arguments of the call that it chooses for."""
    pytest.importorskip("triton")
    from kernels import posterior_kernel

    tuner, state, kept, seen = posterior_kernel.posterior, torch.ones(3), torch.ones(3), []

    def device_ms(call, quantiles):
        seen.append(state.tolist())
        call()
        return [1.0, 1.0, 1.0]

    monkeypatch.setattr(posterior_kernel, "device_ms", device_ms)
    for memory in (None, kept):
        # set when it is called
        monkeypatch.setattr(tuner, "nargs", {"destination": state, "x0": memory}, raising=False)
        for _ in posterior_kernel.configurations():
            written = [state] if memory is None else [state, memory]
            call = partial(torch._foreach_add_, written, 1)
            assert tuner.do_bench(call, quantiles=(0.5, 0.2, 0.8)) == [1.0, 1.0, 1.0]
    assert all(found == [1.0] * 3 for found in seen)
    assert state.tolist() == kept.tolist() == [1.0] * 3
    assert not tuner.restore_value
