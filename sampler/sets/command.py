"""`python -m sampler generate`: a set of samples, drawn by one process or by the ranks that torchrun starts."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from sampler import cpu
from sampler.asked import add_drawing_options, at_least, at_most, class_names, fitting_guidance, parse_labels, path_of
from sampler.errors import UsageError, unknown
from sampler.files import writable_folder
from sampler.lacks import check_device, lacks_told
from sampler.model_check import check, tell
from sampler.models import Model, load_model
from sampler.sets.draw import Pace, Source, Writer, draw, lots
from sampler.sets.folder import Folder, alone, disk_faults_told, faults, read_manifest
from sampler.sets.formats import FORMATS, check_format
from sampler.sets.identity import identify
from sampler.sets.ranks import Ranks, ranks
from sampler.variants import check_guided, variant

SHARD = 256
MOST_FAULTS_TOLD = 20


def run_generate(arguments: argparse.Namespace) -> None:
    """Draw many samples into a folder; a killed run is gone on with by the same command."""
    if arguments.verify:
        return _verify(arguments.out)
    if arguments.count is None:
        raise UsageError("--count is missing: how many samples the set is to hold")
    at_least(1, count=arguments.count, steps=arguments.steps, network_batch=arguments.network_batch,
             batch=arguments.batch, shard=arguments.shard, threads=arguments.threads)  # fmt: skip
    at_most(cpu.usable(), "the CPUs that may be used here", threads=arguments.threads)
    if arguments.format not in FORMATS:
        raise unknown("format", arguments.format, FORMATS)
    if arguments.shard is not None and arguments.format == "png":
        raise UsageError("--shard is for npz and safetensors; a PNG holds one picture")
    shard = 1 if arguments.format == "png" else arguments.shard or SHARD
    if shard > 1 and shard % arguments.network_batch:
        raise UsageError(f"--shard {shard} is no multiple of --network-batch {arguments.network_batch}")
    if not 0 <= arguments.seed < 1 << 64:
        raise UsageError(f"--seed {arguments.seed} is outside 0…2^64-1")
    way = variant(arguments.variant)
    torch.set_num_threads(arguments.threads)
    with ranks() as place:
        _run(arguments, shard, way, place)


def _run(arguments: argparse.Namespace, shard: int, way, place: Ranks) -> None:
    device = place.device(arguments.device)
    check_device(way, device)
    model = load_model(arguments.model, device, arguments.weights)
    check_format(arguments.format, model)
    trajectory = path_of(model, arguments.sampler, arguments.steps, arguments.spacing)
    guidance = fitting_guidance(model, arguments.guidance)
    check_guided(way, trajectory, guidance)
    identity = identify(
        arguments.model, model, trajectory, way, guidance=guidance,
        seed=arguments.seed, labels=_labels(model, arguments), network_batch=arguments.network_batch,
        format=arguments.format, shard=shard,
    )  # fmt: skip
    facts = check(model)  # in every rank, and before the folder becomes a set's
    if place.rank == 0:
        tell(facts)
    folder = Folder(writable_folder(arguments.out), identity)
    with lacks_told(way), disk_faults_told(folder.path), alone(folder.path, place.rank):
        if place.rank == 0:
            folder.prepare(arguments.count)
        place.wait()
        if difference := folder.difference():
            raise UsageError(
                f"rank {place.rank} cannot take part in {folder.path}: {difference} here; its samples would be others"
            )
        count, say = arguments.count, _teller(place)
        mine = list(lots(folder, count, place.rank, place.world))
        whole = folder.whole([piece for lot in mine for piece in lot])
        missing = [left for lot in mine if (left := [piece for piece in lot if piece.name not in whole])]
        todo = sum(len(piece.ids) for lot in missing for piece in lot)
        if whole:
            had = sum(len(piece.ids) for lot in mine for piece in lot) - todo
            say(f"{had:,} samples are there already")
        told = Pace(todo, say, every_s=1.0 if sys.stderr.isatty() else 10.0)
        with Writer(folder, place.rank, arguments.batch if shard == 1 else 1, told) as writer:
            draw(Source(model, trajectory, way, identity), missing, writer.put)
        place.wait()
        if place.rank == 0:
            print(f"{folder.path}: {count:,} samples, set {folder.finish(count, place.world)}")
        place.wait()


def _labels(model: Model, arguments: argparse.Namespace) -> tuple[int, ...]:
    """The labels that samples get in turn: those asked for, or all of the model's, so that the set is balanced."""
    if arguments.labels is None:
        return tuple(range(model.classes))
    return tuple(parse_labels(arguments.labels, model.classes, class_names(arguments.model)))


def _verify(path: Path) -> None:
    found = faults(path)
    for fault in found[:MOST_FAULTS_TOLD]:
        print(fault, file=sys.stderr)
    if found:
        more = f" ({MOST_FAULTS_TOLD} are shown)" if len(found) > MOST_FAULTS_TOLD else ""
        raise UsageError(
            f"{path}: {len(found):,} fault{'s' * (len(found) > 1)}{more}; the command that made it mends it"
        )
    stored = read_manifest(path)
    print(f"{path}: {stored['count']:,} samples, every file as it was written; set {stored['set']}")


def _teller(place: Ranks) -> Callable[[str], None]:
    who = f"rank {place.rank} of {place.world}: " if place.world > 1 else ""
    end = "\r" if sys.stderr.isatty() and place.world == 1 else "\n"

    def say(text: str) -> None:
        print(f"{who}{text}   ", end=end, file=sys.stderr, flush=True)

    return say


def add_to(command: Callable) -> None:
    given = "default: %(default)s"
    add = command(
        "generate", run_generate,
        "python -m sampler generate --count 50000 --out set --sampler ddim --steps 50\n"
        "  torchrun --nproc-per-node 2 -m sampler generate --count 50000 --out set --sampler ddim --steps 50\n"
        "  python -m sampler generate --out set --verify\n\n"
        "Each sample is decided by the model, the sampler, the guidance, the seed, the variant, the samples of a\n"
        "network call (--network-batch) and its own number: not by --batch, the number of processes, or what\n"
        "interrupted them.",
    ).add_argument  # fmt: skip
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the set: new, empty, or of the same set")
    add("--count", type=int, metavar="N", help="samples in the set; a set may be made larger later")
    add(
        "--verify", action="store_true", help="draw nothing: check every file of the set, and exit 3 where one is amiss"
    )
    add("--format", default="png", help=f"png, or shards of uint8 pictures: npz, safetensors ({given})")
    add(
        "--shard",
        type=int,
        metavar="N",
        help=f"samples a shard, lost together where a run is killed (default: {SHARD})",
    )
    add("--labels", metavar="L", help="given to the samples in turn: '0-9', '0,3,5', names (default: all, so balanced)")
    add_drawing_options(add)
    add("--device", default="cpu", help=f"cpu or cuda; under torchrun each rank takes its own GPU ({given})")
    add("--network-batch", type=int, default=32, metavar="N",
        help=f"samples a network call; they decide the last bits, so a set has one number ({given})")  # fmt: skip
    add(
        "--batch", type=int, default=64, metavar="N", help=f"files written between two notes of what is there ({given})"
    )
    add("--threads", type=int, default=1, help=f"CPU threads of a process; they may decide the last bits ({given})")
