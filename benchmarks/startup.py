"""How long embedindex takes to start: cold processes, medians.

    python benchmarks/startup.py [--runs 7] [--quick]

Targets: `embedindex --help` under 0.3 s, `import embedindex` under 0.1 s, the bare interpreter included in both.
"""

from __future__ import annotations

import argparse
import sys

from measure import embedindex, median_cpu_s, median_wall_s, print_report, repeat, run_cold

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import embedindex": [sys.executable, "-c", "import embedindex"],
    "embedindex --version": embedindex("--version"),
    "embedindex --help": embedindex("--help"),
    "embedindex scan --help": embedindex("scan", "--help"),
}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one run of each: only to see that it works")
    options = parser.parse_args()
    count = 1 if options.quick else options.runs
    rows = []
    for name, command in COMMANDS.items():
        runs = repeat(count, lambda command=command: run_cold(command))  # type: ignore[misc]
        rows.append([name, f"{median_wall_s(runs):.2f} s", f"{median_cpu_s(runs):.2f} s"])
    print_report("Starting", ["process", "wall", "CPU"], rows, [f"Medians of {count} cold processes."])


if __name__ == "__main__":
    main()
