"""Random faults at a dock, a few in every run of the tests; the command does thousands."""

import pytest

from tests.docking import sequences
from tests.docking.sequences import Lost


def many(count):
    for seed in range(1, count):
        sequences.one(seed)


@pytest.mark.parametrize("seed", range(1, 21))
def test_nothing_is_lost_and_nothing_wiped_without_a_receipt(seed):
    told = sequences.one(seed)
    assert told[-1] == "finish"


def test_the_check_sees_a_wipe_without_a_receipt(monkeypatch):
    monkeypatch.setattr("agent.roles.dock._check_receipts", lambda *_: None)
    with pytest.raises(Lost, match="the centre has not signed"):
        many(40)


def test_the_check_sees_a_wipe_of_other_bytes(monkeypatch):
    monkeypatch.setattr("agent.docking.intake.Intake.compare", lambda *_, **__: None)
    with pytest.raises(Lost, match="neither there"):
        many(40)
