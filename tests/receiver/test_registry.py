"""Who is known: a key file a device, looked at again when it changes; and the settings."""

import os
from pathlib import Path

import pytest

from agent.core.errors import ConfigError
from agent.delivery.config import BrokerConfig
from agent.receiver.config import ReceiverConfig
from agent.receiver.registry import Registry
from tests.receiver.rig import Device


@pytest.fixture
def folder(tmp_path):
    Device(tmp_path).register(tmp_path / "devices")
    return tmp_path / "devices"


def test_registered_device_is_known_and_others_are_not(folder, tmp_path):
    registry = Registry(folder)
    assert registry.key("cam-1") == Device(tmp_path).key.public
    assert registry.key("cam-2") is None


def test_key_that_is_changed_added_or_removed_counts_at_once(folder, tmp_path):
    registry = Registry(folder)
    old = registry.key("cam-1")
    new = Device(tmp_path / "new").key.public
    (folder / "cam-1.pub").write_bytes(new.pem)
    os.utime(folder / "cam-1.pub", ns=(1, 1))
    assert registry.key("cam-1") == new != old
    (folder / "cam-1.pub").rename(folder / "cam-2.pub")
    assert registry.key("cam-1") is None
    assert registry.key("cam-2") == new


@pytest.mark.parametrize(
    "name", ["", "..", "../cam-1", "Cam-1", "cam-1\0", "cam-1\n", "x" * 64, "x" * 5000, "\udcff"]
)
def test_name_that_is_no_name_is_nobody(folder, name):
    assert Registry(folder).key(name) is None


def test_file_that_is_no_key_is_nobody_until_it_is_mended(folder, tmp_path):
    (folder / "cam-1.pub").write_bytes(b"garbage")
    registry = Registry(folder)
    assert registry.key("cam-1") is None
    (folder / "cam-1.pub").write_bytes(Device(tmp_path).key.public.pem)
    os.utime(folder / "cam-1.pub", ns=(1, 1))
    assert registry.key("cam-1") is not None


def test_missing_folder_knows_nobody(tmp_path):
    assert Registry(tmp_path / "none").key("cam-1") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "Centre 1"}, "name: 'Centre 1'; allowed: 1-63 of"),
        ({"site": "a/b"}, "site: 'a/b'; allowed: 1-63 of"),
        ({"retention_days": -1}, "retention_days: -1; allowed: 0 to"),
    ],
)
def test_settings_that_could_not_be_signed_are_refused(change, words):
    fields = {"site": "plaza", "store_dir": Path("s"), "devices_dir": Path("d")} | change
    with pytest.raises(ConfigError, match=words):
        ReceiverConfig(broker=BrokerConfig(), **fields)
