"""Recordings that the tests of the dock share."""

import pytest

from tests.docking.clips import Stock


@pytest.fixture(scope="session")
def stock(tmp_path_factory) -> Stock:
    return Stock(tmp_path_factory.mktemp("recordings"))
