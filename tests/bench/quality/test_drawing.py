"""Drawn pictures: kept by content, resumed where stopped, and never taken for those of other code."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.quality import content, drawing, plan, trial
from bench.quality.drawing import BATCHED, Point
from sampler.errors import UsageError
from sampler.models import load_model
from sampler.noise import PhiloxNoise
from sampler.textbook import textbook_strided
from sampler.trajectory import ancestral, spaced
from sampler.variants import REFERENCE, VARIANTS, Update, build, native_update, run


def points() -> dict[str, Point]:
    schedule = load_model("fashion-mnist").schedule
    return {"two": Point("two", ancestral(schedule, spaced(schedule, 2)), variant=BATCHED)}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    drawing.draw(points, [("two", 40)], folder, 1)
    return folder


def test_what_is_drawn_is_read_and_is_what_the_sampler_gives(store: Path) -> None:
    point = points()["two"]
    drawn = drawing.read(point, 30, store)
    assert drawn.images.shape == (30, 1, 28, 28)
    assert drawn.labels.tolist() == [i % 10 for i in range(30)]
    assert drawn.cpu_s > 0
    now, labels = drawing.draw_now(point, 20)
    assert (now - drawn.images[:20]).abs().max() <= 2 / 127.5  # another batch size, the same pictures
    assert labels.tolist() == drawn.labels[:20].tolist()


def test_nothing_is_drawn_twice_and_what_is_missing_is(store: Path, monkeypatch) -> None:
    said: list[str] = []
    drawing.draw(points, [("two", 40)], store, 1, said.append)
    assert said == ["every picture is there already"]
    folder = drawing.folder(points()["two"], store)
    kept = (folder / "0000.npz").stat().st_mtime_ns
    second = np.load(folder / "0001.npz")["images"]
    (folder / "0001.npz").unlink()
    assert drawing.read(points()["two"], 40, store) is None
    assert len(drawing.kept(points()["two"], store).labels) == 20
    drawing.draw(points, [("two", 40)], store, 1, said.append)
    assert (folder / "0000.npz").stat().st_mtime_ns == kept
    assert np.array_equal(np.load(folder / "0001.npz")["images"], second)


@pytest.mark.parametrize("content", [b"", b"PK half an archive", b"nothing of the kind"])
def test_a_damaged_shard_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    point = plan.points()["ddim-10"]
    (where := drawing.folder(point, tmp_path)).mkdir()
    (where / "0000.npz").write_bytes(content)
    with pytest.raises(UsageError, match=r"0000.npz holds no whole pictures .* remove it"):
        drawing.kept(point, tmp_path)


def test_whatever_decides_pictures_is_in_the_digest() -> None:
    point = points()["two"]
    schedule = load_model("fashion-mnist").schedule
    other_table = ancestral(schedule, spaced(schedule, 2), variance="beta")
    others = [
        replace(point, seed=1), replace(point, guidance=2.0), replace(point, path=other_table),
        replace(point, variant=VARIANTS["limited-guidance"]), replace(point, variant=VARIANTS["cast-bf16"]),
        replace(point, variant=REFERENCE), replace(point, variant=VARIANTS["all-lossless"]),
    ]  # fmt: skip
    digests = [point.digest, *(other.digest for other in others)]
    assert len(set(digests)) == len(digests)
    assert replace(point, name="of another name").digest == point.digest


def test_a_changed_kernel_or_weight_gives_another_digest(tmp_path: Path, monkeypatch) -> None:
    native = replace(BATCHED, update=native_update, needs="cpu")
    before = content.of_variant(native)
    for file in content.KERNELS.iterdir():
        if file.suffix in (".py", ".cpp", ".h"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    source = next(tmp_path.glob("*.cpp"))
    monkeypatch.setattr(content, "KERNELS", tmp_path)
    assert content.of_variant(native) == before
    source.write_text(source.read_text() + "\nint changed;\n")
    assert content.of_variant(native) != before
    network = load_model("fashion-mnist").network
    digest = content.of_network(network)
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] += 1e-6
    assert content.of_network(network) != digest


def test_comments_and_formatting_change_nothing_and_code_does() -> None:
    same = content._code('def f(x):\n    """Of x."""\n    return x + 1  # one more\n')
    assert content._code("def f(x):\n    return (x + 1)\n") == same
    assert content._code("def f(x):\n    return x + 2\n") != same


def test_a_changed_update_gives_another_digest() -> None:
    def one():
        return lambda x, out, z, row: x

    def other():
        return lambda x, out, z, row: x + 0

    digests = {content.of_variant(replace(BATCHED, update=Update(load))) for load in (one, other)}
    assert len(digests) == 2


def test_a_textbooks_strided_loop_is_its_table() -> None:
    """The row is timed as the textbook's loop, and its pictures are drawn by a table: the same up to rounding."""
    model = load_model("fashion-mnist")
    condition, noise = model.condition(torch.arange(2)), PhiloxNoise(0, range(2))
    x = noise.draw(1000, torch.empty(2, *model.shape))
    expected = textbook_strided(model.network, x, model.schedule, noise, condition, 3.0, steps=6)
    path = plan.textbook_strided_table(model, 6)
    found = run(build(BATCHED, model.network, condition, 3.0), x, path, noise)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


