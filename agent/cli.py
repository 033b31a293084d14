"""The command `outpost`: reads arguments and prints; what it does stands in `app`.

Exit codes: 0 done, 1 failed or not true, 2 wrong words, 78 a configuration to be mended.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent import (
    app,
    cli_cameras,
    cli_dock,
    cli_docking,
    cli_files,
    cli_flight,
    cli_keeping,
    cli_outbox,
    cli_workbench,
    dockdesk,
)
from agent.cli_words import (
    EXIT_CONFIG,
    EXIT_FAILED,
    EXIT_OK,
    Command,
    cell,
    command,
    config_options,
    print_lines,
    print_table,
)
from agent.core import log
from agent.core.errors import AgentError, ConfigError

MOST_DICTIONARY_KIB = 256


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    options = _parser().parse_args(argv)
    log.setup(verbose=options.verbose)
    chosen: Command = options.command
    try:
        return chosen(options)
    except ConfigError as error:
        for problem in error.problems:
            print(f"outpost: {log.redact(problem)}", file=sys.stderr)
        return EXIT_CONFIG
    except AgentError as error:
        print(f"outpost: {log.redact(str(error))}", file=sys.stderr)
        return EXIT_FAILED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe has gone: nobody is left to tell
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="outpost", description="Edge agent for cameras, body-camera docks and drones."
    )
    parser.add_argument("--verbose", action="store_true", help="log for developers")
    words = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_device_commands(words)
    _add_hand_commands(words)
    cli_keeping.add(words)
    cli_outbox.add(words)
    cli_files.add(words)
    cli_flight.add(words)
    cli_cameras.add(words)
    cli_dock.add(words)
    cli_docking.add(words)
    cli_workbench.add(words)
    _add_centre_commands(words)
    return parser


def _add_device_commands(words: Any) -> None:
    run = command(words, "run", _run, "run the agent until it is told to stop")
    config_options(run)
    check = command(words, "check", _check, "read a configuration and name every mistake")
    config_options(check, is_required=False)
    check.add_argument("--page", action="store_true", help="print docs/CONFIG.md instead")
    check.add_argument("--json", action="store_true", help="print the effective values")
    status = command(words, "status", _status, "what the agent does and holds right now")
    config_options(status)
    status.add_argument("--json", action="store_true")
    inspect = command(words, "inspect", _inspect, "rows of the box's database")
    inspect.add_argument("topic", choices=app.INSPECT_TOPICS)
    config_options(inspect)
    inspect.add_argument("--limit", type=int, default=20, help="how many rows (20)")
    inspect.add_argument("--json", action="store_true")
    key = command(words, "key", _key, "make a key at first use, print the public key's file")
    key.add_argument("whose", choices=("device", "receiver", "rotate-receiver"))
    config_options(key, is_required=False)
    key.add_argument("--store", type=Path, help="the receiver's folder")
    key.add_argument("--site", default="", help="rotate-receiver: the site's name")
    key.add_argument("--to", type=Path, help="rotate-receiver: the next receiver's public key")
    key.add_argument("--out", type=Path, help="rotate-receiver --to: where the chain is written")
    analysis = command(words, "analysis", _analysis, argparse.SUPPRESS)
    config_options(analysis)


def _add_hand_commands(words: Any) -> None:
    detect = command(words, "detect", _detect, "detections and tracks of a video, by hand")
    detect.add_argument("video", metavar="VIDEO_OR_URL")
    detect.add_argument("--jsonl", action="store_true", help="one JSON object a line")
    detect.add_argument("--every", type=int, default=1, metavar="N", help="every Nth frame (1)")
    detect.add_argument("--min-score", type=float, default=0.4, metavar="S", help="0 to 1 (0.4)")
    detect.add_argument("--model", default="", metavar="M", help="model name or manifest file")
    verify = command(words, "verify", _verify, "check a hand-over with public keys alone")
    verify.add_argument("path", type=Path, help="clip folder, manifest, folder of them, custody")
    verify.add_argument("--key", type=Path, required=True, help="the device's public key")
    verify.add_argument(
        "--receiver-key",
        type=Path,
        action="append",
        default=[],
        help="check the receipts too; once more for a key of before",
    )
    verify.add_argument("--json", action="store_true")


def _add_centre_commands(words: Any) -> None:
    receive = command(words, "receive", _receive, "the reference receiver of one site")
    receive.add_argument("--broker", default="127.0.0.1:1883", metavar="HOST:PORT")
    receive.add_argument("--site", default="", help="the site's name")
    receive.add_argument("--store", type=Path, required=True, help="where it keeps everything")
    receive.add_argument("--devices", type=Path, help="folder of <device>.pub files")
    receive.add_argument("--name", default="receiver", help="its own name in receipts")
    receive.add_argument("--dictionaries", type=Path, help="folder of dictionaries for batches")
    receive.add_argument("--retention-days", type=int, default=90, metavar="N")
    receive.add_argument(
        "--copies", type=int, default=1, metavar="N", help="that its disks keep of each file"
    )
    receive.add_argument("--s3-endpoint", metavar="URL", help="large files go to this S3 server")
    receive.add_argument("--s3-bucket", default="", metavar="NAME")
    receive.add_argument("--s3-region", default="us-east-1", metavar="NAME")
    receive.add_argument(
        "--s3-key",
        type=Path,
        metavar="FILE",
        help="two lines, id and secret; else AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    )
    receive.add_argument(
        "--bulk-over", type=int, default=64, metavar="MB", help="which files are large"
    )
    receive.add_argument("--status", action="store_true", help="print what it holds and end")
    receive.add_argument("--json", action="store_true")
    _add_dictionary(words)


def _add_dictionary(words: Any) -> None:
    text = "make a dictionary for batches from messages as they are sent"
    dictionary = command(words, "dictionary", _dictionary, text)
    source = dictionary.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", type=Path, metavar="FILE", help="what waits in this box")
    source.add_argument("--store", type=Path, metavar="DIR", help="what a receiver has stored")
    source.add_argument("--samples", type=Path, metavar="FILE", help="messages, one a line")
    dictionary.add_argument("--out", type=Path, required=True, metavar="FILE")
    dictionary.add_argument("--size-kib", type=int, default=16, metavar="N", help="at most (16)")


def _run(options: argparse.Namespace) -> int:
    return app.run(options.config, options.set)


def _analysis(options: argparse.Namespace) -> int:
    return app.analysis(options.config, options.set)


def _check(options: argparse.Namespace) -> int:
    if options.page:
        print(app.config_page(), end="")
        return EXIT_OK
    if options.config is None:
        raise ConfigError("check: --config is missing; allowed: a TOML file")
    values = app.effective(options.config, options.set)
    if options.json:
        print(json.dumps(values, indent=2))
    else:
        print(f"{options.config}: good")
        print_table([{"key": key, "value": value} for key, value in values.items()])
    return EXIT_OK


def _status(options: argparse.Namespace) -> int:
    status = app.status(options.config, options.set)
    if options.json:
        print(json.dumps(status))
        return EXIT_OK
    cameras = status.pop("cameras", [])
    slots = status.pop("slots", [])
    print_table(
        [{"what": key.replace("_", " "), "now": cell(key, value)} for key, value in status.items()]
    )
    print_table(cameras)
    if slots:
        print_table(dockdesk.table(slots, options.config, options.set))
    return EXIT_OK


def _inspect(options: argparse.Namespace) -> int:
    rows = app.inspect(options.config, options.set, options.topic, options.limit)
    if options.json and options.topic == "custody":
        print_lines(rows)  # the form that `outpost verify` reads
    elif options.json:
        print(json.dumps(rows))
    else:
        print_table([row for row in rows if "payloadType" not in row])
    return EXIT_OK


def _key(options: argparse.Namespace) -> int:
    if options.whose == "device":
        if options.config is None:
            raise ConfigError("key device: --config is missing; allowed: the device's TOML file")
        print(app.device_key(options.config, options.set))
    else:
        if options.store is None:
            missing = f"key {options.whose}: --store is missing; allowed: the receiver's folder"
            raise ConfigError(missing)
        if options.whose == "receiver":
            print(app.receiver_key(options.store))
        elif not options.site:
            raise ConfigError("key rotate-receiver: --site is missing; allowed: the site's name")
        else:
            print(app.rotate_receiver(options.store, options.site, options.to, options.out))
    return EXIT_OK


def _detect(options: argparse.Namespace) -> int:
    if options.every < 1 or not 0 <= options.min_score <= 1:
        raise ConfigError("detect: allowed: --every from 1, --min-score from 0 to 1")
    found = app.detect(options.video, options.every, options.min_score, options.model)
    return print_lines(found) if options.jsonl else _frames(found)


def _verify(options: argparse.Namespace) -> int:
    report = app.verify(options.path, options.key, options.receiver_key)
    print(json.dumps(report.document()) if options.json else report.text())
    return EXIT_OK if report.ok else EXIT_FAILED


def _receive(options: argparse.Namespace) -> int:
    if options.status:
        found = app.receiver_status(options.store)
        if options.json:
            print(json.dumps(found))
        else:
            for topic, rows in found.items():
                print(f"{topic}: {len(rows)}")
                print_table(rows)
        return EXIT_OK
    for name in ("site", "devices"):
        if not getattr(options, name):
            raise ConfigError(f"receive: --{name} is missing")
    return app.receive(options)


def _dictionary(options: argparse.Namespace) -> int:
    if not 1 <= options.size_kib <= MOST_DICTIONARY_KIB:
        raise ConfigError(f"dictionary: --size-kib: allowed: 1 to {MOST_DICTIONARY_KIB}")
    from agent import orders  # noqa: PLC0415 - only here

    samples, size_bytes = orders.dictionary(options)
    print(f"{options.out}: {size_bytes} bytes, made of {samples} messages")
    return EXIT_OK


def _frames(items: Iterable[Mapping[str, Any]]) -> int:
    for item in items:
        seen = ", ".join(f"{one['label']} {one['score']:.2f}" for one in item["detections"])
        print(f"frame {item['frame']:6}  {item['pts_s']:8.2f} s  {seen}")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
