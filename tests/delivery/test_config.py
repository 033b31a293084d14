"""Settings of delivery: every mistake is named with its key and its cure."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.core import config
from agent.core.errors import ConfigError
from agent.delivery.config import BrokerConfig, DeliveryConfig


@dataclass(frozen=True, slots=True)
class Whole:
    broker: BrokerConfig
    delivery: DeliveryConfig


@pytest.fixture
def file(tmp_path):
    (tmp_path / "receiver.pub").write_text("key")
    (tmp_path / "secret").write_text("s3cret")
    path = tmp_path / "box.toml"

    def write(broker="", delivery=""):
        path.write_text(
            f'[broker]\n{broker}\n[delivery]\nreceiver_key_path = "receiver.pub"\n{delivery}\n'
        )
        return path

    return write


def test_the_defaults_are_those_of_the_design(file):
    whole = config.load(file(), Whole)
    assert (whole.broker.host, whole.broker.port, whole.broker.keepalive_s) == (
        "127.0.0.1",
        1883,
        30,
    )
    delivery = whole.delivery
    assert (delivery.ack_timeout_s, delivery.receipt_timeout_s) == (30, 30)
    assert (delivery.session_expiry_s, delivery.reconnect_max_s) == (7 * 86_400, 60)


@pytest.mark.parametrize(
    ("broker", "delivery", "words"),
    [
        ('host = ""', "", "broker: host: ''; allowed"),
        ('host = "a b"', "", "broker: host"),
        ("port = 0", "", "broker.port: 0 is out of range"),
        ("port = 70000", "", "broker.port"),
        ('port = "1883"', "", "broker.port"),
        ("keepalive_s = 1", "", "broker.keepalive_s"),
        ('user = "x"\npassword_path = "nowhere"', "", "broker.password_path"),
        ('password_path = "secret"', "", "broker: user: missing"),
        (
            'ca_path = "secret"\ncert_path = "secret"',
            "",
            "cert_path, key_path: allowed: both or neither",
        ),
        ('cert_path = "secret"\nkey_path = "secret"', "", "broker: ca_path: missing"),
        ('ca_path = "nowhere"', "", "broker.ca_path"),
        ("hots = 1", "", "broker.hots: unknown key; did you mean 'host'?"),
        ("", "ack_timeout_s = 0.0", "delivery.ack_timeout_s"),
        ("", "receipt_timeout_s = 301", "delivery.receipt_timeout_s"),
        ("", "window = 0", "delivery.window"),
        ("", "window = 1.5", "delivery.window"),
        ("", "reconnect_max_s = nan", "delivery.reconnect_max_s"),
        ("", "session_expiry_s = -1", "delivery.session_expiry_s"),
        ("", "refused_retry_s = 0", "delivery.refused_retry_s"),
        ("", "max_db_mb = 1", "delivery.max_db_mb"),
    ],
)
def test_each_wrong_value_is_named(file, broker, delivery, words):
    with pytest.raises(ConfigError) as caught:
        config.load(file(broker, delivery), Whole)
    assert len(caught.value.problems) == 1
    assert words in caught.value.problems[0]
    assert "s3cret" not in str(caught.value)


def test_a_missing_receiver_key_is_named(file):
    path = file()
    (path.parent / "receiver.pub").unlink()
    with pytest.raises(ConfigError, match=r"delivery\.receiver_key_path: .*receiver\.pub: No such"):
        config.load(path, Whole)


def test_every_setting_has_its_line_for_the_configuration_page():
    for shape in (BrokerConfig, DeliveryConfig):
        hints = config.get_type_hints(shape, include_extras=True)
        for field in dataclasses.fields(shape):
            _, notes = config.hint_parts(hints[field.name])
            assert config.note(notes, config.Doc).text.endswith((".", "MiB."))
    assert Path("x") == DeliveryConfig(receiver_key_path=Path("x")).receiver_key_path
