"""What the service counts, in Prometheus' text form.

    albert_requests_total{route="/classify",status="200"} 12
    albert_request_seconds_bucket{route="/classify",le="0.01"} 9

Labels are routes of the service and status codes, never what a client sent:
the page is as long after a million requests as after one of each kind.
"""

import bisect
import os
import threading
from collections import Counter

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ITEMS = (1, 2, 4, 8, 16, 32, 64)


class _Histogram:
    """Counts of values up to some bounds, and their sum."""

    def __init__(self, bounds):
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str, labels: str = "") -> list[str]:
        """Returns the lines of the text form; buckets are cumulative."""
        found, so_far = [], 0
        before = f"{labels}," if labels else ""
        for bound, count in zip(
            (*self.bounds, "+Inf"), self.counts, strict=True
        ):
            so_far += count
            found.append(f'{name}_bucket{{{before}le="{bound}"}} {so_far}')
        braced = f"{{{labels}}}" if labels else ""
        found.append(f"{name}_sum{braced} {self.total:.6f}")
        found.append(f"{name}_count{braced} {so_far}")
        return found


class Metrics:
    """Counters of one service; several threads may add to them."""

    def __init__(self):
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, _Histogram] = {}
        self._items = _Histogram(ITEMS)
        self._model_seconds = 0.0

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Counts a request: its route, the status, and how long it took."""
        with self._lock:
            self._requests[route, status] += 1
            if route not in self._seconds:
                self._seconds[route] = _Histogram(SECONDS)
            self._seconds[route].add(seconds)

    def computed(self, items: int, seconds: float) -> None:
        """Counts a pass of the model over some items."""
        with self._lock:
            self._items.add(items)
            self._model_seconds += seconds

    def text(self, **gauges: float) -> str:
        """Returns everything, and what is so at the moment."""
        lines: list[str] = []

        def add(name: str, kind: str, meaning: str, values: list[str]) -> None:
            lines.append(f"# HELP {name} {meaning}")
            lines.append(f"# TYPE {name} {kind}")
            lines.extend(values)

        with self._lock:
            name = "albert_requests_total"
            rows = [
                f'{name}{{route="{route}",status="{status}"}} {count}'
                for (route, status), count in sorted(self._requests.items())
            ]
            add(name, "counter", "Requests by route and status.", rows)
            name = "albert_request_seconds"
            rows = [
                line
                for route, seconds in sorted(self._seconds.items())
                for line in seconds.lines(name, f'route="{route}"')
            ]
            add(name, "histogram", "From the headers to the answer.", rows)
            name = "albert_batch_items"
            rows = self._items.lines(name)
            add(name, "histogram", "Texts in a pass of the model.", rows)
            name = "albert_model_seconds_total"
            rows = [f"{name} {self._model_seconds:.6f}"]
            add(name, "counter", "Seconds in the model.", rows)
        memory = resident_bytes()
        if memory is not None:
            gauges["process_resident_memory_bytes"] = memory
        for name, value in gauges.items():
            meaning = name.replace("_", " ")
            add(name, "gauge", meaning, [f"{name} {value}"])
        return "\n".join(lines) + "\n"


def resident_bytes() -> int | None:
    """Returns the memory of this process; None where Linux does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:
            pages = int(stream.read().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
