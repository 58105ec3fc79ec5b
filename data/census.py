"""What the parts tell about themselves, added up as they come.

A document longer than a unit lies in several parts. Where it begins its
subset is drawn; the parts after that ask here, so a document is held out
whole or not at all, whoever built its parts and in which order.

    parts:      0      1          2          3
    documents:  a b [c ....... c ....... c] d e
    drawn:      t t  e                      t t
    resolved:           1: eval    2: eval   (b and d have no say)
"""

from collections import Counter
from collections.abc import Iterable

from . import parts


class Census:
    """The counts of a set, by file of the corpus and in all.

    Attributes:
        counts: Those of all parts.
        by_file: Some of them for each file of the corpus (`PER_FILE`).
    """

    # What notes about a file need; a corpus may have a million files.
    PER_FILE = ("documents", "sentences", "lines_not_utf8")

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.by_file: dict[int, list[int]] = {}
        # The parts that meet a neighbour inside a document.
        self._open: dict[tuple[int, int], tuple[parts.Joint, int]] = {}

    def add(self, place: tuple[int, int], head: parts.Head) -> None:
        """Takes a part in.

        Args:
            place: The number of its file and of its unit.
            head: What it tells.
        """
        self._count(place[0], head.counts)
        if head.joint.begins_inside or head.joint.ends_inside:
            self._open[place] = head.joint, head.continued

    def merge(self, other: "Census") -> None:
        """Takes in what another census counted."""
        self.counts.update(other.counts)
        for number, figures in other.by_file.items():
            mine = self.by_file.setdefault(number, [0] * len(figures))
            self.by_file[number] = [
                a + b for a, b in zip(mine, figures, strict=True)
            ]
        self._open |= other._open

    def _count(self, file_number: int, counts: dict[str, int]) -> None:
        self.counts.update(counts)
        figures = self.by_file.setdefault(file_number, [0] * len(self.PER_FILE))
        for place, name in enumerate(self.PER_FILE):
            figures[place] += counts.get(name, 0)

    def file_counts(self, file_number: int) -> Counter[str]:
        """Returns the counts of `PER_FILE` for one file."""
        figures = self.by_file.get(file_number, [0] * len(self.PER_FILE))
        return Counter(dict(zip(self.PER_FILE, figures, strict=True)))

    def close(self) -> dict[tuple[int, int], str]:
        """Counts the documents longer than a unit, once all parts are in.

        Returns:
            The subset of the records that a part keeps back because it may
            begin inside a document, by the part's place.
        """
        resolved = {}
        for place in sorted(self._open):
            joint, continued = self._open[place]
            if not joint.begins_inside:
                continue
            subset = self._subset_before(place, resolved)
            counts = {f"{subset or joint.first}_records": continued}
            if joint.first is None:  # the inside of a giant line
                counts = {}
            elif subset is None:  # it did begin here after all
                subset = joint.first
                counts |= {"documents": 1, f"{subset}_documents": 1}
            else:
                counts["documents_split"] = 1
            if subset is not None:
                resolved[place] = subset
            self._count(place[0], counts)
        self._open.clear()
        return resolved

    def _subset_before(
        self, place: tuple[int, int], resolved: dict[tuple[int, int], str]
    ) -> str | None:
        """Returns the subset of the document that runs into a part."""
        before = (place[0], place[1] - 1)
        if before not in self._open or not self._open[before][0].ends_inside:
            return None
        return self._open[before][0].last or resolved.get(before)


def of_parts(found: Iterable[tuple[tuple[int, int], parts.Head]]) -> Census:
    """Returns the census of some parts."""
    census = Census()
    for place, head in found:
        census.add(place, head)
    return census
