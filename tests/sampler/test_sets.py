"""Sets of many samples: the same bytes however they are made, nothing lost to a kill, nothing of others destroyed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from sampler import Condition
from sampler.__main__ import main
from sampler.errors import UsageError
from sampler.models import load_model
from sampler.sets import command, identity
from sampler.sets import draw as drawing
from sampler.sets import folder as folders
from sampler.sets.draw import Pace
from sampler.sets.folder import read_manifest
from sampler.sets.ranks import Ranks
from sampler.trajectory import ddim, spaced
from sampler.variants import VARIANTS, build
from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(__file__).with_name("hostile_models.py")
GOOD, UNLABELLED = f"{MODELS}:good", f"{MODELS}:unlabelled"


def words(out, count=40, model=GOOD, **more):
    more = {"sampler": "ddim", "steps": 3, "network_batch": 8, "model": model, **more}
    options = [part for name, value in more.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    return ["generate", "--out", str(out), "--count", str(count), *options]


def generate(out, count=40, **more):
    assert main(words(out, count, **more)) == 0
    return contents(out)


def contents(out) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def refused(capsys, command) -> str:
    capsys.readouterr()
    assert main(command) == 3
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A set of forty, and its files."""
    out = tmp_path_factory.mktemp("made") / "set"
    return out, generate(out)


@pytest.fixture
def copy(made, tmp_path):
    return Path(shutil.copytree(made[0], tmp_path / "copy"))


def test_a_set_is_pictures_and_a_manifest(made):
    out, files = made
    assert list(files) == [*(f"{i:08d}.png" for i in range(40)), "manifest.json"]
    picture = np.asarray(Image.open(out / "00000017.png"))
    assert (picture.shape, picture.dtype) == ((8, 8), np.uint8)
    assert len({content for name, content in files.items() if name.endswith("png")}) == 40


@pytest.mark.parametrize("more", [{"batch": 1}, {"batch": 7}, {"batch": 1000}, {"threads": 1}])
def test_how_many_are_written_together_decides_nothing(made, tmp_path, more):
    assert generate(tmp_path / "again", **more) == made[1]


def test_a_sample_does_not_depend_on_how_many_there_are(made, tmp_path):
    few = generate(tmp_path / "few", count=13)
    assert all(made[1][f"{i:08d}.png"] == few[f"{i:08d}.png"] for i in range(13))
    assert generate(tmp_path / "few", count=40) == made[1], "a set that grew is the set that was made at once"


@pytest.mark.parametrize(
    "more",
    [{"seed": 1}, {"guidance": 2.0}, {"labels": "3"}, {"steps": 4}, {"sampler": "ancestral"}, {"network_batch": 4}],
)
def test_what_decides_a_set_is_told_from_it(made, copy, capsys, more):
    said = refused(capsys, words(copy, **more))
    assert f"{copy} holds another set: --{next(iter(more)).replace('_', '-')}" in said or "sampler" in said
    assert "nothing was changed there" in said
    assert contents(copy) == made[1]


def test_labels_are_given_in_turn(tmp_path):
    generate(tmp_path / "balanced", count=24, format="npz", shard=8)
    generate(tmp_path / "given", count=8, labels="7,2", format="npz", shard=8)
    labels = [np.load(tmp_path / "balanced" / f"shard-00000{i}.npz")["arr_1"].tolist() for i in range(3)]
    assert np.concatenate(labels).tolist() == [i % 10 for i in range(24)]
    assert np.load(tmp_path / "given" / "shard-000000.npz")["arr_1"].tolist() == [7, 2] * 4


def test_shards_hold_the_pictures_of_the_pngs(made, tmp_path):
    for name, read in (("npz", lambda p: np.load(p)["arr_0"]), ("safetensors", lambda p: load_file(p)["images"])):
        generate(tmp_path / name, format=name, shard=16)
        shards = sorted((tmp_path / name).glob("shard-*"))
        pictures = np.concatenate([read(shard) for shard in shards])
        expected = [np.asarray(Image.open(made[0] / f"{i:08d}.png")) for i in range(40)]
        assert len(shards) == 3
        assert np.array_equal(pictures.squeeze(-1), np.stack(expected))
    assert generate(tmp_path / "again", format="npz", shard=16) == contents(tmp_path / "npz")


