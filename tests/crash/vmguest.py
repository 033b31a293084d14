"""In the virtual machine: puts rows and seals folders until the power goes, or tells what is left.

Every line on the console is written after the call returned that promises the thing it names.
Beside it goes a file that nobody syncs: what of that is gone shows that the cut really cuts.
"""

import hashlib
import os
import sys
import threading
from contextlib import closing
from pathlib import Path

from agent.core.clock import RealClock
from agent.core.files import write_atomic
from agent.core.model import Lane, Message
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store, read_only
from agent.core.wire import Topics
from agent.delivery.outbox import Outbox

WRITERS = 4
FILE_EVERY = 25  # puts
FILE_BYTES = 200_000


def put_for_ever(folder: Path) -> None:
    """Work until the machine stops."""
    clock = RealClock()
    store = Store(folder / "outpost.db", DEVICE_MIGRATIONS, clock)
    store.open()
    boot = len(list(folder.glob("boot-*"))) + 1
    write_atomic(folder / f"boot-{boot}", b"")
    outbox = Outbox(store, Topics("yard", "cam-1"), clock, boot)
    loose = (folder / f"loose-{boot}").open("w")
    console = threading.Lock()

    def write(writer: int) -> None:
        for number in range(1, 1 << 30):
            body = {"writer": writer, "number": number, "x": "y" * (number * 7 % 400)}
            message_id = outbox.put(Message(Lane.TELEMETRY, "sample", body))
            with console:
                loose.write(f"{message_id}\n")
                loose.flush()
                print(f"put {message_id}", flush=True)
            if number % FILE_EVERY == 0:
                content = os.urandom(FILE_BYTES)
                name = f"{boot}-{writer}-{number}"
                write_atomic(folder / "files" / name, content)
                with console:
                    print(f"file {name} {hashlib.sha256(content).hexdigest()}", flush=True)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def tell(folder: Path) -> None:
    """Print all that is there."""
    with closing(read_only(folder / "outpost.db")) as connection:
        print("check", connection.execute("PRAGMA integrity_check").fetchone()[0], flush=True)
        for row in connection.execute("SELECT message_id FROM outbox"):
            print("put", row["message_id"])
    for path in sorted((folder / "files").glob("*")):
        print("file", path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    for path in sorted(folder.glob("loose-*")):
        for line in path.read_text(errors="replace").split():
            print("loose", line)
    print("told", flush=True)


if __name__ == "__main__":
    {"put": put_for_ever, "tell": tell}[sys.argv[1]](Path(sys.argv[2]))
