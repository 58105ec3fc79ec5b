"""The table of `user_waits.py`: what is said of the raw figures of its rows.

A row's figures are rounds; in each, every contender has a turn: `units`,
`wall` and `cpu` in seconds. Ours comes first, limits begin with `LIMIT`.
"""

import operator
import statistics
from collections.abc import Callable, Mapping
from typing import Any

OURS, LIMIT = "ours", "limit: "
# What a limit by arithmetic is measured with.
GEMM = "gemm"

Turn = Mapping[str, float]


def figures(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns what the table says of each contender of a row.

    `figure` (as the row counts), `ours` (how many times better ours is), `cpu`
    (seconds for a unit), `ours_cpu` (how many times fewer ours takes), `share`
    (of the limit), `apart`: medians over the rounds.
    """
    rounds = found["rounds"]
    time = "cpu" if found["per"] == "CPU-s" else "wall"

    def median(compute: Callable[..., float], *titles: str) -> float:
        return statistics.median(
            compute(*(turns[title] for title in titles)) for turns in rounds
        )

    def speed(turn: Turn) -> float:
        return turn["units"] / turn[time]

    def faster(turn: Turn, other: Turn) -> float:
        return speed(turn) / speed(other)

    said: dict[str, dict[str, Any]] = {}
    titles = [title for title in rounds[0] if title != GEMM]
    limits = [title for title in titles if title.startswith(LIMIT)]
    for title in titles:
        rate = median(speed, title)
        row = said[title] = {
            "figure": rate if found["per"] else 1 / rate,
            "cpu": median(_cpu, title),
        }
        for name in ("p50", "p95"):
            if name in rounds[0][title]:
                row[name] = median(operator.itemgetter(name), title)
        if title != OURS:
            row["apart"] = found["apart"].get(title)
            row["ours"] = median(faster, OURS, title)
            row["ours_cpu"] = median(
                lambda ours, theirs: _cpu(theirs) / _cpu(ours), OURS, title
            )
        if limits and title not in limits:
            row["share"] = median(faster, title, limits[0])
        if GEMM in rounds[0]:
            row["share"] = median(
                lambda turn, ours, gemm: speed(turn) / _limit(ours, gemm),
                *(title, OURS, GEMM),
            )
    if GEMM in rounds[0]:
        said[f"{LIMIT}arithmetic of the real tokens"] = {
            "figure": median(_limit, OURS, GEMM),
            "ours": said[OURS]["share"],
        }
    return said


def _cpu(turn: Turn) -> float:
    """Returns CPU seconds for a unit."""
    return turn["cpu"] / turn["units"]


def _limit(ours: Turn, gemm: Turn) -> float:
    """Returns units a second at the speed of a round's products."""
    return gemm["flops_per_second"] / (ours["flops"] / ours["units"])


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the measured rows as Markdown."""
    lines = [
        "| waiting for | contender | figure | ours is | CPU ms a unit "
        "| ours, by CPU | of the limit | apart |",
        "|---|---|---|---|---|---|---|---|",
    ]
    machines: dict[str, list[str]] = {}
    for name, found in results.items():
        unit = f"{found['unit']}/{found['per']}" if found["per"] else "s"
        before = f"{found['title']}, {unit}"
        for title, said in figures(found).items():
            figure = f"{said['figure']:,.{_digits(said['figure'])}f}"
            if "p50" in said:
                figure += (
                    f" (p50 {said['p50'] * 1e3:.1f} ms, "
                    f"p95 {said['p95'] * 1e3:.1f} ms)"
                )
            cpu = said.get("cpu")
            cells = [
                before,
                title,
                figure,
                f"{said['ours']:.2f} x" if "ours" in said else "",
                f"{cpu * 1e3:,.{_digits(cpu * 1e3)}f}" if cpu else "",
                f"{said['ours_cpu']:.2f} x" if "ours_cpu" in said else "",
                f"{said['share']:.0%}" if "share" in said else "",
                f"{said['apart']:.1e}" if said.get("apart") is not None else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
            before = ""
        machines.setdefault(described(found), []).append(name)
    lines.append("")
    for machine, names in machines.items():
        rows = "" if len(machines) == 1 else f"{', '.join(names)}: "
        lines.append(f"{rows}{machine}")
    return "\n".join(lines)


def _digits(value: float) -> int:
    """Returns decimals for three digits that count."""
    return 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3


def described(found: Mapping[str, Any]) -> str:
    """Says on what, with what and how busy a row was measured."""
    machine = found["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    return (
        f"{machine['processor']} ({', '.join(machine['instructions'])}), "
        f"{machine['cores']} cores, {found['threads']} threads, load average "
        f"{machine['load_average']:.0f}, {len(found['rounds'])} rounds; "
        f"Python {machine['python']}, {versions}; commit {machine['commit']}, "
        f"{machine['time'][:10]}."
    )
