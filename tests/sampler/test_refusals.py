"""What cannot be done is refused in one sentence that names the value and what would be accepted."""

import dataclasses

import pytest
import torch
from torch import nn

from sampler import schedule as schedules
from sampler.errors import UsageError, unknown
from sampler.generate import grid, sample
from sampler.guidance import Condition
from sampler.noise import PhiloxNoise
from sampler.trajectory import ancestral, ddim, spaced, strided

LABELS = torch.tensor([0, 1])


def zero_terminal():
    betas = schedules.linear().betas.clone()
    betas[-1] = 1.0
    return schedules.from_betas(betas)


OF_A_TRAJECTORY = {
    "no steps": (lambda s: spaced(s, 0), "steps = 0 is outside 1…1000"),
    "too many steps": (lambda s: spaced(s, 1001), "steps = 1001 is outside 1…1000"),
    "spacing": (lambda s: spaced(s, 9, "trailling"), "unknown spacing 'trailling'; did you mean 'trailing'"),
    "empty": (lambda s: ancestral(s, []), "timesteps is empty; at least one is needed"),
    "ascending": (lambda s: ancestral(s, [1, 2]), "timesteps must descend strictly, but 2 follows 1"),
    "repeated": (lambda s: ddim(s, [9, 9, 1]), "timesteps must descend strictly, but 9 follows 9"),
    "beyond T": (lambda s: strided(s, [1000, 3]), "timestep 1000 is outside 0…999"),
    "a lost beta": (lambda s: schedules.from_betas([1e-17, 0.1]), r"betas\[0\] = 1e-17 is lost in rounding"),
    "between two": (lambda s: ancestral(s, [3.5, 1]), "timestep 3.5 is not a whole number"),
    "negative": (lambda s: ancestral(s, [3, -1]), "timestep -1 is outside 0…999"),
    "prediction": (
        lambda s: ancestral(s, prediction="eps"), "unknown prediction 'eps'; did you mean 'epsilon'"
    ),
    "variance": (lambda s: ancestral(s, variance="large"), "unknown variance 'large'; known: beta, posterior"),
    "eta above 1": (lambda s: ddim(s, eta=1.1), "eta = 1.1 is outside 0…1"),
    "eta below 0": (lambda s: ddim(s, eta=-0.1), "eta = -0.1 is outside 0…1"),
    "eta NaN": (lambda s: ddim(s, eta=float("nan")), "eta = nan is outside 0…1"),
    "clip 0": (lambda s: ancestral(s, clip=0), "clip = 0 must be a positive bound, or None"),
    "clip below 0": (lambda s: ddim(s, clip=-1.0), "clip = -1.0 must be a positive bound"),
    "clip NaN": (lambda s: strided(s, clip=float("nan")), "clip = nan must be a positive bound"),
    "no signal": (lambda s: ancestral(zero_terminal()), r"zero signal \(β = 1\), where x0 cannot be computed"),
    "no signal, DDIM": (lambda s: ddim(zero_terminal()), "use a network that predicts v or x0"),
}  # fmt: skip


@pytest.mark.parametrize("case", OF_A_TRAJECTORY)
def test_of_a_trajectory(case, schedule):
    make, sentence = OF_A_TRAJECTORY[case]
    with pytest.raises(UsageError, match=sentence) as caught:
        make(schedule)
    assert "\n" not in str(caught.value)


def test_zero_signal_is_taken_where_it_can_be():
    schedule = zero_terminal()
    for prediction in ("v", "x0"):
        assert ancestral(schedule, prediction=prediction).steps == 1000
    assert ancestral(schedule, range(998, -1, -1)).steps == 999  # ε without the last timestep


