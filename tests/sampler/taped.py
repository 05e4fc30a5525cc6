"""A CUDA graph's stand-in on a CPU: it records the tensor operations of a capture and replays them, not the Python."""

from collections.abc import Callable

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sampler import graphs

READS_A_VALUE = ("aten.item", "_local_scalar_dense", "lift_fresh", "nonzero")  # a wait, or a copy from the host


class Tape(TorchDispatchMode):
    """Records every operation with the very tensors it read and wrote; like a capture, allows none from the host."""

    def __init__(self):
        super().__init__()
        self.operations: list[tuple] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(name in str(function) for name in READS_A_VALUE):
            raise RuntimeError(f"operation not permitted when stream is capturing: {function}")
        out = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        """The same operations on the same memory; what was a number in Python then is still that number."""
        for function, args, kwargs, out in self.operations:
            memory = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
            for old, new in zip(tree_leaves(out), tree_leaves(function(*args, **kwargs)), strict=True):
                if (
                    isinstance(old, Tensor) and old.untyped_storage().data_ptr() not in memory
                ):  # else a view, or in place
                    old.copy_(new)


def taped_capture(tapes: list[Tape]) -> graphs.Capture:
    """What `graphs.cuda_capture` is on a GPU: warm-up calls, then one that is recorded."""

    def capture(work: Callable[[], None], x: Tensor) -> graphs.Replay:
        for _ in range(graphs.WARM_UPS):
            work()
        tape = Tape()
        with tape:
            work()
        tapes.append(tape)
        return tape.replay

    return capture
