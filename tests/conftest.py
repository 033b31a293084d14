"""Real parts for the tests: clocks, a device store, and brokers of both kinds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.core.clock import RealClock
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from firmware_sim import broker as brokers


@pytest.fixture
def clock() -> RealClock:
    return RealClock()


@pytest.fixture
def store(tmp_path: Path, clock: RealClock) -> Iterator[Store]:
    opened = Store(tmp_path / "outpost.db", DEVICE_MIGRATIONS, clock)
    opened.open()
    yield opened
    opened.close()


@pytest.fixture(params=["embedded", "mosquitto"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[brokers.Broker]:
    if request.param == "mosquitto" and brokers.mosquitto_path() is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
    started = brokers.start(request.param, directory=tmp_path / "broker")
    yield started
    started.stop()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[brokers.Broker]:
    started = brokers.start("embedded", directory=tmp_path / "broker")
    yield started
    started.stop()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[brokers.Broker]:
    if brokers.mosquitto_path() is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
    started = brokers.start("mosquitto", directory=tmp_path / "broker")
    yield started
    started.stop()
