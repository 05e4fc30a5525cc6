"""The counter-based noise: the published words, the normal law, and independence from the batch."""

import math

import pytest
import torch

from sampler.errors import UsageError
from sampler.noise import GeneratorNoise, PhiloxNoise, philox_4x32, philox_normal

stats = pytest.importorskip("scipy.stats")

MASK32 = 0xFFFF_FFFF

# Random123's kat_vectors, philox4x32-10: counter, key, words
KNOWN_ANSWERS = [
    (
        (0, 0, 0, 0), (0, 0),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    (
        (MASK32,) * 4, (MASK32,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_known_answers(counter, key, words):
    tensors = [torch.tensor([word]) for word in counter]
    assert tuple(int(word) for word in philox_4x32(tensors, key)) == words
    assert philox_4x32(counter, key) == words  # plain integers, which do not wrap
    mixed = (tensors[0], counter[1], tensors[2].reshape(1, 1), tensors[3])
    assert tuple(int(word) for word in philox_4x32(mixed, key)) == words


def normals_by_hand(seed: int, sample_id: int, step: int, elements: int) -> list[float]:
    """Counter layout and Box-Muller as the module's docstring has them, in Python's own numbers."""
    numbers = []
    for block in range((elements + 3) // 4):
        counter = (block, step, sample_id & MASK32, sample_id >> 32)
        words = philox_4x32(counter, (seed & MASK32, seed >> 32))
        for w0, w1 in (words[:2], words[2:]):
            radius = math.sqrt(-2 * math.log((w0 + 0.5) / 2**32))
            angle = 2 * math.pi * w1 / 2**32
            numbers += [radius * math.cos(angle), radius * math.sin(angle)]
    return numbers[:elements]


@pytest.mark.parametrize("elements", [1, 2, 3, 4, 5, 63, 784])
def test_the_counter_is_made_of_element_step_and_sample(elements):
    seed, ids, step = 0x1234_5678_9ABC_DEF0, [0, 17, (5 << 32) + 9, 2**63 - 1], 999
    z = philox_normal(seed, torch.tensor(ids), step, elements)
    assert z.shape == (4, elements)
    expected = [normals_by_hand(seed, i, step, elements) for i in ids]
    torch.testing.assert_close(z, torch.tensor(expected), rtol=1e-5, atol=2e-6)


def test_every_part_of_the_key_matters():
    drawn = [
        philox_normal(seed, torch.tensor([sample]), step, 8)
        for seed in (0, 1, 1 << 32)
        for sample in (0, 1, 1 << 32)
        for step in (0, 1, 1000)
    ]
    assert len({tuple(z[0].tolist()) for z in drawn}) == len(drawn)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 5, 7), (1, 1, 1)])
def test_a_sample_has_the_same_noise_in_every_company(shape):
    """Sample 17 alone, in a batch of 64, in two batches of 32, and between strangers."""
    whole = PhiloxNoise(3, range(64)).draw(500, torch.empty(64, *shape))
    alone = PhiloxNoise(3, [17]).draw(500, torch.empty(1, *shape))
    assert torch.equal(alone[0], whole[17])
    halves = [
        PhiloxNoise(3, range(64)).select(start, start + 32).draw(500, torch.empty(32, *shape)) for start in (0, 32)
    ]
    assert torch.equal(torch.cat(halves), whole)
    strangers = PhiloxNoise(3, [99, 17, 2]).draw(500, torch.empty(3, *shape))
    assert torch.equal(strangers[1], whole[17])


def test_a_longer_sample_begins_like_a_shorter_one():
    ids = torch.arange(3)
    assert torch.equal(philox_normal(0, ids, 5, 784)[:, :13], philox_normal(0, ids, 5, 13))


def test_a_draw_repeats_itself_and_takes_the_dtype():
    noise = PhiloxNoise(0, range(2))
    z = noise.draw(7, torch.empty(2, 1, 4, 4))
    assert torch.equal(noise.draw(7, torch.empty(2, 1, 4, 4)), z)
    double = noise.draw(7, torch.empty(2, 1, 4, 4, dtype=torch.float64))
    assert double.dtype is torch.float64
    assert torch.equal(double.float(), z)


def test_a_step_may_be_a_tensor():
    noise, like = PhiloxNoise(0, range(2)), torch.empty(2, 9)
    assert torch.equal(noise.draw(torch.tensor(7), like), noise.draw(7, like))


def test_the_key_draws_what_draw_gives():
    noise, like = PhiloxNoise(11, range(5, 8)), torch.empty(3, 1, 3, 3)
    key = noise.key(40, like)
    assert (key.seed, key.sample_ids.tolist(), key.step) == (11, [5, 6, 7], 40)
    drawn = philox_normal(key.seed, key.sample_ids, key.step, 9).reshape(like.shape)
    assert torch.equal(drawn, noise.draw(40, like))


@pytest.fixture(scope="module")
def drawn():
    """[64 samples, 4 steps, 4096 elements]: a million normals of one seed."""
    noise = PhiloxNoise(2024, range(64))
    return torch.stack([noise.draw(step, torch.empty(64, 4096)) for step in (0, 1, 2, 999)], dim=1).double()


def test_moments(drawn):
    n = drawn.numel()
    assert abs(float(drawn.mean())) < 4 / n**0.5
    assert abs(float(drawn.pow(2).mean()) - 1) < 4 * (2 / n) ** 0.5
    assert abs(float(drawn.pow(3).mean())) < 4 * (15 / n) ** 0.5
    assert abs(float(drawn.pow(4).mean()) - 3) < 4 * (96 / n) ** 0.5


def test_distribution(drawn):
    assert stats.kstest(drawn.flatten().numpy(), "norm").pvalue > 1e-3
    # each of the four words of a block by itself
    for word in range(4):
        assert stats.kstest(drawn[..., word::4].flatten().numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("threshold", [1.0, 2.0, 3.0, 4.0])
def test_tails(drawn, threshold):
    n, p = drawn.numel(), float(stats.norm.sf(threshold))
    for tail in (drawn > threshold, drawn < -threshold):
        assert abs(int(tail.sum()) - n * p) < 4.5 * (n * p) ** 0.5


def test_the_largest_possible_number_is_finite():
    assert float(drawn_from_word(0)) == pytest.approx(6.764, abs=1e-3)
    smallest = float(drawn_from_word(MASK32))  # u = 1 - 2^-33, which float32 cannot hold
    assert smallest == pytest.approx(2**-16, rel=1e-6)


def drawn_from_word(word: int):
    from sampler.noise import _box_muller

    return _box_muller(torch.tensor([word]), torch.tensor([0]))[0]


def test_nothing_is_correlated(drawn):
    """Neighbours, Box-Muller pairs, blocks, steps and samples, in the numbers and in their squares."""
    pairs = {
        "neighbouring elements": (drawn[..., :-1], drawn[..., 1:]),
        "the halves of a Box-Muller pair": (drawn[..., 0::2], drawn[..., 1::2]),
        "the pairs of a block": (drawn[..., 0::4], drawn[..., 2::4]),
        "neighbouring blocks": (drawn[..., :-4], drawn[..., 4:]),
        "neighbouring steps": (drawn[:, 0], drawn[:, 1]),
        "distant steps": (drawn[:, 1], drawn[:, 3]),
        "neighbouring samples": (drawn[:-1], drawn[1:]),
        "distant samples": (drawn[:32], drawn[32:]),
        "step and sample exchanged": (drawn[0, 1], drawn[1, 0]),
    }
    for name, (left, right) in pairs.items():
        left, right = left.flatten(), right.flatten()
        bound = 4.5 / left.numel() ** 0.5
        assert abs(float((left * right).mean())) < bound, name
        squares = ((left**2 - 1) * (right**2 - 1)).mean() / 2
        assert abs(float(squares)) < 2 * bound, f"squares of {name}"


def test_seeds_are_independent(drawn):
    other = PhiloxNoise(2025, range(64)).draw(0, torch.empty(64, 4096)).double()
    assert abs(float((other * drawn[:, 0]).mean())) < 4.5 / other.numel() ** 0.5


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(UsageError, match=f"seed {seed} is outside 0…2\\^64-1"):
        PhiloxNoise(seed, [0])


def test_the_largest_seed_works():
    assert torch.isfinite(PhiloxNoise((1 << 64) - 1, [0]).draw(0, torch.empty(1, 4))).all()


@pytest.mark.parametrize("ids", [[-1], [0, -3, 5], range(-2, 2)])
def test_a_negative_sample_id_is_refused(ids):
    with pytest.raises(UsageError, match=f"sample id {min(ids)} is negative"):
        PhiloxNoise(0, ids)


def test_a_sample_id_beyond_64_bits_is_refused():
    with pytest.raises(UsageError, match="sample id 9223372036854775808 is outside"):
        PhiloxNoise(0, [1 << 63])


def test_a_batch_of_another_size_is_refused():
    with pytest.raises(UsageError, match="a batch of 4 was asked of 2 sample ids"):
        PhiloxNoise(0, range(2)).draw(0, torch.empty(4, 3))


def test_a_generator_gives_its_numbers_in_order():
    noise = GeneratorNoise(torch.Generator().manual_seed(5))
    like = torch.empty(2, 3)
    actual = [noise.draw(999, like), noise.select(2, 4).draw(1, like)]
    generator = torch.Generator().manual_seed(5)
    for z in actual:
        assert torch.equal(z, torch.randn(2, 3, generator=generator))


def test_without_a_generator_the_global_one_is_used():
    torch.manual_seed(8)
    z = GeneratorNoise().draw(0, torch.empty(4))
    torch.manual_seed(8)
    assert torch.equal(z, torch.randn(4))


@pytest.mark.parametrize("seed", [0, 7, 2**63, 2**64 - 1])
def test_a_key_on_a_device_is_the_same_key(seed):
    key = PhiloxNoise(seed, [3, 2**62]).key(999, torch.empty(2, 5))
    moved = key.on(torch.device("cpu"))
    assert isinstance(moved.seed, torch.Tensor)
    assert isinstance(moved.step, torch.Tensor)
    assert torch.equal(moved.draw(torch.empty(2, 5)), key.draw(torch.empty(2, 5)))
    assert moved.on(torch.device("cpu")).seed is moved.seed
