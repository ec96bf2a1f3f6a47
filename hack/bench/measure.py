"""What the benchmarks share: alternating runs, medians, one line per system, JSON.

A figure is a median over many rounds; in each round every system does the same work once, so that whatever else the
machine is doing hits all of them alike. What counts is the ratio.
"""

import argparse
import json
import os
import pathlib
import platform
import random
import shutil
import statistics
import subprocess
import sys
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def arguments(description, rounds):
    """The command line that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help="rounds per system (default: %(default)s)")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures to this file")
    parser.add_argument("--bin", type=pathlib.Path, help="directory of berth and berth-oci (default: the release build)")
    return parser


def program(options, name):
    """The path of one of our programs, built in release mode."""
    if options.bin:
        candidates = [options.bin / name]
    else:
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
        candidates = [path for profile in ("small", "release") for path in target.glob(f"*-linux-*/{profile}/{name}")]
    candidates = [path for path in candidates if path.exists()]
    if candidates:
        # berth-oci may be there linked with either of two C libraries: what was built last counts.
        return max(candidates, key=lambda path: path.stat().st_mtime).resolve()
    sys.exit(f"{name} is not built: make build")


def isolate():
    """Runs this script again in a network and a mount namespace of its own, so that nothing of the machine is touched."""
    if os.geteuid() != 0:
        sys.exit("this benchmark makes containers and must run as root")
    if os.environ.get("BERTH_BENCH_ISOLATED") != "1":
        os.environ["BERTH_BENCH_ISOLATED"] = "1"
        os.execvp("unshare", ["unshare", "--net", "--mount", "--propagation", "private", sys.executable, *sys.argv])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def peer(name):
    """The path of a peer's program, or None with a note."""
    path = shutil.which(name)
    if path is None:
        print(f"{name:<12} not installed, left out", file=sys.stderr)
    return path


def timed(command, **options):
    """Runs a command to its end: wall and processor time (its children's included) in milliseconds."""
    before = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - before
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {process.returncode}")
    return {"wall_ms": wall * 1000, "cpu_ms": (usage.ru_utime + usage.ru_stime) * 1000}


def alternate(systems, rounds):
    """Each round runs every system once, in another order; returns each system's medians and 99th percentiles by figure.

    What ran before leaves caches behind, and work for the kernel: no system follows always the same one.

    systems: name -> function that does the work once and returns figures by name.
    """
    for work in systems.values():
        work()  # warm caches, not counted
    samples = {name: [] for name in systems}
    orders = random.Random(rounds)
    for _ in range(rounds):
        for name in orders.sample(list(systems), len(systems)):
            samples[name].append(systems[name]())
    return {name: summary(figures) for name, figures in samples.items()}


def summary(figures):
    """Medians, and 99th percentiles with the suffix _p99."""
    result = {}
    for key in figures[0]:
        values = sorted(figure[key] for figure in figures)
        result[key] = statistics.median(values)
        result[f"{key}_p99"] = values[min(len(values) - 1, int(len(values) * 0.99))]
    return result


def report(options, row, what, results, ratios, bars):
    """Shows what was measured, and writes it as JSON."""
    write(options, show(row, what, results, ratios, bars))


def show(row, what, results, ratios, bars):
    """Prints one line per system and per ratio; returns all of it.

    ratios: name -> value; bars: name -> the largest (or, negative, smallest) value that meets the goal.
    """
    print(f"row {row}: {what}")
    for name, figures in results.items():
        shown = "  ".join(f"{key} {value:10.2f}" for key, value in figures.items())
        print(f"  {name:<14} {shown}")
    for name, value in ratios.items():
        bar = bars.get(name)
        verdict = ""
        if bar is not None:
            met = value <= bar if bar > 0 else value >= -bar
            verdict = f"  (goal {'at most' if bar > 0 else 'at least'} {abs(bar):g}: {'met' if met else 'MISSED'})"
        print(f"  {name:<34} {value:8.2f}{verdict}")
    return {
        "row": row,
        "what": what,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "kernel": platform.release(),
        "processors": os.cpu_count(),
        "systems": results,
        "ratios": ratios,
        "goals": {name: abs(bar) for name, bar in bars.items()},
    }


def write(options, records):
    """Writes one record, or a list of them, if that is wanted."""
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(records, indent=2) + "\n")
