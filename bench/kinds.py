"""What an operator or a kernel is, by its name: the kind of operation, and whether it multiplies in TensorFloat-32."""

import re
from collections.abc import Mapping

KINDS = (  # the first that fits
    (
        "compiled kernels",
        r"^triton_",
    ),  # Inductor names a kernel after all that is fused in it: a convolution's bias, say
    ("noise", r"normal_|::rand|_rand|philox|distribution_elementwise"),
    # before convolutions: cuDNN's attention is an 'sdpa' with an 'fprop' in its name
    ("attention", r"attention|softmax|flash|fmha|sdpa"),
    # before convolutions: cuDNN's changes of layout
    (
        "layout",
        r"nchwToNhwc|nhwcToNchw|convertTensor|copy_|::cat|contiguous|clone|reorder|CatArray|pixel_|upsample|^Mem(cpy|set)",
    ),
    ("convolution", r"conv|implicit_gemm|wgrad|dgrad|winograd|fprop"),
    ("matrix product", r"addmm|::mm|bmm|::linear|_linear|gem[mv]|cublas|cutlass|nvjet"),
    # group norm on CUDA: the moments, their fusion with weight and bias, and an elementwise kernel of that name
    ("normalisation", r"norm|var_mean|welford|moments|ComputeFusedParams"),
    ("update", r"posterior"),
)
# CUTLASS calls the instruction s1688 where float32 is multiplied by way of TensorFloat-32, with or without saying so;
# on Turing it is one of half precision, which says so
TF32 = re.compile(r"tf32|s1688(?!.*(f16|fp16|bf16|h884))", re.IGNORECASE)


def kind_of(name: str) -> str:
    for kind, pattern in KINDS:
        if re.search(pattern, name, re.IGNORECASE):
            return kind
    return "elementwise"


def in_tf32(kernels: Mapping[str, int]) -> int:
    """How many of the kernels that ran, counted by name, used the matrix units for TensorFloat-32."""
    return sum(count for name, count in kernels.items() if TF32.search(name))
