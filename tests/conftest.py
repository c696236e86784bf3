"""What every test starts from: no network, no home folder, and the test plug-in model where Python finds it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

PLUGIN = str(Path(__file__).parent / "plugin")
sys.path.insert(0, PLUGIN)
# Worker processes and command lines started by tests find it too.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [PLUGIN, os.environ.get("PYTHONPATH")]))

# Test processes that compile the same functions of librosa at once can spoil what they keep of them (numba).
os.environ["NUMBA_CACHE_DIR"] = str(
    Path(__file__).parents[1] / ".pytest_cache" / f"numba-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
)

# A shell's background job ignores Ctrl-C, and so would the command lines that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run: what fails for one reader fails for all. New ones: --hypothesis-profile=new-examples
settings.register_profile(
    "embedindex",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("new-examples", settings.get_profile("embedindex"), derandomize=False)
settings.load_profile("embedindex")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long runs of tests/torture unless `-m` asks for them (`make torture`)."""
    if "torture" not in config.option.markexpr:
        long = [item for item in items if item.get_closest_marker("torture")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    """Store what coverage has seen while the runner waits: it kills processes that take over ten seconds to end."""
    if "coverage" in sys.modules:
        from coverage import Coverage

        measuring = Coverage.current()
        if measuring is not None:
            measuring.stop()
            measuring.save()


@pytest.fixture(autouse=True)
def _time_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks into files for their length is not given up on a slow machine: tests count what it found."""
    from embedindex.length_probe import LengthProbe

    defaults = LengthProbe.__init__.__kwdefaults__
    assert defaults is not None
    for limit in ("limit_s", "stall_s"):
        monkeypatch.setitem(defaults, limit, 600.0)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """An empty folder for sounds."""
    folder = tmp_path / "library"
    folder.mkdir()
    return folder


@pytest.fixture
def index(tmp_path: Path) -> str:
    """A place for an index, not yet there."""
    return str(tmp_path / "index")
