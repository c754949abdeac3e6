"""Run every benchmark in turn, each in a process of its own; the command's flags go to all."""

import subprocess
import sys

NAMES = ("serving", "swap", "shared", "training", "storage")


def main() -> int:
    """Run them; return how many failed."""
    failed = 0
    for name in NAMES:
        print(f"\n{name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]]
        failed += subprocess.run(command, check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