def test_a_model_without_labels(tmp_path):
    files = generate(tmp_path / "set", count=9, model=UNLABELLED)
    assert len(files) == 10
    assert read_manifest(tmp_path / "set")["run"]["guidance"] == 1.0


@pytest.mark.parametrize("name", ["reference", "batched-cfg", "limited-guidance", "cast-bf16"])
def test_a_sampler_that_is_bound_anew_is_one_built_anew(name):
    model = load_model(GOOD)
    path = ddim(model.schedule, spaced(model.schedule, 5))
    x = torch.randn(4, *model.shape, generator=torch.Generator().manual_seed(0))
    first, then = (model.condition(torch.tensor(labels)) for labels in ([0, 1, 2, 3], [9, 9, 4, 0]))
    sampler = build(VARIANTS[name], model.network, first, 3.0)
    before = drawing.run(sampler, x, path, drawing.PhiloxNoise(0, range(4)))
    sampler.rebind(then)
    fresh = build(VARIANTS[name], model.network, then, 3.0)
    after = drawing.run(sampler, x, path, drawing.PhiloxNoise(0, range(4)))
    assert torch.equal(after, drawing.run(fresh, x, path, drawing.PhiloxNoise(0, range(4))))
    assert not torch.equal(after, before)
    assert first.value.tolist() == [0, 1, 2, 3], "what was handed in is left alone"
    assert isinstance(then, Condition)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compiled", "all-lossless"])
def test_a_compiled_sampler_is_bound_anew_without_being_compiled_anew(name):
    model = load_model(GOOD)
    path = ddim(model.schedule, spaced(model.schedule, 5))
    x = torch.randn(4, *model.shape, generator=torch.Generator().manual_seed(0))
    first, then = (model.condition(torch.tensor(labels)) for labels in ([0, 1, 2, 3], [9, 9, 4, 0]))
    sampler = build(VARIANTS[name], model.network, first, 3.0)
    drawing.run(sampler, x, path, drawing.PhiloxNoise(0, range(4)))
    sampler.rebind(then)
    plain = build(VARIANTS["reference"], model.network, then, 3.0)
    expected = drawing.run(plain, x, path, drawing.PhiloxNoise(0, range(4)))
    torch.testing.assert_close(drawing.run(sampler, x, path, drawing.PhiloxNoise(0, range(4))), expected)


def test_whatever_was_lost_or_damaged_is_drawn_again(made, copy):
    (copy / "00000003.png").unlink()
    (copy / "00000004.png").write_bytes(b"")
    (copy / "00000030.png").write_bytes(made[1]["00000031.png"])
    (copy / ".00000005.png.partial-0").write_bytes(b"half a pic")
    assert generate(copy) == made[1]


def test_a_solver_with_memory_makes_one_set_too(tmp_path, monkeypatch):
    """Killed between two network calls and gone on with: each picture's history is its own."""
    solver = {"sampler": "dpm++2m-sde", "steps": 4, "spacing": "logsnr"}
    whole = generate(tmp_path / "whole", **solver)
    (tmp_path / "part").mkdir()
    generate(tmp_path / "part", count=16, **solver)
    (tmp_path / "part" / next(name for name in whole if name.endswith("3.png"))).unlink()
    assert generate(tmp_path / "part", **solver) == whole
    assert read_manifest(tmp_path / "part")["set"] == read_manifest(tmp_path / "whole")["set"]
    other = generate(tmp_path / "other", **{**solver, "spacing": "trailing"})
    assert other != whole


def test_a_set_that_would_not_be_guided_is_refused(tmp_path, capsys):
    said = refused(capsys, words(tmp_path / "set", guidance=2, steps=1, variant="limited-guidance"))
    assert "guides where 0.24 < σ <= 2.92 alone, and that is no step of 1; take more steps, or a variant" in said


def test_what_is_there_is_not_drawn_again(made, copy, monkeypatch):
    drawn = []
    group = drawing.Source.group
    monkeypatch.setattr(drawing.Source, "group", lambda self, g: drawn.append(g) or group(self, g))
    (copy / "00000017.png").unlink()
    generate(copy)
    assert drawn == [2]
    generate(copy)
    assert drawn == [2]


