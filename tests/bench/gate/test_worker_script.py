"""What the worker's own file measures."""

import torch

from bench.gate.worker_script import _resident_bytes


def test_every_live_tensor_is_counted_once_also_one_that_shows_no_storage() -> None:
    before = _resident_bytes(torch)
    plain = torch.ones(1000)
    assert _resident_bytes(torch) - before == 4000
    view = plain[:10]
    assert _resident_bytes(torch) - before == 4000
    packed = torch.ones(500).to_mkldnn()  # as frozen weights are
    assert _resident_bytes(torch) - before == 6000
    del plain, view, packed
    assert _resident_bytes(torch) == before
