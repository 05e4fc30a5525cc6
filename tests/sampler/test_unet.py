"""The shipped network: what it takes, what it depends on, and what it must not depend on."""

import pytest
import torch

from sampler.unet import UNet, UNetConfig, timestep_embedding


@pytest.fixture
def x():
    return torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def t():
    return torch.tensor([0, 500, 999])


@pytest.fixture
def labels():
    return torch.tensor([0, 9, 4])


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def test_no_condition_is_the_null_label(unet, x, t):
    null = torch.full((3,), unet.null_label)
    assert torch.equal(unet(x, t), unet(x, t, null))


def test_an_embedding_is_used_as_it_is(unet, x, t, labels):
    torch.testing.assert_close(unet(x, t, unet.label(labels)), unet(x, t, labels))


def test_it_depends_on_image_timestep_and_label(unet, x, t, labels):
    out = unet(x, t, labels)
    assert out.shape == x.shape
    for other in (unet(x.flip(-1), t, labels), unet(x, t.flip(0), labels), unet(x, t, labels.flip(0))):
        assert (out - other).abs().amax(dim=(1, 2, 3)).max() > 0.01


def test_samples_of_a_batch_do_not_meet(unet, x, t, labels, relative_error):
    whole = unet(x, t, labels)
    alone = torch.cat([unet(x[i : i + 1], t[i : i + 1], labels[i : i + 1]) for i in range(3)])
    assert relative_error(alone, whole) < 1e-5
    assert torch.equal(unet(x, t, labels), whole)


def test_every_pixel_is_seen_everywhere(unet, x, t, labels):
    """Attention and two resolutions: a corner reaches the opposite one."""
    touched = x.clone()
    touched[:, :, 0, 0] += 3.0
    difference = (unet(touched, t, labels) - unet(x, t, labels)).abs()
    assert (difference[:, :, -1, -1] > 0).all()


def test_every_weight_takes_part(unet, x, t, labels):
    with torch.enable_grad():
        unet(x, t, labels).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in unet.parameters())
    unet.zero_grad(set_to_none=True)


def test_a_new_network_answers_zero():
    """Its last layers start at zero, so training starts from a loss of 1."""
    network = UNet(UNetConfig())
    out = network(torch.randn(2, 1, 28, 28), torch.tensor([3, 900]), torch.tensor([0, 1]))
    assert torch.equal(out, network.head.bias.reshape(1, 1, 2, 2).repeat(2, 1, 14, 14))


def test_timestep_embedding():
    e = timestep_embedding(torch.tensor([0, 1, 999]), 32)
    assert e.shape == (3, 32)
    assert torch.equal(e[0], torch.cat([torch.ones(16), torch.zeros(16)]))
    torch.testing.assert_close(e[1, 0], torch.tensor(1.0).cos())
    torch.testing.assert_close(e[2, 16 + 8], torch.tensor(999 / 100.0).sin(), rtol=0, atol=1e-5)
    assert torch.pdist(timestep_embedding(torch.arange(1000), 32)).min() > 0.01


def test_it_runs_in_float64(unet, x, t, labels, relative_error):
    import copy

    exact = copy.deepcopy(unet).double()(x.double(), t, labels)
    assert exact.dtype is torch.float64
    assert relative_error(unet(x, t, labels), exact) < 1e-5