def test_a_journal_with_a_cut_line_is_read_as_far_as_it_goes(made, copy):
    stored = json.loads((copy / "manifest.json").read_text())
    files, stored["files"] = stored["files"], {}
    (copy / "manifest.json").write_text(json.dumps(stored))
    lines = "".join(json.dumps(pair) + "\n" for pair in list(files.items())[:20])
    (copy / "journal-0.jsonl").write_text(lines[:-9])
    assert generate(copy) == made[1]


def test_two_ranks_share_the_work_and_make_the_same_set(made, tmp_path, monkeypatch):
    """As torchrun would start them, one after the other instead of side by side."""
    out = tmp_path / "set"
    for rank in (0, 1):
        place = Ranks(rank, 2, rank, lambda: None)
        monkeypatch.setattr(command, "ranks", lambda place=place: nullcontext(place))
        monkeypatch.setattr(folders.Folder, "finish", lambda *_: "not yet")
        assert main(words(out)) == 0
    by_rank = [(out / f"journal-{rank}.jsonl").read_text().count("\n") for rank in (0, 1)]
    assert by_rank == [24, 16]
    monkeypatch.undo()
    assert generate(out) == made[1]


def test_a_rank_that_would_draw_other_bytes_takes_no_part(tmp_path, capsys, monkeypatch):
    """Rank 0 made the set ready on its machine; rank 1 comes from another."""
    out = tmp_path / "set"
    monkeypatch.setattr(folders.Folder, "finish", lambda *_: "not yet")
    monkeypatch.setattr(command, "ranks", lambda: nullcontext(Ranks(0, 2, 0, lambda: None)))
    assert main(words(out)) == 0
    before = contents(out)
    monkeypatch.setattr(command, "ranks", lambda: nullcontext(Ranks(1, 2, 1, lambda: None)))
    monkeypatch.setattr(identity, "kind_of_machine", lambda device: "an abacus")
    said = refused(capsys, words(out))
    assert f"rank 1 cannot take part in {out}: the kind of processor was cpu " in said
    assert "and is an abacus here" in said
    assert contents(out) == before


def decoder(seed: int) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1))


def test_another_decoder_is_another_set():
    model = load_model(GOOD)
    decoders = (None, decoder(0), decoder(0), decoder(1), torch.nn.Sequential(decoder(0), torch.nn.Tanh()))
    digests = [identity.weights_digest(replace(model, decode=decode)) for decode in decoders]
    assert digests[1] == digests[2]
    assert len(set(digests)) == 4
    assert digests[0] == identity.weights_digest(model)


def test_verify_finds_what_is_amiss(made, copy, capsys):
    verify = ["generate", "--out", str(copy), "--verify"]
    assert main(verify) == 0
    assert f"40 samples, every file as it was written; set {read_manifest(copy)['set']}" in capsys.readouterr().out
    (copy / "00000003.png").unlink()
    (copy / "00000004.png").write_bytes(b"other")
    (copy / "holiday.png").write_bytes(b"mine")
    said = refused(capsys, verify)
    for fault in ("00000003.png is missing", "00000004.png does not hold", "holiday.png does not belong", "3 faults"):
        assert fault in said
    assert (copy / "holiday.png").exists()


def test_a_manifest_edited_by_hand_is_found(made, copy, capsys):
    manifest, verify = copy / "manifest.json", ["generate", "--out", str(copy), "--verify"]
    text = manifest.read_text()
    stored = json.loads(text)
    stored["files"]["00000007.png"] = stored["files"]["00000008.png"]
    manifest.write_text(json.dumps(stored))
    said = refused(capsys, verify)
    assert "00000007.png does not hold the bytes that were written" in said
    assert "the manifest's digest of the set is not that of its files" in said
    assert generate(copy) == made[1], "it is drawn again, and the manifest mended"

    manifest.write_text(text.replace('"count": 40', '"count": "forty"'))
    assert "cannot be read as a manifest" in refused(capsys, words(copy))
    manifest.write_text(text[:100])
    assert "cannot be read as a manifest" in refused(capsys, words(copy))
    manifest.write_text(text.replace('"seed": 0', '"seed": 7'))
    assert "--seed was 7, and is 0" in refused(capsys, words(copy))
    manifest.write_text(text.replace('"schema": 1', '"schema": 9'))
    assert "schema 9" in refused(capsys, words(copy))
    assert {**contents(copy), "manifest.json": made[1]["manifest.json"]} == made[1]


