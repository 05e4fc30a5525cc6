"""Classifier-free guidance: what is computed, and with how many calls of the network."""

import pytest
import torch

from sampler.errors import UsageError
from sampler.guidance import Condition, batched_cfg, sequential_cfg, unguided
from sampler.posterior import Guided, State, combine

LABELS = torch.tensor([0, 1, 1])


@pytest.fixture
def x():
    return torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def t():
    return torch.tensor([300])


@pytest.fixture
def condition():
    return Condition.labels(LABELS, null_label=2)


@pytest.mark.parametrize("guide", [sequential_cfg, batched_cfg])
@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0, 7.5])
def test_the_formula(guide, scale, wavy, condition, x, t):
    every = t.expand(3)
    conditional, unconditional = wavy(x, every, LABELS), wavy(x, every, torch.full_like(LABELS, 2))
    expected = unconditional + scale * (conditional - unconditional)
    torch.testing.assert_close(combine(guide(wavy, condition, scale)(State(x), t)), expected)
    assert (conditional - unconditional).abs().max() > 0.1


@pytest.mark.parametrize(
    ("guide", "scale", "batches"),
    [
        (sequential_cfg, 3.0, [3, 3]),
        (batched_cfg, 3.0, [6]),
        (sequential_cfg, 1.0, [3]),
        (batched_cfg, 1.0, [3]),
        (unguided, 3.0, [3]),
    ],
)
def test_how_often_the_network_is_called(guide, scale, batches, wavy, counted, condition, x, t):
    network = counted(wavy)
    predict = guide(network, condition, scale)
    assert network.batches == []
    predict(State(x), t)
    assert network.batches == batches


@pytest.mark.parametrize("guide", [sequential_cfg, batched_cfg, unguided])
def test_scale_1_is_the_condition_alone(guide, wavy, condition, x, t):
    assert torch.equal(guide(wavy, condition, 1.0)(State(x), t), wavy(x, t.expand(3), LABELS))


@pytest.mark.parametrize("guide", [sequential_cfg, batched_cfg, unguided])
def test_without_a_condition(guide, wavy, x, t):
    assert torch.equal(guide(wavy, None, 1.0)(State(x), t), wavy(x, t.expand(3), None))


@pytest.mark.parametrize("guide", [sequential_cfg, batched_cfg])
def test_guidance_needs_a_condition(guide, wavy):
    with pytest.raises(UsageError, match=r"guidance 2.5 needs a condition \(labels or an embedding\)"):
        guide(wavy, None, 2.5)


def test_an_embedding_conditions_too(unet, x, t, relative_error):
    """The embedding of a label, handed in as floats, is as good as the label."""
    images = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    by_label = Condition.labels(torch.tensor([3, 0, 9]), unet.null_label)
    with torch.no_grad():
        embedded = Condition(unet.label(by_label.value), unet.label(by_label.null))
        for guide, scale in ((unguided, 1.0), (sequential_cfg, 1.0), (sequential_cfg, 3.0), (batched_cfg, 3.0)):
            expected = combine(guide(unet, by_label, scale)(State(images), t))
            assert relative_error(combine(guide(unet, embedded, scale)(State(images), t)), expected) < 1e-5


def test_halves_in_half_precision_are_combined_in_float32():
    conditional, unconditional = torch.tensor([1.0078125]).bfloat16(), torch.tensor([1.0]).bfloat16()
    combined = combine(Guided(conditional, unconditional, 3.3))
    assert combined.dtype is torch.float32
    assert float(combined) == pytest.approx(1 + 3.3 * 0.0078125, rel=1e-7)
    assert combine(Guided(conditional.double(), unconditional.double(), 3.3)).dtype is torch.float64


def test_a_null_condition_of_another_kind_is_refused():
    with pytest.raises(UsageError, match=r"\[3\] torch.int64 against \[2\] torch.int64"):
        Condition(torch.zeros(3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(UsageError, match=r"\[3, 4\] torch.float32 against \[3, 4\] torch.float64"):
        Condition(torch.zeros(3, 4), torch.zeros(3, 4).double())


def test_a_part_of_a_condition():
    whole = Condition(torch.tensor([5, 6, 7, 8]), torch.tensor([15, 16, 17, 18]))
    part = whole.select(1, 3)
    assert part.value.tolist() == [6, 7]
    assert part.null.tolist() == [16, 17]
