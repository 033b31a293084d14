"""In the receiver's place sits one that lies; the true one comes back and nothing is believed."""

import sys

from tests.crash.faults.fault import Fault


class _Lies(Fault):
    lasts_s = (4.0, 8.0)
    lie = ""

    def inject(self, scene, dice):
        scene.kill("receiver")
        argv = [sys.executable, "-m", "tests.crash.liar"]
        scene.start("liar", [*argv, str(scene.broker_port), str(scene.store), self.lie])
        return f"a receiver that lies: {self.lie}"

    def heal(self, scene):
        scene.kill("liar")
        scene.start_receiver()


class WrongSignature(_Lies):
    name = "lie-signature"
    about = "receipts with a wrong signature"
    lie = "wrong-signature"


class OtherKey(_Lies):
    name = "lie-key"
    about = "receipts signed by somebody else's key"
    lie = "other-key"


class OtherFile(_Lies):
    name = "lie-other-file"
    about = "receipts, well signed, for another file and another device"
    lie = "other-file"


class AbsurdNeed(_Lies):
    name = "lie-absurd-need"
    about = "need for ranges that do not exist"
    lie = "absurd-need"


class EndlessNeed(_Lies):
    name = "lie-endless-need"
    about = "need for the whole file, again and again"
    lie = "endless-need"


FAMILY = (WrongSignature, OtherKey, OtherFile, AbsurdNeed, EndlessNeed)
