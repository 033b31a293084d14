"""The way between the agent and its broker, or the receiver and its broker, goes bad.

Made by `firmware_sim.gate`, a TCP proxy that both go through: it needs no right and no kernel
module. Loss is there what TCP lets a program see of it, lateness; the kernel's own congestion
control is measured elsewhere, between namespaces.
"""

from typing import ClassVar

from tests.crash.faults.fault import Fault


class _Weather(Fault):
    lasts_s = (3.0, 8.0)
    weather: ClassVar[dict[str, float | bool]] = {}

    def inject(self, scene, dice):
        where = dice.choice(("agent", "agent", "receiver"))
        self._gate = scene.device_gate if where == "agent" else scene.centre_gate
        weather = self.choose(dice)
        self._gate.set(**weather)
        words = ", ".join(f"{key} {value:g}" for key, value in weather.items())
        return f"between {where} and broker: {words}"

    def choose(self, dice):
        return dict(self.weather)

    def heal(self, scene):
        self._gate.set()


class Partition(_Weather):
    name = "partition"
    about = "no byte passes, either way; nobody is told"
    lasts_s = (2.0, 12.0)
    weather: ClassVar = {"is_up_blocked": True, "is_down_blocked": True}


class PartitionUp(_Weather):
    name = "partition-up"
    about = "what the client says is not heard; what the broker says is"
    lasts_s = (2.0, 12.0)
    weather: ClassVar = {"is_up_blocked": True}


class PartitionDown(_Weather):
    name = "partition-down"
    about = "the broker hears, its answers do not come back"
    lasts_s = (2.0, 12.0)
    weather: ClassVar = {"is_down_blocked": True}


class Loss(_Weather):
    name = "loss"
    about = "1 % or 5 % of the segments lost, 80 ms round trip"

    def choose(self, dice):
        return {"loss_frac": dice.choice((0.01, 0.05)), "delay_s": 0.04}


class Far(_Weather):
    name = "far"
    about = "80 to 600 ms round trip"

    def choose(self, dice):
        return {"delay_s": round(dice.uniform(0.04, 0.3), 3)}


class Narrow(_Weather):
    name = "narrow"
    about = "64 kbit/s"
    weather: ClassVar = {"rate_bytes_per_s": 8000.0}


class HalfOpen(_Weather):
    name = "half-open"
    about = "silence, and afterwards every connection is gone without a word"
    lasts_s = (3.0, 12.0)
    weather: ClassVar = {"is_up_blocked": True, "is_down_blocked": True}

    def heal(self, scene):
        self._gate.cut()
        super().heal(scene)


class Resets(_Weather):
    name = "resets"
    about = "connections are reset, and new ones for a while too"
    lasts_s = (0.0, 6.0)
    weather: ClassVar = {"is_refusing": True}

    def inject(self, scene, dice):
        told = super().inject(scene, dice)
        self._gate.cut()
        return told


class AcksLost(_Weather):
    name = "acks-lost"
    about = "the broker takes everything and no acknowledgement comes back"
    lasts_s = (4.0, 10.0)
    weather: ClassVar = {"has_acks": False}


FAMILY = (Partition, PartitionUp, PartitionDown, Loss, Far, Narrow, HalfOpen, Resets, AcksLost)
