"""Workers without processes: what each is ordered, and what it answers, is a function's to say."""

import os
from collections.abc import Callable, Iterator
from typing import Any

Event = dict[str, Any]
Script = Callable[["FakeWorker", Event], Iterator[Event]]


class FakeCrew:
    """Starts workers that follow a script; who yields an event 'died' is dead. Stands for `Worker`, as `start`."""

    def __init__(self, script: Script):
        self.script, self.started = script, list[FakeWorker]()
        self.ready = os.open(os.devnull, os.O_RDONLY)  # of which something can always be read

    def __call__(self, task: dict, number: int, module: str = "bench.worker", patience: Any = None) -> "FakeWorker":
        self.started.append(FakeWorker(self, task, number))
        return self.started[-1]

    def orders(self, do: str) -> list[tuple[int, Event]]:
        """Every order of a kind: who got it, and what it was."""
        return [(w.number, order) for w in self.started for order in w.orders if order.get("do") == do]


class FakeWorker:
    _ended, _unread = False, b""

    def __init__(self, crew: FakeCrew, task: dict, number: int):
        self.crew, self.task, self.number = crew, task, number
        self.dead = self.busy = self.ended = False
        self.orders: list[Event] = []

    def fileno(self) -> int:
        return self.crew.ready

    def begin(self, order: Event) -> None:
        assert not self.dead, "an order to the dead"
        assert not any(other.busy for other in self.crew.started) or order.get("do", "build") == "build"
        self.orders.append(order)
        self.busy, self.events = True, iter(self.crew.script(self, order))

    def hear(self, within_s: float) -> Event | None:
        event = next(self.events, None)
        self.dead |= event is not None and event["event"] == "died"
        self.busy = event is not None and not self.dead
        return event

    def obey(self, order: Event) -> Iterator[Event]:
        self.begin(order)
        while self.busy:
            if (event := self.hear(1.0)) is not None:
                yield event

    def end(self) -> None:
        self.ended = True


def died(row: str | None, signal: int = 0, **more: Any) -> Event:
    return {"event": "died", "doing": row, "signal": signal, "message": f"signal {signal}", **more}


def hung(row: str | None) -> Event:
    return died(row, silent_s=120.0) | {"message": "no answer in 120 s during its first call"}
