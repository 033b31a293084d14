"""Processes that end or stand still from one instant to the next."""

import os
import signal
import time

from tests.crash.faults.fault import Fault


class KillAgent(Fault):
    name = "kill-agent"
    about = "kill -9 of the agent's main process; its analysis goes with it"
    lasts_s = (0.0, 2.5)

    def inject(self, scene, dice):
        scene.kill("agent")
        return "kill -9 agent"

    def heal(self, scene):
        scene.start_agent()


class KillAnalysis(Fault):
    name = "kill-analysis"
    about = "kill -9 of every child of the agent"
    lasts_s = (0.0, 1.0)

    def inject(self, scene, dice):
        children = scene.children("agent")
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                print(f"process {pid} had already ended")
        return f"kill -9 of {len(children)} children of the agent"

    def heal(self, scene):
        pass  # the agent starts them again by itself


class KillBroker(Fault):
    name = "kill-broker"
    about = "kill -9 of the broker"
    lasts_s = (0.0, 4.0)

    def inject(self, scene, dice):
        scene.broker.kill()
        return "kill -9 broker"

    def heal(self, scene):
        scene.start_broker()


class KillReceiver(Fault):
    name = "kill-receiver"
    about = "kill -9 of the receiver"
    lasts_s = (0.0, 4.0)

    def inject(self, scene, dice):
        scene.kill("receiver")
        return "kill -9 receiver"

    def heal(self, scene):
        scene.start_receiver()


class KillAll(Fault):
    name = "kill-all"
    about = "kill -9 of agent, broker and receiver at once; they come back in any order"
    lasts_s = (0.0, 2.0)

    def inject(self, scene, dice):
        scene.kill("agent")
        scene.broker.kill()
        scene.kill("receiver")
        self._order = dice.sample((scene.start_agent, scene.start_broker, scene.start_receiver), 3)
        return "kill -9 of everything"

    def heal(self, scene):
        for start in self._order:
            start()
            time.sleep(0.3)


class Frozen(Fault):
    name = "frozen"
    about = "SIGSTOP of agent, receiver or broker: nothing is closed, nothing answers"
    lasts_s = (2.0, 9.0)

    def inject(self, scene, dice):
        victim = dice.choice(("agent", "receiver", "broker"))
        self._pid = scene.broker.pid if victim == "broker" else scene.processes[victim].pid
        os.kill(self._pid, signal.SIGSTOP)
        return f"{victim} stands still"

    def heal(self, scene):
        os.kill(self._pid, signal.SIGCONT)


FAMILY = (KillAgent, KillAnalysis, KillBroker, KillReceiver, KillAll, Frozen)
