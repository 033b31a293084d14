"""Two agents with one identity, and a certificate that has run out."""

import datetime as dt
import ssl
import time

from firmware_sim.gate import Gate
from tests.crash.certificates import Authority
from tests.crash.faults.fault import Fault, has_said

CONNECTS_S = 20.0


class Twin(Fault):
    name = "twin"
    about = "a second agent with the same name and key; both are told"
    lasts_s = (10.0, 14.0)

    def inject(self, scene, dice):
        self._since = scene.agent_log.stat().st_size
        scene.start_twin()
        return "a second agent with the same identity"

    def heal(self, scene):
        scene.stop("twin")

    def judge(self, scene):
        logs = {"the agent": (scene.agent_log, self._since), "its twin": (scene.twin_log, 0)}
        return [
            f"{who} was not told that another has its identity"
            for who, (log, since) in logs.items()
            if not has_said(log, "another agent use this name", since=since)
        ]


class CertificateExpired(Fault):
    name = "cert-expired"
    about = "the broker's certificate runs out, and is renewed"
    lasts_s = (3.0, 6.0)
    has_steps = False

    def inject(self, scene, dice):
        folder = scene.folder / "tls"
        folder.mkdir(exist_ok=True)
        authority = Authority(folder)
        day = dt.timedelta(days=1)
        self._good = authority.issue("good", -day, day)
        expired = authority.issue("expired", -2 * day, -day)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(*self._good)
        self._gate = Gate(scene.broker_port, tls=self._tls).start()
        self._plain = dict(scene.extra)
        scene.extra |= {"broker.port": self._gate.port, "broker.ca_path": authority.path}
        scene.extra["broker.host"] = "localhost"
        scene.restart_agent()
        self._has_worked = scene.until(lambda: self._gate.bytes_up > 0, CONNECTS_S)
        time.sleep(dice.uniform(0.5, 3.0))
        self._since = scene.agent_log.stat().st_size
        self._tls.load_cert_chain(*expired)
        self._gate.cut()
        return "the broker's certificate has run out"

    def heal(self, scene):
        before = self._gate.bytes_up
        self._tls.load_cert_chain(*self._good)
        self._has_healed = scene.until(lambda: self._gate.bytes_up > before, CONNECTS_S)
        self._was_told = has_said(scene.agent_log, "expired", since=self._since)
        scene.extra = self._plain
        scene.restart_agent()
        self._gate.close()

    def judge(self, scene):
        return [
            what
            for what, held in {
                "no connection with a good certificate": self._has_worked,
                "the log does not say that the certificate has expired": self._was_told,
                "no connection after it was renewed": self._has_healed,
            }.items()
            if not held
        ]


FAMILY = (Twin, CertificateExpired)
