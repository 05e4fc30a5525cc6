"""`pytest bench --benchmark-only`: the options, the one interleaved measurement, and the table at the end."""

import sys

import pytest

from bench import store
from bench.__main__ import keep
from bench.measurement import Measurement
from bench.options import add_options, from_options
from bench.progress import Progress
from bench.report import table
from bench.run import measure
from sampler.errors import UsageError

MEASURED = pytest.StashKey[Measurement]()
PATHS = pytest.StashKey[list]()


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser.getgroup("ddpm-bench", "what to measure, and for how long").addoption, prefix="--")


def pytest_configure(config: pytest.Config) -> None:
    try:
        from_options(config.option)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="session")
def measured(request: pytest.FixtureRequest) -> Measurement:
    """Every row that was selected, measured together, and stored."""
    config = request.config
    rows = [item.callspec.params["row"] for item in request.session.items
            if hasattr(item, "callspec") and "row" in item.callspec.params]  # fmt: skip
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(file=sys.stderr)
        with Progress() as progress:
            command = "pytest " + " ".join(config.invocation_params.args)
            try:
                measurement = measure(from_options(config.option), rows, progress.say, command)
            except UsageError as error:
                pytest.exit(str(error), returncode=3)
        path, outputs = keep(measurement, store.RESULTS)
    config.stash[MEASURED], config.stash[PATHS] = measurement, [path, *outputs]
    if measurement.interrupted:
        raise KeyboardInterrupt
    return measurement


def pytest_terminal_summary(terminalreporter, exitstatus: int, config: pytest.Config) -> None:
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
