"""`pytest bench --benchmark-only`: the options, the one interleaved measurement, and the table at the end."""

from sampler import start

start.loading_in_pytest()  # during the imports that take seconds

import sys
from pathlib import Path

import pytest

from bench import peers_command, store
from bench.__main__ import UNSURE_EXIT, keep, unsure
from bench.contenders import CONTENDERS
from bench.gate import command as gate
from bench.gate import outputs as gate_outputs
from bench.gate.verdict import GateResult
from bench.measurement import Measurement
from bench.options import OUT, add_options, from_options
from bench.progress import Progress
from bench.report import table
from bench.run import measure
from sampler import strict_json
from sampler.errors import UsageError
from sampler.files import writable_folder

# Benchmarks beside the table: they take minutes of their own
ONLY_BY_NAME = ("test_peers.py", "test_pasted.py", "test_update_cost.py")
GATED = pytest.StashKey[GateResult]()
MEASURED = pytest.StashKey[Measurement]()
PATHS = pytest.StashKey[list]()
PEERS_MEASURED = pytest.StashKey[tuple[Measurement, list[Path]]]()
start.loaded()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ddpm-bench", "what to measure, and for how long")
    add_options(group.addoption, prefix="--")
    group.addoption("--out", **OUT)
    group.addoption("--gate-against", metavar="REV", help="judge the rows against another revision of this repository, "
                    "instead of the speed-up table; see `python -m bench gate --help`")  # fmt: skip
    group.addoption("--strict-quality", action="store_true",
                    help="exit 2 where a row is not shown to keep its quality budget")  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    try:
        from_options(config.option)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The gate's tests run only where a revision is named, and then alone; some others only where they are named."""
    if collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    if collection_path.name in ONLY_BY_NAME:
        return None if any(collection_path.stem in str(argument) for argument in config.args) else True
    judges = collection_path.name == "test_gate.py"
    return True if judges != bool(config.getoption("gate_against")) else None


@pytest.fixture(scope="session")
def gated(request: pytest.FixtureRequest) -> GateResult:
    """The selected rows judged against the other revision."""
    config = request.config
    argv = ["--against", config.getoption("gate_against")]
    rows = _rows(request)
    if set(rows) != set(CONTENDERS):  # else all that either revision knows, so that one that has disappeared is MISSING
        argv += ["--rows", ",".join(rows)]
    for name in ("batch", "device", "threads", "budget"):
        if (value := getattr(config.option, name)) is not None:
            argv += [f"--{name}", str(value)]
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(file=sys.stderr)
        with Progress() as progress:
            try:
                result = gate.against(gate.parsed(argv), progress.say)
            except UsageError as error:
                pytest.exit(str(error), returncode=3)
    config.stash[GATED] = result
    return result


def pytest_benchmark_update_json(output_json: dict) -> None:
    """Keep pytest-benchmark's files strict JSON: an end of an interval, or a break-even, may be infinite."""
    made = strict_json.strict(output_json)
    output_json.clear()
    output_json.update(made)


def _rows(request: pytest.FixtureRequest) -> list[str]:
    return [item.callspec.params["row"] for item in request.session.items
            if hasattr(item, "callspec") and "row" in item.callspec.params]  # fmt: skip


def _results(config: pytest.Config) -> Path:
    """The results folder; one that cannot be written to is refused before the work, not after it."""
    try:
        return writable_folder(config.option.out or store.home(from_options(config.option), store.RESULTS))
    except UsageError as error:
        pytest.exit(str(error), returncode=3)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The gate's own exit code: 1 regressed, 2 could not be judged; or that a row's quality is unsure, if asked."""
    result = session.config.stash.get(GATED, None)
    if result is not None and session.exitstatus in (0, 1):
        session.exitstatus = result.exit_code
    measurement = session.config.stash.get(MEASURED, None)
    if session.config.option.strict_quality and session.exitstatus == 0 and measurement and unsure(measurement):
        session.exitstatus = UNSURE_EXIT


@pytest.fixture(scope="session")
def measured(request: pytest.FixtureRequest) -> Measurement:
    """Every row that was selected, measured together, and stored."""
    config = request.config
    rows = _rows(request)
    results = _results(config)
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(file=sys.stderr)
        with Progress() as progress:
            command = "pytest " + " ".join(config.invocation_params.args)
            try:
                measurement = measure(from_options(config.option), rows, progress.say, command, watch=progress.watch)
            except UsageError as error:
                pytest.exit(str(error), returncode=3)
        path, outputs = keep(measurement, results)
    config.stash[MEASURED], config.stash[PATHS] = measurement, [path, *outputs]
    if measurement.interrupted:
        raise KeyboardInterrupt
    return measurement


@pytest.fixture(scope="session")
def peers_measured(request: pytest.FixtureRequest) -> Measurement:
    """Our loops and other implementations', measured together, and stored."""
    config = request.config
    results = _results(config)
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(file=sys.stderr)
        with Progress() as progress:
            command = "pytest " + " ".join(config.invocation_params.args)
            try:
                measurement = peers_command.beside_peers(from_options(config.option), progress.say, command)
            except UsageError as error:
                pytest.exit(str(error), returncode=3)
    config.stash[PEERS_MEASURED] = measurement, peers_command.keep([measurement], results)
    return measurement


def pytest_terminal_summary(terminalreporter, exitstatus: int, config: pytest.Config) -> None:
    if (result := config.stash.get(GATED, None)) is not None:
        terminalreporter.section("gate")
        terminalreporter.write_line(gate_outputs.terminal(result))
        gate_outputs.on_github(gate_outputs.annotations(result), gate_outputs.markdown(result))
    if (beside := config.stash.get(PEERS_MEASURED, None)) is not None:
        terminalreporter.section("beside other implementations")
        terminalreporter.write_line(peers_command.markdown(beside[0]) + "\n" + "\n".join(map(str, beside[1])))
    measurement = config.stash.get(MEASURED, None)
    if measurement is None:
        return
    terminalreporter.section("ddpm-bench")
    terminalreporter.write_line(table.terminal(measurement))
    if measurement.interrupted:
        terminalreporter.write_line("interrupted: what was measured until then is kept", red=True)
    terminalreporter.write_line("")
    for path in config.stash[PATHS]:
        terminalreporter.write_line(str(path))