OF_A_REQUEST = {
    "label too large": ({"labels": [0, 3]}, "label 3 is outside 0…2, the classes of 'tiny'"),
    "label below 0": ({"labels": [-1, 0]}, "label -1 is outside 0…2"),
    "float labels": (
        {"labels": [0.0, 1.0]}, r"labels must be a vector of integers, got \[2\] torch.float32"
    ),
    "labels of two dimensions": (
        {"labels": [[0], [1]]}, r"labels must be a vector of integers, got \[2, 1\] torch.int64"
    ),
    "one label": ({"labels": torch.tensor(1)}, r"labels must be a vector of integers, got \[\] torch.int64"),
    "as many labels": ({"labels": LABELS, "count": 3}, "count = 3, but 2 labels or conditions were given"),
    "no labels": ({"labels": torch.zeros(0, dtype=torch.int64)}, "count = 0; at least 1 sample"),
    "nothing": ({}, "count = None; at least 1 sample must be asked for"),
    "no count": ({"count": 0}, "count = 0; at least 1 sample must be asked for"),
    "batch size": ({"count": 1, "batch_size": 0}, "batch_size = 0; at least 1 is needed"),
    "labels and condition": (
        {"labels": LABELS, "condition": Condition.labels(LABELS, 3)}, "give labels or a condition, not both"
    ),
    "a condition that does not fit": (
        {"condition": Condition(torch.zeros(2, 5), torch.zeros(2, 5))},
        r"model 'tiny' cannot take x \[1, 1, 8, 8\], t \[1\] and a condition \[1, 5\] torch.float32: .+",
    ),
    "guidance without a condition": ({"count": 2, "guidance": 3.0}, "guidance 3 needs a condition"),
    "guidance NaN": ({"labels": LABELS, "guidance": float("nan")}, "guidance = nan is not a finite number"),
    "seed": ({"count": 1, "seed": -1}, r"seed -1 is outside 0…2\^64-1"),
    "timestep to keep": ({"count": 1, "keep": [4]}, "timestep 4 was asked to be kept, but the trajectory does"),
    "too few ids": (
        {"count": 4, "noise": PhiloxNoise(0, range(2))}, "a batch of 4 was asked of 2 sample ids"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OF_A_REQUEST)
def test_of_a_request(case, tiny):
    options, sentence = OF_A_REQUEST[case]
    with pytest.raises(UsageError, match=sentence) as caught:
        sample(tiny, ancestral(tiny.schedule, (900, 5)), progress=False, **options)
    assert "\n" not in str(caught.value)


def test_labels_for_a_model_without_classes(tiny):
    model = dataclasses.replace(tiny, classes=0)
    with pytest.raises(UsageError, match="model 'tiny' takes no labels"):
        sample(model, ancestral(tiny.schedule, (9,)), labels=LABELS, progress=False)


def test_a_trajectory_of_another_schedule(tiny):
    with pytest.raises(UsageError, match="made for a schedule of 100 timesteps, but model 'tiny' was trained on 1000"):
        sample(tiny, ancestral(schedules.linear(100)), count=1, progress=False)


OF_ANOTHER_MODEL = {
    "prediction": lambda s: ancestral(s, (900, 5), prediction="v"),
    "schedule of as many steps": lambda s: ddim(schedules.cosine(), (900, 5)),
}


@pytest.mark.parametrize("case", OF_ANOTHER_MODEL)
def test_a_trajectory_of_another_model(case, tiny):
    """Nothing else would tell: its pictures are finite, within the bound, and wrong."""
    with pytest.raises(UsageError, match=r"not made for model 'tiny', which predicts epsilon: give .*'epsilon'$"):
        sample(tiny, OF_ANOTHER_MODEL[case](tiny.schedule), count=1, progress=False)


class Answers(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, t, condition=None):
        return self.answer(x)


OF_A_NETWORK = {
    "another shape": (lambda x: x[..., :4], r"model 'tiny' returned \[1, 1, 8, 4\] torch.float32 for x \[1, 1, 8, 8\]"),
    "twice the channels": (lambda x: torch.cat([x, x], 1), r"returned \[1, 2, 8, 8\] .*in x's shape"),
    "integers": (lambda x: x.long(), r"returned .* torch.int64 .*a denoiser returns floating point numbers"),
    "a dictionary": (lambda x: {"sample": x}, "model 'tiny' returned dict; a denoiser returns a tensor"),
    "an error": (lambda x: x @ torch.ones(3, 3), r"model 'tiny' cannot take x \[1, 1, 8, 8\].*and no condition: .+"),
    "a missing attribute": (lambda x: x.pixels, "cannot take x .*: 'Tensor' object has no attribute 'pixels'"),
    "an empty assertion": (lambda x: exec("assert False"), "cannot take x .*: AssertionError$"),
}


@pytest.mark.parametrize("case", OF_A_NETWORK)
def test_of_a_network(case, tiny):
    answer, sentence = OF_A_NETWORK[case]
    model = dataclasses.replace(tiny, network=Answers(answer))
    with pytest.raises(UsageError, match=sentence) as caught:
        sample(model, ancestral(tiny.schedule, (900, 5)), count=1, progress=False)
    assert "\n" not in str(caught.value)


def test_a_network_for_another_size(tiny):
    model = dataclasses.replace(tiny, shape=(3, 8, 8))
    with pytest.raises(UsageError, match=r"model 'tiny' cannot take x \[1, 3, 8, 8\]"):
        sample(model, ancestral(tiny.schedule, (9,)), count=1, progress=False)


def test_a_grid_without_columns():
    with pytest.raises(UsageError, match="columns = 0; at least 1 is needed"):
        grid(torch.zeros(1, 1, 2, 2), 0)


def test_a_mistake_is_also_a_value_error():
    assert issubclass(UsageError, ValueError)


def test_the_nearest_name_is_offered_only_where_there_is_one():
    assert str(unknown("colour", "gren", ("red", "green"))) == (
        "unknown colour 'gren'; did you mean 'green'? Known: green, red"
    )
    assert str(unknown("colour", "xyz", ("red", "green"))) == "unknown colour 'xyz'; known: green, red"