def test_folders_that_are_none_of_ours(tmp_path, capsys):
    (tmp_path / "file").write_text("a letter")
    assert "cannot make the folder" in refused(capsys, words(tmp_path / "file"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "00000000.png").write_bytes(b"my photo")
    assert "holds '00000000.png', and no manifest.json" in refused(capsys, words(tmp_path / "photos"))
    assert contents(tmp_path / "photos") == {"00000000.png": b"my photo"}
    assert "holds no manifest.json" in refused(capsys, ["generate", "--out", str(tmp_path / "photos"), "--verify"])
    assert "cannot make the folder /proc/set" in refused(capsys, words("/proc/set"))
    assert (tmp_path / "file").read_text() == "a letter"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"count": 0}, "--count 0 is below 1"),
        ({"count": -3}, "--count -3 is below 1"),
        ({"network_batch": 0}, "--network-batch 0 is below 1"),
        ({"batch": 0}, "--batch 0 is below 1"),
        ({"format": "jpeg"}, "unknown format 'jpeg'"),
        ({"shard": 16}, "--shard is for npz and safetensors"),
        ({"shard": 10, "format": "npz"}, "--shard 10 is no multiple of --network-batch 8"),
        ({"seed": -1}, "--seed -1 is outside"),
        ({"labels": "3,10"}, "outside 0-9"),
        ({"steps": 2000}, "steps = 2000 is outside 1…1000"),
        ({"sampler": "ddpm"}, "unknown sampler 'ddpm'"),
        ({"model": UNLABELLED, "guidance": 2.0}, "takes no labels"),
        ({"model": f"{MODELS}:raises"}, "the disk with the weights is asleep"),
        ({"variant": "fused-drawn"}, "needs the device cuda"),
        ({"weights": "no-such-file"}, "loads its own"),
    ],
)
def test_what_cannot_be_asked_for(tmp_path, capsys, more, reason):
    assert reason in refused(capsys, words(tmp_path / "set", **more))
    assert not list(tmp_path.glob("set/*.png"))


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("other_output", "returned [3, 1, 7, 8] torch.float32 for x [3, 1, 8, 8]"),
        ("random_inside", "answers the same question differently the second time"),
        ("mixes_the_batch", "answers differently for one picture when the others of its batch change"),
    ],
)
def test_a_model_that_no_set_can_be_drawn_from_leaves_no_manifest(tmp_path, capsys, factory, reason):
    said = refused(capsys, words(tmp_path / "set", model=f"{MODELS}:{factory}"))
    assert reason in said
    assert said.count("\n") == 1
    assert not (tmp_path / "set" / "manifest.json").exists()


def test_what_is_odd_about_a_model_is_told_before_it_draws(tmp_path, capsys):
    generate(tmp_path / "set", count=8, model=f"{MODELS}:ignores_time")
    assert capsys.readouterr().err.startswith("note: model mine: its answer does not depend on the timestep\n")


def test_a_count_is_needed_and_a_set_does_not_shrink(made, copy, capsys):
    assert "--count is missing" in refused(capsys, ["generate", "--out", str(copy)])
    assert "is of 40 samples, and --count is 39" in refused(capsys, words(copy, count=39))
    assert contents(copy) == made[1]


def test_a_set_of_shards_grows_by_whole_ones(tmp_path, capsys):
    generate(tmp_path / "set", count=16, format="npz", shard=16)
    generate(tmp_path / "set", count=40, format="npz", shard=16)
    before = contents(tmp_path / "set")
    assert "so it cannot grow" in refused(capsys, words(tmp_path / "set", count=41, format="npz", shard=16))
    assert contents(tmp_path / "set") == before
    assert generate(tmp_path / "at once", count=40, format="npz", shard=16) == before


