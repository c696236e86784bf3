"""Draw docs/similar.svg, the picture in the README: what `embedindex similar` answers in the demo, in a terminal.

make demo && .venv/bin/python examples/picture.py
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from embedindex.cli.console import clock

DEMO = Path("demo")
PICTURE = Path("docs/similar.svg")


def main() -> None:
    """Ask the demo's index and draw the answer."""
    command = ["similar", str(DEMO / "query.wav"), "--index", str(DEMO / "index"), "--json"]
    answer = subprocess.run([sys.executable, "-m", "embedindex", *command], capture_output=True, check=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("", "score", "at", "length", "file"):
        table.add_column(title, justify="left" if title == "file" else "right")
    for hit in json.loads(answer.stdout)["results"]:
        path = os.path.relpath(hit["path"], DEMO / "library")
        table.add_row(
            str(hit["rank"]), f"{hit['score']:.3f}", clock(hit["start"]), clock(hit["duration"]), f"library/{path}"
        )
    console = Console(record=True, width=72, file=io.StringIO(), force_terminal=True)
    console.print("[bold]$ embedindex similar query.wav[/bold]   [dim]# a snare that is not in the library[/dim]")
    console.print(table)
    PICTURE.write_text(console.export_svg(title="embedindex"), encoding="utf-8")
    print(f"drew {PICTURE}")


if __name__ == "__main__":
    main()
