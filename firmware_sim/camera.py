"""A simulated fixed camera: RTSP with a main and a sub stream, and a control port for faults.

    python -m firmware_sim.camera --port 8554 --control-port 8555 --main FILE --sub FILE \
        --user U --password W [--audio] [--tls PEM] [--seed N]

The control port takes one JSON object a line and answers with one: {"do": "drop"},
{"do": "stall", "for_s": 5}, {"do": "resume"}, {"do": "restart", "for_s": 2}, {"do": "refuse"},
{"do": "accept"}, {"do": "clock", "offset_s": -3600}, {"do": "play", "stream": "main",
"file": FILE}, {"do": "unlock"}, {"do": "set", FAULT: VALUE, …}, {"do": "reset"}, {"do": "stats"};
the faults stand in `faults`. A wrong order is told what is allowed and changes nothing.
"""

import argparse
import asyncio
import dataclasses
import json
import math
import random
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from firmware_sim.faults import LIMITS, MAX_S, Faults, WrongValue, number
from firmware_sim.playout import Playout, read
from firmware_sim.rtsp_server import MAX_HEADER_BYTES, Camera

Answer = Mapping[str, Any]


class Control:
    """The control port: faults on request."""

    def __init__(
        self, camera: Camera, host: str, port: int, tls: ssl.SSLContext | None = None
    ) -> None:
        self._camera = camera
        self._host = host
        self._port = port
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._actions: Mapping[str, Callable[[Mapping[str, Any]], Awaitable[Answer]]] = {
            "drop": self._drop,
            "stall": self._stall,
            "resume": self._resume,
            "restart": self._restart,
            "refuse": self._refuse,
            "accept": self._accept,
            "clock": self._clock,
            "play": self._play,
            "unlock": self._unlock,
            "set": self._set,
            "reset": self._reset,
            "stats": self._stats,
        }

    async def listen(self) -> int:
        """Open the camera's own port and give its number."""
        self._server = await asyncio.start_server(
            self._camera.serve, self._host, self._port, limit=MAX_HEADER_BYTES, ssl=self._tls
        )
        self._port = int(self._server.sockets[0].getsockname()[1])
        return self._port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take orders, a line each, until the other side closes."""
        try:
            while (answer := await self._next_answer(reader)) is not None:
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            pass  # whoever asked has gone
        finally:
            writer.close()

    async def _next_answer(self, reader: asyncio.StreamReader) -> Answer | None:
        try:
            line = await reader.readline()
            if not line:
                return None
            order = json.loads(line)
            return await self._actions[order["do"]](order)
        except WrongValue as error:
            return {"ok": False, "error": str(error)}
        except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
            allowed = ", ".join(self._actions)
            return {"ok": False, "error": f"{type(error).__name__}; allowed: do = {allowed}"}

    async def _drop(self, _order: Mapping[str, Any]) -> Answer:
        return {"ok": True, "dropped": self._camera.drop_all()}

    async def _stall(self, order: Mapping[str, Any]) -> Answer:
        for_s = number(order["for_s"], "for_s", 0, MAX_S) if "for_s" in order else math.inf
        self._camera.faults.stalled_until_s = time.monotonic() + for_s
        return {"ok": True}

    async def _resume(self, _order: Mapping[str, Any]) -> Answer:
        self._camera.faults.stalled_until_s = 0.0
        return {"ok": True}

    async def _restart(self, order: Mapping[str, Any]) -> Answer:
        for_s = number(order.get("for_s", 1.0), "for_s", 0, MAX_S)
        if self._server is not None:
            self._server.close()
        self._camera.drop_all()
        await asyncio.sleep(for_s)
        await self.listen()
        return {"ok": True}

    async def _refuse(self, _order: Mapping[str, Any]) -> Answer:
        self._camera.faults.is_refusing = True
        return {"ok": True, "dropped": self._camera.drop_all()}

    async def _accept(self, _order: Mapping[str, Any]) -> Answer:
        self._camera.faults.is_refusing = False
        return {"ok": True}

    async def _clock(self, order: Mapping[str, Any]) -> Answer:
        limits = LIMITS["clock_offset_s"]
        self._camera.faults.clock_offset_s = number(order.get("offset_s"), "offset_s", *limits)
        return {"ok": True}

    async def _play(self, order: Mapping[str, Any]) -> Answer:
        playout = self._camera.playouts.get(f"/{order.get('stream', 'main')}")
        if playout is None:
            raise WrongValue(f"stream {order.get('stream')!r:.40}; allowed: main, sub")
        try:
            playout.switch(await asyncio.to_thread(read, Path(str(order.get("file")))))
        except (OSError, ValueError) as error:
            raise WrongValue(str(error)[:200]) from error
        return {"ok": True}

    async def _unlock(self, _order: Mapping[str, Any]) -> Answer:
        self._camera.counters.is_locked = False
        self._camera.counters.failed_logins = 0
        return {"ok": True}

    async def _set(self, order: Mapping[str, Any]) -> Answer:
        self._camera.faults.change({name: value for name, value in order.items() if name != "do"})
        return {"ok": True}

    async def _reset(self, _order: Mapping[str, Any]) -> Answer:
        self._camera.faults.reset()
        return {"ok": True}

    async def _stats(self, _order: Mapping[str, Any]) -> Answer:
        counters = dataclasses.asdict(self._camera.counters)
        clients = len(self._camera.connections)
        return {"ok": True, "clients": clients, "playing": self._camera.playing, **counters}


async def serve(options: argparse.Namespace) -> None:
    """Run the camera until cancelled; prints its ports once it listens."""
    playouts = {"/main": Playout(read(options.main))}
    if options.sub is not None:
        playouts["/sub"] = Playout(read(options.sub))
    camera = Camera(
        playouts,
        options.user,
        _password(options),
        options.host,
        options.audio,
        faults=Faults(dice=random.Random(options.seed)),
    )
    control = Control(camera, options.host, options.port, _tls(options))
    rtsp_port = await control.listen()
    control_server = await asyncio.start_server(control.serve, options.host, options.control_port)
    control_port = control_server.sockets[0].getsockname()[1]
    print(json.dumps({"rtsp_port": rtsp_port, "control_port": control_port}), flush=True)
    async with asyncio.TaskGroup() as tasks:
        for playout in playouts.values():
            tasks.create_task(playout.play())
        tasks.create_task(control_server.serve_forever())


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="firmware_sim.camera", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8554, help="RTSP; 0 takes a free one")
    parser.add_argument("--control-port", type=int, default=8555, help="0 takes a free one")
    parser.add_argument("--main", type=Path, required=True, help="MP4 with H.264 or H.265")
    parser.add_argument("--sub", type=Path, help="the same for /sub")
    parser.add_argument("--audio", action="store_true", help="a second track with G.711")
    parser.add_argument("--tls", type=Path, help="certificate and key in one file: rtsps")
    parser.add_argument("--seed", type=int, default=0, help="of the faults that need chance")
    parser.add_argument("--user", default="", help="empty: no login")
    parser.add_argument("--password", default="")
    parser.add_argument("--password-file", type=Path)
    options = parser.parse_args(argv)
    try:
        asyncio.run(serve(options))
    except KeyboardInterrupt:
        return 0
    except (OSError, ValueError) as error:
        print(f"firmware_sim.camera: {error}", file=sys.stderr)
        return 1
    return 0


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    if options.tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.tls)
    return context


def _password(options: argparse.Namespace) -> str:
    if options.password_file is None:
        return str(options.password)
    return str(options.password_file.read_text().splitlines()[0])


if __name__ == "__main__":
    sys.exit(main())