def test_a_full_disk_is_a_sentence_and_loses_nothing(made, tmp_path, capsys, monkeypatch):
    write, left = folders.write_durably, [20]

    def full(path, content, rank):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        write(path, content, rank)

    monkeypatch.setattr(folders, "write_durably", full)
    said = refused(capsys, words(tmp_path / "set", batch=4))
    assert f"the disk of {tmp_path / 'set'} is full; what was finished is kept" in said
    assert 0 < len(list((tmp_path / "set").glob("*.png"))) < 20
    monkeypatch.undo()
    assert generate(tmp_path / "set") == made[1]


def test_no_permission_is_a_sentence(tmp_path, capsys, monkeypatch):
    def forbidden(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folders, "write_durably", forbidden)
    assert "cannot be written to: Permission denied" in refused(capsys, words(tmp_path / "set"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_is_really_full(made, tmp_path, capsys):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        said = refused(capsys, words(disk / "set", batch=4))
        assert "is full; what was finished is kept" in said
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        assert generate(disk / "set") == made[1]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_network_that_breaks_says_at_which_step(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(drawing, "run", lambda sampler, x, *rest: x * float("nan"))
    monkeypatch.setattr(drawing, "find_first_nonfinite", lambda *_: UsageError("NaN or infinity at step 2 of 3"))
    assert "at step 2 of 3" in refused(capsys, words(tmp_path / "set"))


def test_two_processes_do_not_write_as_the_same_rank(tmp_path, capsys):
    (tmp_path / "set").mkdir()
    with folders.alone(tmp_path / "set", 0):
        assert "another process is writing" in refused(capsys, words(tmp_path / "set"))


def test_the_pace_is_told_now_and_then():
    now, said = [0.0], []
    told = Pace(100, said.append, every_s=10, clock=lambda: now[0])
    for _ in range(10):
        now[0] += 4
        told(10)
    assert said == [
        "30 of 100, 2.5 images/s, 0:28 left", "60 of 100, 2.5 images/s, 0:16 left",
        "90 of 100, 2.5 images/s, 0:04 left", "100 of 100, 2.5 images/s, 0:00 left",
    ]  # fmt: skip


def process(*command, **more) -> subprocess.Popen:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environ, stderr=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True, **more)  # fmt: skip


def wait_for_pictures(out: Path, count: int, running: subprocess.Popen) -> None:
    until = time.monotonic() + PATIENCE_S
    while len(list(out.glob("*.png"))) < count and running.poll() is None and time.monotonic() < until:
        time.sleep(0.005)


@pytest.mark.slow
def test_two_thousand_samples_are_the_same_set_however_they_are_made(tmp_path):
    """One process; two ranks; batches of 64 and of 50; a rank that is killed; a run that is killed five times."""
    common = {"count": 2000, "network_batch": 32, "steps": 12}
    whole = generate(tmp_path / "one", batch=64, **common)
    assert len(whole) == 2001
    assert generate(tmp_path / "fifty", batch=50, **common) == whole

    ranks = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "3", "-m", "sampler"]
    two = process(*ranks, *words(tmp_path / "two", **common))
    assert two.wait(PATIENCE_S) == 0, two.stderr.read()[-2000:]
    assert contents(tmp_path / "two") == whole

    killed, kills = tmp_path / "killed", 0
    while True:
        running = process("-m", "sampler", *words(killed, batch=20, **common))
        if kills == 5:
            assert running.wait(PATIENCE_S) == 0, running.stderr.read()[-2000:]
            break
        wait_for_pictures(killed, len(list(killed.glob("*.png"))) + 200, running)
        running.send_signal(signal.SIGKILL)
        running.wait()
        kills += 1
        assert len(list(killed.glob("*.png"))) < 2000, "it was finished before it could be killed"
    assert contents(killed) == whole

    elastic = process(*ranks, *words(tmp_path / "elastic", batch=20, **common), start_new_session=True)
    wait_for_pictures(tmp_path / "elastic", 100, elastic)
    children = Path(f"/proc/{elastic.pid}/task/{elastic.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, said = elastic.communicate(timeout=PATIENCE_S)
    assert elastic.returncode == 0, said[-2000:]
    assert "exitcode: -9" in said, "no rank was killed"
    assert contents(tmp_path / "elastic") == whole
