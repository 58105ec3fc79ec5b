"""What the parts tell about themselves, added up as they come.

A document longer than a unit lies in several parts. Where it begins its
subset is drawn; the parts after that ask here, so a document is held out
whole or not at all, whoever built its parts and in which order.

    parts:      0      1          2          3
    documents:  a b [c ....... c ....... c] d e
    drawn:      t t  e                      t t
    resolved:           1: eval    2: eval   (b and d have no say)
"""

from array import array
from collections import Counter
from collections.abc import Iterable

from . import borders, parts


class Census:
    """The counts of a set, by file of the corpus and in all.

    Attributes:
        counts: Those of all parts.
        by_file: What is told about single files (`borders.COUNTED`), by the
            number of the file. A corpus may have a million files.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.by_file: dict[int, array[int]] = {}
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
            self._add(number, figures)
        self._open |= other._open

    def _count(self, file_number: int, counts: dict[str, int]) -> None:
        self.counts.update(counts)
        self._add(file_number, [counts.get(n, 0) for n in borders.COUNTED])

    def _add(self, file_number: int, figures: Iterable[int]) -> None:
        empty = array("q", [0] * len(borders.COUNTED))
        mine = self.by_file.setdefault(file_number, empty)
        for place, figure in enumerate(figures):
            mine[place] += figure

    def close(self) -> dict[tuple[int, int], str]:
        """Counts the documents longer than a unit, once all parts are in.

        Returns:
            The subset of the records that a part keeps back because it may
            begin inside a document, by the part's place.
        """
        resolved: dict[tuple[int, int], str] = {}
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
