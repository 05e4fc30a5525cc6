"""Code to paste: the `Variant` of a combination, and the same sampler in a few lines of plain PyTorch.

The plain lines do what the seams do and nothing else; a test runs them as they are and finds the same samples, and
`pytest bench/test_pasted.py --benchmark-only` times them beside the row.
"""

import shlex
from typing import NamedTuple

from bench.contenders import REFERENCE
from bench.tune.asked import Asked
from bench.tune.space import AT, BY_NAME, SEAMS, Choice
from bench.tune.space import REFERENCE as PLAIN
from bench.workload import Workload
from sampler.models import Model
from sampler.variants import LIMITED

SOURCE = {
    "channels-last": "layout=precision.channels_last",
    "tf32": "precision=precision.tf32",
    "autocast-bf16": "precision=precision.autocast(torch.bfloat16)",
    "bf16": "precision=precision.cast(torch.bfloat16)",
    "autocast-fp16": "precision=precision.autocast(torch.float16)",
    "fp16": "precision=precision.cast(torch.float16)",
    "batched": "guide=guidance.batched_cfg",
    "compiled-update": "update=variants.compiled_update",
    "native": "update=variants.native_drawn_update",
    "fused": "update=variants.fused_guided_update",
    "fused-drawn": "update=variants.fused_drawn_update",
    "fused-fed": "update=variants.fused_fed_update",
    "kernel-noise": "update=variants.kernel_noise_update",
    "compiled": "runtime=runtime.compiled",
    "frozen": "runtime=runtime.compiled_frozen",
    "graph": "runtime=graphs.graphed",
    "graph-5": "runtime=graphs.graphed_over(5)",
    "compiled-graph": "runtime=graphs.graphed_compiled",
    "limited": f"guided_between={LIMITED}",
}
FORMATS = {"bf16": "bfloat16", "autocast-bf16": "bfloat16", "fp16": "float16", "autocast-fp16": "float16"}
CAST = ("bf16", "fp16")
OURS_ALONE = ("graph", "graph-5", "compiled-graph")  # runtimes of this package that take more than a few lines


def variant(name: str) -> str:
    """The combination as this package's own `Variant`, in Python."""
    choice = _choice(name)
    parts = [SOURCE[label] for label in choice if label in SOURCE]
    needs = {SEAMS[seam][choice[i]].needs for seam, i in AT.items()} - {"", "half"}
    parts += [f'needs="{needed}"' for needed in sorted(needs)]
    text = " ".join(parts)
    modules = [m for m in ("graphs", "guidance", "precision", "runtime", "variants") if f"{m}." in text]
    lines = ["import torch", ""] if "torch." in text else []
    lines += [f"from sampler import {', '.join(modules)}"] if modules else []
    return "\n".join([*lines, "from sampler.variants import Variant", "", f'Variant("{name}", {", ".join(parts)})'
                      if parts else f'Variant("{name}")'])  # fmt: skip


def measured_again(asked: Asked, name: str) -> str:
    """The command that measures the row again; the reference is measured beside any."""
    w = asked.workload
    job = {"model": w.model, "device": w.device, "threads": w.threads, "batch": w.batch, "steps": w.steps,
           "guidance": f"{w.guidance:g}"}  # fmt: skip
    if name != REFERENCE:
        job |= {"contenders": asked.plant if name in BY_NAME else asked.contenders, "rows": name}
    return "python -m bench run " + " ".join(f"--{option} {shlex.quote(str(value))}" for option, value in job.items())


class Known(NamedTuple):
    """What the plain lines must know of a model, as `Model` has it."""

    prediction: str = "epsilon"
    guidable: bool = True
    clip: float | None = 1.0


def known_of(workload: Workload) -> Known:
    """Of a workload's model: a shipped one predicts ε, is guided and clipped."""
    own, guided = workload.own, workload.guidance != 1  # at a scale of 1 the network is called once
    return Known(guidable=guided) if own is None else Known(own.prediction, own.guidable and guided, own.clip)


def plain(name: str, model: Known | Model, device: str = "cpu") -> str:
    """The combination as plain PyTorch, for a network that is called as the model's is; '' where it takes more.

    Its sample(x, randn) takes x [B, C, H, W] of noise to samples; randn(x) gives the noise of a step.
    """
    choice = dict(zip(SEAMS, _choice(name), strict=True))
    if choice["runtime"] in OURS_ALONE or choice["update"] in ("fused", "fused-drawn", "fused-fed", "kernel-noise"):
        return ""
    guided = model.guidable
    lines = [f'"""{name}: a DDPM sampler in plain PyTorch."""', ""]
    if choice["layout"] or choice["precision"] in CAST:
        lines += ["import copy", ""]
    lines += ["import torch"]
    if choice["runtime"] == "frozen":
        lines += [
            "import torch._inductor.config",
            "",
            "torch._inductor.config.freezing = True  # weights become constants: do not change them afterwards",
        ]
    lines += ["", "", *_table(choice["path"], model), "", ""]
    lines += [f"def sampler(network, alphas_cumprod, labels,{' null_label, guidance,' * guided} steps):"]
    body = (
        _network(choice) + _predict(choice, guided) + _step(choice, device, model.clip) + _loop(choice, guided, device)
    )
    return "\n".join([*lines, *("    " + line if line else "" for line in body)]) + "\n"


def _choice(name: str) -> Choice:
    return PLAIN if name == REFERENCE else BY_NAME[name]


