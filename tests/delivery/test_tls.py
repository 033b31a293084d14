"""TLS to a real broker: both sides prove who they are, and a stranger is not talked to."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.core.clock import RealClock
from agent.core.errors import AgentError, UplinkDown
from agent.delivery.config import BrokerConfig
from agent.delivery.session import Acked, MqttSession, Received, SessionOptions
from firmware_sim import broker as brokers

pytestmark = pytest.mark.broker


class Authority:
    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.path = folder / f"{name}.pem"
        certificate = self._sign(self.subject, self.key, is_ca=True)
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name, *alternatives):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key, alternatives=alternatives)
        stem = self.folder / f"{self.name}-{name}"
        stem.with_suffix(".pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        stem.with_suffix(".key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return stem.with_suffix(".pem"), stem.with_suffix(".key")

    def _sign(self, subject, key, *, is_ca=False, alternatives=()):
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if alternatives:
            names = [x509.DNSName(name) for name in alternatives]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())


@pytest.fixture
def site(mosquitto, tmp_path):
    mosquitto.stop()
    authority = Authority(tmp_path, "site")
    certificate, key = authority.issue("broker", "localhost")
    extra = (
        f"cafile {authority.path}\ncertfile {certificate}\nkeyfile {key}\n"
        "require_certificate true\nuse_identity_as_username true"
    )
    with brokers.start("mosquitto", directory=tmp_path / "tls", extra=extra) as broker:
        yield authority, broker


def config(authority, broker, *, host="localhost", identity=None):
    certificate, key = identity or authority.issue("cam-1")
    return BrokerConfig(
        host=host, port=broker.port, ca_path=authority.path, cert_path=certificate, key_path=key
    )


def test_messages_pass_both_ways_also_large_ones(site):
    authority, broker = site
    session = MqttSession(config(authority, broker), SessionOptions("cam-1"), RealClock())
    session.connect()
    session.subscribe(["big/#"])
    payload = bytes(range(256)) * 1024
    tokens = {session.publish("big/x", payload) for _ in range(4)}
    events = []
    for _ in range(100):
        events += session.poll(0.1)
        if len(events) == 8:
            break
    assert {event.token for event in events if isinstance(event, Acked)} == tokens
    assert [e.payload for e in events if isinstance(e, Received)] == [payload] * 4
    session.close()


@pytest.mark.parametrize("what", ["another authority", "another name", "no certificate of ours"])
def test_a_stranger_is_not_talked_to(what, site, tmp_path):
    authority, broker = site
    if what == "another authority":
        stranger = Authority(tmp_path, "stranger")
        settled = config(stranger, broker, identity=authority.issue("cam-1"))
    elif what == "another name":
        settled = config(authority, broker, host="127.0.0.1")
    else:
        settled = config(authority, broker, identity=Authority(tmp_path, "other").issue("cam-1"))
    with pytest.raises(AgentError) as caught:
        MqttSession(settled, SessionOptions("cam-1"), RealClock()).connect()
    assert isinstance(caught.value, UplinkDown)
    assert f"broker {settled.host}:{broker.port}" in str(caught.value)


def test_a_broken_key_file_is_told_not_raised_through(site, tmp_path):
    authority, broker = site
    bad = tmp_path / "bad.pem"
    bad.write_text("no key")
    settled = config(authority, broker, identity=(bad, bad))
    with pytest.raises(UplinkDown):
        MqttSession(settled, SessionOptions("cam-1"), RealClock()).connect()
