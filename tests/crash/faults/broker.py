"""A broker that forgets, refuses or shows a certificate of yesterday."""

import shutil

from tests.crash.faults.fault import Fault

NOT_AUTHORIZED, QUOTA_EXCEEDED, NOBODY_LISTENING = 0x87, 0x97, 0x10


class Forgetful(Fault):
    name = "broker-forgets"
    about = "broker killed, everything it had kept deleted, started again: all sessions lost"
    lasts_s = (0.0, 3.0)

    def inject(self, scene, dice):
        scene.broker.kill()
        shutil.rmtree(scene.broker_folder)
        return "broker killed, its memory deleted"

    def heal(self, scene):
        scene.start_broker()


class _Refuses(Fault):
    lasts_s = (1.0, 6.0)
    code = 0

    def inject(self, scene, dice):
        scene.device_gate.set(answer_code=self.code)
        return f"every message of the agent is answered with 0x{self.code:02x}"

    def heal(self, scene):
        scene.device_gate.set()
        if self.code == NOT_AUTHORIZED:  # a person mends the list and starts the agent again
            scene.restart_agent()


class AclRefused(_Refuses):
    name = "acl-refused"
    about = "PUBACK 0x87: not authorized"
    lasts_s = (1.0, 4.0)
    code = NOT_AUTHORIZED


class QuotaExceeded(_Refuses):
    name = "quota"
    about = "PUBACK 0x97: quota exceeded"
    code = QUOTA_EXCEEDED


class NobodyListens(_Refuses):
    name = "nobody-listens"
    about = "PUBACK 0x10: no matching subscribers"
    code = NOBODY_LISTENING


FAMILY = (Forgetful, AclRefused, QuotaExceeded, NobodyListens)