def test_the_plan_names_every_lossy_row_and_its_control(monkeypatch) -> None:
    for has in (True, False):
        monkeypatch.setattr(plan.cpu, "has_bf16", lambda has=has: has)
        for device in ("cpu", "cuda"):
            known = plan.points(device)
            named = {p for d in plan.rows(device).values() for p in (d.point, d.control) if p}
            assert named <= set(known)
            assert {n for n, _ in plan.wanted(50, device)} | set(plan.left_out(device)) == set(known)
    assert set(plan.left_out()) == {"half-1000", "half-limited-1000", "autocast-1000"}  # no instructions for them
    monkeypatch.setattr(plan.cpu, "has_bf16", lambda: True)
    assert not plan.left_out()
    wanted = plan.wanted(200)
    anchors = wanted[: len(plan.ANCHORS)]
    assert {n for n, _ in anchors} == set(plan.ANCHORS)
    assert {n for _, n in anchors} == {400}
    numbers = dict(wanted)
    assert numbers["ddim-50" + plan.FRESH] == 400  # at fresh seeds as many as at those that chose
    assert (numbers["ddim-50"], numbers["strided-250"], numbers[plan.EAGER]) == (400, 200, 50)
    assert (numbers["half-1000"], numbers["autocast-1000"], numbers["ddim-1000"]) == (400, 200, 50)
    assert {n for _, n in plan.wanted(200, "cuda")} == {200}
    assert max(numbers.values()) == numbers[plan.REFERENCE]  # a pair for every picture


def one_step_called_the_reference() -> dict[str, Point]:
    one = ancestral(load_model("fashion-mnist").schedule, [999])
    return {name: replace(point, path=one) if name == plan.REFERENCE else point for name, point in
            plan.points().items()}  # fmt: skip


@pytest.mark.slow
def test_shipped_pictures_are_taken_over_only_where_the_first_of_them_are_drawn_alike(tmp_path: Path) -> None:
    few, wanted = one_step_called_the_reference()[plan.REFERENCE], {plan.REFERENCE: 40}
    drawing.draw(one_step_called_the_reference, [*wanted.items()], tmp_path / "drawn", 1)
    here = drawing.read(few, 40, tmp_path / "drawn")
    pixels = ((here.images + 1) * 127.5).round().to(torch.uint8)
    off, changed = pixels.clone(), pixels.clone()
    off[3, 0, 5, 5] ^= 1  # another machine's rounding
    changed[:20] = pixels[20:]
    for name, ships, taken in (("same", pixels, True), ("off", off, True), ("changed", changed, False)):
        file, store = tmp_path / f"{name}.npz", tmp_path / name
        np.savez_compressed(file, reference=ships.numpy())
        first = drawing.folder(few, store)
        first.mkdir(parents=True)
        (first / "0000.npz").write_bytes((drawing.folder(few, tmp_path / "drawn") / "0000.npz").read_bytes())
        adopt = partial(trial.adopt, one_step_called_the_reference, wanted, store, 1, lambda text: None, file, dear=1)
        assert list(adopt()) == ([plan.REFERENCE] if taken else [])
        kept = drawing.kept(few, store)
        assert len(kept.labels) == (40 if taken else 20)
        if taken:
            assert torch.equal(kept.images[20:], here.images[20:])
            assert not adopt()  # they are there
