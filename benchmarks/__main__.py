"""Run one benchmark or all of them and print their tables, ready for docs/BENCHMARKS.md."""

import argparse
import importlib
import pkgutil
import sys

import benchmarks


def main() -> int:
    """Run from the command line."""
    names = [item.name for item in pkgutil.iter_modules(benchmarks.__path__)]
    names = [name for name in names if not name.startswith("_")]
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    parser.add_argument("name", nargs="?", choices=names, help="all of them if left out")
    options = parser.parse_args()
    for name in [options.name] if options.name else names:
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"\n### {name}: {(module.__doc__ or '').splitlines()[0]}\n", flush=True)
        print(module.table(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
