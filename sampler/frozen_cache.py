"""Let PyTorch's compiler keep code whose weights are frozen, as it keeps all other code.

Inductor finds compiled graphs again by content, those with frozen weights too: the key holds their shapes, the entry
their names, and each process puts its own weights in (PyTorch #136505). But a weight that oneDNN packed, as those of
convolutions are on a CPU, is turned away, for it cannot be pickled (#117888), although of a frozen one nothing but its
shape is; so every process compiled anew, for this project's network some ten seconds longer than need be.
"""

from functools import cache

from torch import Tensor


@cache
def keep_packed_weights() -> None:
    """Take packed frozen weights into the keys by their shape, in this process, from now on.

    Where this PyTorch lacks what is replaced here (it is not public), nothing is: code is compiled every time.
    """
    from torch._inductor import codecache, freezing_utils

    pickler = getattr(codecache, "FxGraphCachePickler", None)
    validator = getattr(codecache, "CacheabilityValidator", None)  # younger than 2.11: it looks first
    frozen = getattr(freezing_utils, "is_frozen_param", None)
    reduce = getattr(pickler, "_reduce_tensor", None)
    if reduce is None or frozen is None:
        return

    def reduce_packed(self, tensor: Tensor):
        if not (tensor.is_mkldnn and frozen(tensor)):
            return reduce(self, tensor)
        return tuple, (("packed by oneDNN", tuple(tensor.shape), str(tensor.dtype), str(tensor.device)),)

    pickler._reduce_tensor = reduce_packed  # type: ignore[union-attr]
    if (check := getattr(validator, "check_tensor", None)) is not None:

        def check_packed(tensor: Tensor) -> None:
            if not (tensor.is_mkldnn and frozen(tensor)):
                check(tensor)

        validator.check_tensor = staticmethod(check_packed)  # type: ignore[union-attr]
