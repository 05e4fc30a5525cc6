"""Let PyTorch's compiler find code with frozen weights again, by the weights themselves.

Inductor turns a graph away whose frozen weights oneDNN has packed, as those of convolutions are on a CPU, for they
cannot be pickled (PyTorch #117888): every process compiles anew, for this project's network some ten seconds longer
than need be. Those that are not packed enter its key by their shapes alone (#136505). But code may hold more of them
than that: the value of a scalar, one name for two that share their memory, what was packed while it was generated. And
nothing in the key tells of the CPU, for whose vectors code is written. So here a frozen weight enters by its bytes and
beside the CPU's instructions: code serves the very weights and the kind of CPU that it was made for, no others.
"""

import ctypes
import hashlib
from functools import cache

import torch
from torch import Tensor
from torch.fx import GraphModule, Node


@cache
def keep_frozen_code() -> None:
    """Take frozen weights into the keys by their bytes, in this process, from now on.

    Where this PyTorch lacks what is replaced here (it is not public), nothing is, and frozen code is compiled anew.
    """
    from torch._inductor import codecache

    try:
        from torch._inductor.cpu_vec_isa import pick_vec_isa
        from torch._inductor.freezing_utils import is_frozen_param
    except ImportError:
        return
    pickler = getattr(codecache, "FxGraphCachePickler", None)
    validator = getattr(codecache, "CacheabilityValidator", None)  # younger than 2.11: it looks before the pickler does
    reduce = getattr(pickler, "_reduce_tensor", None)
    check = vars(validator).get("check_tensor") if validator else None
    if pickler is None or reduce is None or not (validator is None or isinstance(check, staticmethod)):
        return

    begin = pickler.__init__

    def begin_with(self, gm: GraphModule, *arguments, **options) -> None:
        begin(self, gm, *arguments, **options)
        self.digests = dict.fromkeys(packed_by_mkl(gm), "")

    def reduce_frozen(self, tensor: Tensor):
        if not is_frozen_param(tensor):
            return reduce(self, tensor)
        try:
            if id(tensor) not in self.digests:
                self.digests[id(tensor)] = digest(tensor)
            isa = str(pick_vec_isa()) if tensor.device.type == "cpu" else ""
        except Exception as error:  # of a layout that is not known here: compiled anew, as without all this
            raise codecache.BypassFxGraphCache("frozen weights that cannot be read") from error
        form = str(tensor.dtype), tuple(tensor.shape), str(tensor.device), str(tensor.layout), _strides(tensor)
        return tuple, ((*form, isa, torch.get_num_threads(), self.digests[id(tensor)]),)

    def check_unfrozen(tensor: Tensor) -> None:
        if not is_frozen_param(tensor):
            check.__func__(tensor)  # type: ignore[union-attr]

    pickler.__init__, pickler._reduce_tensor = begin_with, reduce_frozen
    if validator is not None:
        validator.check_tensor = staticmethod(check_unfrozen)


def digest(tensor: Tensor) -> str:
    """SHA-256 of the bytes of a tensor [...], as it lies in memory if oneDNN has packed it; none if quantized."""
    if tensor.is_quantized:
        raise ValueError("the bytes of a quantized tensor are not all of it")
    if tensor.is_mkldnn:
        place, length = torch.ops.mkldnn.data_ptr(tensor), torch.ops.mkldnn._nbytes(tensor)
        return hashlib.sha256((ctypes.c_char * length).from_address(place)).hexdigest()
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()


def packed_by_mkl(gm: GraphModule) -> set[int]:
    """Ids of the weights that MKL packed: they lie in a buffer with room to spare, whose bytes nobody has set.

    mkl._mkl_linear(x, packed, weight, bias, batch) has the weight it was made from beside it, which has a digest.
    """
    calls = [node.args[1:3] for node in getattr(getattr(gm, "graph", None), "nodes", ()) if _is_mkl_linear(node)]
    beside = [packed for packed, weight in calls if {getattr(a, "op", "") for a in (packed, weight)} == {"get_attr"}]
    return {id(getattr(gm, packed.target, None)) for packed in beside} - {id(None)}


def _is_mkl_linear(node: Node) -> bool:
    return str(node.target).startswith("mkl._mkl_linear") and len(node.args) > 2


def _strides(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.stride()) if tensor.layout == torch.strided else ()
