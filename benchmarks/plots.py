"""Draws the plots of docs/performance.md from recorded results: pip install '.[bench]'.

    python benchmarks/plots.py [--results benchmarks/results] [--output docs/images]

batch_rows.json gives batch_rows.png; speeds.json, written by compare.py, tokens per second beside
the limit as speeds.png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import NullFormatter, StrMethodFormatter

HERE = Path(__file__).resolve().parent
OWN = "pyllamacpp"
COLOURS = {
    OWN: "#0b6e4f",
    "llama-cpp-python": "#c8553d",
    "ik-llama-cpp-python": "#8a7aa8",
}


def save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    # No version of matplotlib inside, so that the same results give the same file.
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)
    print(path)


def where(record: dict[str, Any]) -> str:
    return f"{record['machine']['cpu']}, {record['threads']} threads, {record['date']}"


def title_of(file: str) -> str:
    return file.removesuffix(".gguf")


def batch_rows(record: dict[str, Any], path: Path) -> None:
    """Tokens per second against rows: a column a model, a row a kind of batch."""
    models = record["models"]
    figure, axes = plt.subplots(2, len(models), figsize=(4.2 * len(models), 7), squeeze=False)
    for i, model in enumerate(models):
        for j, (curve, found) in enumerate(model["curves"].items()):
            axis, points = axes[j][i], found["points"]
            counts = [point["n"] for point in points]
            if "limit_tokens_per_s" in points[0]:
                limits = [point["limit_tokens_per_s"] for point in points]
                axis.plot(counts, limits, color="grey", linestyle="--", label="limit")
            for engine in points[0]["tokens_per_s"]:
                speeds = [point["tokens_per_s"][engine] for point in points]
                axis.plot(counts, speeds, color=COLOURS[engine], marker=".", label=engine)
            axis.set_xscale("log", base=2)
            axis.set_yscale("log", base=2)
            for side in (axis.xaxis, axis.yaxis):
                side.set_major_formatter(StrMethodFormatter("{x:g}"))
                side.set_minor_formatter(NullFormatter())
            axis.grid(alpha=0.3)
            axis.set_title(title_of(model["file"]), fontsize=10)
            axis.set_xlabel("rows of a prompt" if curve == "rows" else "sequences, a token each")
            axis.set_ylabel("tokens per second")
    axes[0][0].legend()
    figure.suptitle(where(record), fontsize=10)
    save(figure, path)


def speeds(record: dict[str, Any], path: Path) -> None:
    """Bars of each engine for each model, a panel a row, the limit as a line over each group."""
    models = record["models"]
    tests = [row["test"] for row in models[0]["speeds"]]
    engines = list(models[0]["engines"])
    figure, axes = plt.subplots(
        len(tests), 1, figsize=(max(6, 1.5 * len(models)), 2.8 * len(tests)), squeeze=False
    )
    width = 0.8 / len(engines)
    for axis, test in zip(axes[:, 0], tests, strict=True):
        rows = [next(row for row in model["speeds"] if row["test"] == test) for model in models]
        for j, engine in enumerate(engines):
            at = [i + (j - (len(engines) - 1) / 2) * width for i in range(len(rows))]
            values = [row["median"].get(engine, 0) for row in rows]
            bars = axis.bar(at, values, width * 0.95, color=COLOURS[engine], label=engine)
            axis.bar_label(bars, [f"{value:.0f}" if value else "" for value in values], fontsize=8)
        for i, row in enumerate(rows):
            if "limit_tokens_per_s" in row:
                label = "limit" if i == 0 else None
                axis.hlines(
                    row["limit_tokens_per_s"], i - 0.45, i + 0.45, color="black", label=label
                )
        names = [title_of(model["file"]) for model in models]
        axis.set_xticks(range(len(models)), names, fontsize=8)
        axis.set_ylabel(f"{test}, tokens/s")
    axes[0][0].legend(fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
    figure.suptitle(where(record), fontsize=10)
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--output", type=Path, default=HERE.parent / "docs" / "images")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for name, draw in (("batch_rows", batch_rows), ("speeds", speeds)):
        source = args.results / f"{name}.json"
        if source.exists():
            draw(json.loads(source.read_text()), args.output / f"{name}.png")


if __name__ == "__main__":
    main()