def _table(path: str, model: Known | Model) -> list[str]:
    """The coefficients, as `sampler.trajectory` has them."""
    kind = path.partition("/")[0]
    x0 = {"epsilon": "1 / now.sqrt(), (1 - now).sqrt() / now.sqrt()", "v": "now.sqrt(), (1 - now).sqrt()",
          "x0": "0 * now, 0 * now - 1"}[model.prediction]  # fmt: skip
    ways = {
        "": ["alpha = now / then",
             "c = then.sqrt() * (1 - alpha) / (1 - now)",
             "d = alpha.sqrt() * (1 - then) / (1 - now)",
             "sigma = ((1 - alpha) * (1 - then) / (1 - now)).sqrt()"],
        "ddim": ["c = then.sqrt() - (1 - then).sqrt() * now.sqrt() / (1 - now).sqrt()",
                 "d = (1 - then).sqrt() / (1 - now).sqrt()",
                 "sigma = 0 * now"],
        "strided": ["c, d, sigma = then.sqrt(), 0 * now, (1 - then).sqrt()"],
    }  # fmt: skip
    return [
        "def table(alphas_cumprod, timesteps):",
        '    """A row a step: x0 = clamp(a x - b out), then the next x = c x0 + d x + sigma noise."""',
        "    now = alphas_cumprod.double().cpu()[timesteps]",
        "    then = torch.cat([now[1:], torch.ones(1, dtype=torch.float64)])",
        f"    a, b = {x0}",
        *("    " + line for line in ways["" if kind == "ancestral" else kind]),
        "    return torch.stack([a, b, c, d, sigma], dim=1)",
    ]


def _network(choice: dict[str, str]) -> list[str]:
    lines = []
    if choice["layout"]:
        lines.append("network = copy.deepcopy(network).to(memory_format=torch.channels_last)")
    if choice["precision"] in CAST:
        lines.append(f"network = copy.deepcopy(network).to(torch.{FORMATS[choice['precision']]})")
    return lines


def _predict(choice: dict[str, str], guided: bool) -> list[str]:
    reads = f".to(torch.{FORMATS[choice['precision']]})" if choice["precision"] in CAST else ""
    alone = [
        "def conditional(x, t):",
        f"    return network(x{reads}, t.expand(len(x)), labels).float()",
        "",
    ]
    if not guided:
        return [*alone, "predict = conditional", ""]
    if choice["guide"]:
        both = [
            "both = torch.cat([labels, torch.full_like(labels, null_label)])",
            "",
            "def guided(x, t):  # one call of twice the batch",
            f"    out = network(torch.cat([x, x]){reads}, t.expand(2 * len(x)), both).float()",
            "    with_label, without = out.chunk(2)",
        ]
    else:
        both = [
            "null = torch.full_like(labels, null_label)",
            "",
            "def guided(x, t):",
            f"    with_label = network(x{reads}, t.expand(len(x)), labels).float()",
            f"    without = network(x{reads}, t.expand(len(x)), null).float()",
        ]
    both += ["    return without + guidance * (with_label - without)", ""]
    return [*both, *(alone if choice["guided_between"] else [])]


def _step(choice: dict[str, str], device: str, clip: float | None) -> list[str]:
    clamp = "" if clip is None else f".clamp(-{clip:g}, {clip:g})"
    apply = ["def update(x, out, z, row):", "    a, b, c, d, sigma = row.unbind()",
             f"    return c * (a * x - b * out){clamp} + d * x + sigma * z", ""]  # fmt: skip
    lines = ["update = torch.compile(update, fullgraph=True, dynamic=False)", ""]
    body = ["def stepping(predict):", "    def step(x, z, t, row):",
            "        return update(x, predict(x, t), z, row)", ""]  # fmt: skip
    if choice["runtime"]:
        mode = ', mode="reduce-overhead"' if device != "cpu" and choice["runtime"] == "compiled" else ""
        body += [f"    return torch.compile(step, fullgraph=True, dynamic=False{mode})", ""]
    else:
        body += ["    return step", ""]
    return [*apply, *(lines if choice["update"] == "compiled-update" else []), *body]


def _loop(choice: dict[str, str], guided: bool, device: str) -> list[str]:
    divisor = choice["path"].partition("/")[2]
    taken = f"max(1, round(steps / {divisor}))" if divisor else "steps"
    clone = ".clone()" if device != "cpu" and choice["runtime"] == "compiled" else ""
    lines = [
        "T = len(alphas_cumprod)",
        f"count = {taken}",
        "timesteps = [round((i + 1) * T / count) - 1 for i in reversed(range(count))]",
        "rows = table(alphas_cumprod, timesteps)",
        "noisy = [float(sigma) != 0 for sigma in rows[:, 4]]",
    ]
    if guided and choice["guided_between"]:
        low, high = LIMITED
        lines += [
            "with_guidance, without_guidance = stepping(guided), stepping(conditional)",
            "levels = ((1 - alphas_cumprod) / alphas_cumprod).double().sqrt()[timesteps].tolist()  # noise over signal",
            f"walk = [with_guidance if {low} < level <= {high} else without_guidance for level in levels]",
        ]
    else:
        lines += [f"walk = [stepping({'guided' if guided else 'conditional'})] * count"]
    number_format = FORMATS.get(choice["precision"], "")
    inner = [
        "ts, table_ = torch.tensor(timesteps, device=x.device), rows.to(x.device, torch.float32)",
        "x, still = x.clone(), torch.zeros_like(x)",
        "for i, step in enumerate(walk):",
        f"    x = step(x, randn(x) if noisy[i] else still, ts[i : i + 1], table_[i]){clone}",
        "return x",
    ]
    if "autocast" in choice["precision"]:
        inner = [f"with torch.autocast(x.device.type, torch.{number_format}):", *("    " + line for line in inner)]
    if choice["precision"] == "tf32":
        inner = ["torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True", *inner]
    return [*lines, "", "@torch.inference_mode()", "def sample(x, randn=torch.randn_like):",
            *("    " + line for line in inner), "", "return sample"]  # fmt: skip
