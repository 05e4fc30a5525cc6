"""Factories as people write them, and as nobody should: each breaks one thing, by its name."""

import sys
from dataclasses import replace

import torch
from torch import nn

from sampler import Model, cosine, linear


class Mine(nn.Module):
    """Ten labels and one for none, on 1×8×8."""

    def __init__(self, labels: int = 11):
        super().__init__()
        self.embed = nn.Embedding(labels, 4)
        self.inner = nn.Conv2d(5, 8, 3, padding=1)
        self.out = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x, t, label):
        e = self.embed(label) + (t[:, None] / 100).to(x.dtype)
        x = torch.cat([x, e[:, :, None, None].expand(-1, -1, *x.shape[2:])], dim=1)
        return self.out(torch.tanh(self.inner(x)))


class Unlabelled(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(64, 64)

    def forward(self, x, t):
        return torch.tanh(self.body(x.flatten(1)) + t[:, None] / 100).reshape(x.shape)


class Odd(Mine):
    """`Mine` whose answer goes through a function."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, x, t, label):
        return self.change(super().forward(x, t, label), x, t)


def good():
    return Model("mine", Mine(), (1, 8, 8), linear(), classes=10, null_label=10)


def unlabelled():
    return Model("unlabelled", Unlabelled(), (1, 8, 8), cosine(60), prediction="v")


def latents():
    return replace(unlabelled(), shape=(4, 4, 4))


def ignores_labels():
    return replace(good(), network=Blind(good().network))


def ignores_time():
    network = Mine()
    return replace(good(), network=Odd(lambda out, x, t: network(x, torch.zeros_like(t), torch.zeros_like(t))))


class Blind(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, t, label):
        return self.network(x, t, torch.zeros_like(label))


def raises():
    raise RuntimeError("the disk with the weights is asleep\nand more lines")


def exits():
    sys.exit("goodbye")


def nothing():
    pass


def a_dict():
    return {"network": Mine()}


def a_function():
    return replace(good(), network=lambda x, t, label: x)


def two_sides():
    return replace(good(), shape=(8, 8))


def unknown_prediction():
    return replace(good(), prediction="score")


def wrong_shape():
    return replace(good(), shape=(3, 8, 8))


def forgotten_null_label():
    return Model("mine", Mine(), (1, 8, 8), linear(), classes=10)


def null_label_is_a_class():
    return replace(good(), null_label=0)


def null_label_in_words():
    return replace(good(), null_label="none")


def wrong_null_label():
    return replace(good(), null_label=11)


def other_output():
    return replace(good(), network=Odd(lambda out, x, t: out[:, :, 1:]))


def a_tuple():
    return replace(good(), network=Odd(lambda out, x, t: (out,)))


def not_finite():
    return replace(good(), network=Odd(lambda out, x, t: out / (t.reshape(-1, 1, 1, 1) > 0)))


def elsewhere():
    return replace(good(), network=Odd(lambda out, x, t: out.to("meta")))


def without_weights():
    return replace(good(), network=Mine().to("meta"))


def random_inside():
    return replace(good(), network=Odd(lambda out, x, t: out + torch.randn_like(out)))


def changes_its_input():
    return replace(good(), network=Odd(lambda out, x, t: out + x.mul_(0.5)))


def mixes_the_batch():
    return replace(good(), network=Odd(lambda out, x, t: out - x.mean(dim=0)))


def zero():
    return replace(good(), network=Odd(lambda out, x, t: out * 0))
