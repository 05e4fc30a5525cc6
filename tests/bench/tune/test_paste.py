"""What is given to be pasted is run as it is: the same samples as the row draws, on the same noise."""

import shlex
from dataclasses import replace

import pytest
import torch

from bench.__main__ import _parser
from bench.contenders import CONTENDERS as SHIPPED
from bench.options import from_options
from bench.tune import paste
from bench.tune.asked import Asked
from bench.tune.space import BY_NAME, CONTENDERS, contender
from bench.workload import Workload, workload
from sampler import GeneratorNoise, Model, Variant, linear
from sampler.unet import UNet, UNetConfig
from sampler.variants import build, run
from tests.bench.tune.tiny import make

STEPS = 40
EAGER = ["reference", "batched", "channels-last+batched", "limited", "batched+limited", "bf16+batched", "autocast-bf16",
         "batched+ddim/4", "batched+ancestral/2", "strided/4", "native"]  # fmt: skip
COMPILED = ["compiled-update", "batched+compiled", "batched+frozen+limited", "bf16+batched+frozen"]
LIKE = {"native": "reference"}  # our own C++ takes its noise elsewhere; in plain PyTorch it is the plain update


def row_of(name: str):
    return SHIPPED[name] if name == "reference" else contender(BY_NAME[name])


def both(name: str, model: Model, steps: int, batch: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """What the row draws, and what the pasted lines do."""
    row, labels = row_of(LIKE.get(name, name)), torch.arange(batch)
    x = torch.randn(batch, *model.shape, generator=torch.Generator().manual_seed(1))
    sampler = build(row.variant, model.network, model.condition(labels), 3.0)
    theirs = run(sampler, x, row.path(model, steps), GeneratorNoise(torch.Generator().manual_seed(2)))
    scope: dict = {}
    exec(compile(paste.plain(name, model), f"pasted {name}", "exec"), scope)
    generator = torch.Generator().manual_seed(2)
    sample = scope["sampler"](model.network, model.schedule.alphas_cumprod, labels, model.null_label, 3.0, steps)
    return theirs, sample(x, lambda x: torch.randn(x.shape, generator=generator))


@pytest.mark.parametrize("name", EAGER)
def test_pasted_code_draws_the_same_samples(name):
    torch.set_num_threads(1)
    theirs, pasted = both(name, make(), STEPS)
    assert torch.allclose(theirs, pasted, atol=1e-5), float((theirs - pasted).abs().max())


def of_every_layer() -> Model:
    """A U-Net of one resolution: the shipped one's layers, and two thirds of its time to compile."""
    torch.manual_seed(0)
    network = UNet(UNetConfig(image_size=16, widths=(16,), attention=(0,)))
    for weight in network.parameters():  # some are zero when a training begins
        torch.nn.init.normal_(weight, std=0.1)
    return Model("small", network, shape=(1, 16, 16), schedule=linear(), classes=10, null_label=10)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_pasted_compiled_code_draws_the_same_samples(name):
    import torch._inductor.config as inductor

    torch.set_num_threads(1)
    with inductor.patch(freezing=False):  # which puts back what the pasted lines set
        theirs, pasted = both(name, of_every_layer(), 20)
    half = "bf16" in name
    assert torch.allclose(theirs, pasted, atol=2e-2 if half else 1e-4), float((theirs - pasted).abs().max())


@pytest.mark.parametrize("row", CONTENDERS[::97], ids=lambda row: row.name)
def test_the_pasted_variant_is_the_row(row):
    source = paste.variant(row.name)
    *head, last = source.splitlines()
    scope: dict = {}
    exec("\n".join([*head, f"made = {last}"]), scope)
    made: Variant = scope["made"]
    for field in ("layout", "guide", "guided_between", "needs"):
        assert getattr(made, field) == getattr(row.variant, field)
    for field in ("precision", "update", "runtime"):  # some are made anew by a function
        one, other = getattr(made, field), getattr(row.variant, field)
        assert one == other or one.__qualname__ == other.__qualname__


@pytest.mark.parametrize("name", ["reference", "bf16"])
def test_without_guidance_the_network_is_called_once_a_step(name):
    model, row = make(), row_of(name)
    x, labels = torch.randn(2, *model.shape, generator=torch.Generator().manual_seed(1)), torch.arange(2)
    sampler = build(row.variant, model.network, model.condition(labels), 1.0)
    theirs = run(sampler, x, row.path(model, STEPS), GeneratorNoise(torch.Generator().manual_seed(2)))
    scope: dict = {}
    exec(paste.plain(name, paste.known_of(replace(Workload(), guidance=1.0))), scope)
    calls = []
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, *_: calls.append(1) if type(module) is type(model.network) else None
    )
    generator = torch.Generator().manual_seed(2)
    try:
        sample = scope["sampler"](model.network, model.schedule.alphas_cumprod, labels, STEPS)
        pasted = sample(x, lambda x: torch.randn(x.shape, generator=generator))
    finally:
        hook.remove()
    assert len(calls) == STEPS
    assert torch.allclose(theirs, pasted, atol=1e-5), float((theirs - pasted).abs().max())


@pytest.mark.parametrize("name", ["reference", "batched+frozen"])
def test_the_command_that_measures_again_is_understood_and_means_the_same_job(name):
    job = workload("quick", batch=3, steps=500, guidance=2.5)
    _, _, _, *given = shlex.split(paste.measured_again(Asked(job), name))
    parsed = _parser().parse_args(given)
    assert from_options(parsed) == job
    if name != "reference":
        assert (parsed.rows, parsed.contenders) == (name, "bench.tune.space")


def test_what_takes_more_than_some_lines_is_not_given_in_lines():
    assert paste.plain("batched+kernel-noise+graph", make()) == ""


@pytest.mark.parametrize("prediction", ["v", "x0"])
def test_other_predictions_have_their_own_table(prediction):
    model = make()
    model = Model("tiny", model.network, model.shape, linear(STEPS), prediction=prediction, classes=10, null_label=10)
    theirs, pasted = both("batched", model, 20)
    assert torch.allclose(theirs, pasted, atol=1e-5)
