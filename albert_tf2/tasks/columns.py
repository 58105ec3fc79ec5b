"""Which column of a table is what, and whether its first row is a header.

    content,label          names that people use, Chinese ones too
    正文,归类               a first label that never comes again
    甲,0                   no header: the label is the column that repeats

What is found is said before anything is trained; what cannot be told apart
is refused with the line to use: --set 'columns=[label,text_a]' by place, or
--set 'columns=[text_a=正文,label=归类]' by name.
"""

import dataclasses
import functools
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from albert_tf2.errors import UserError, cut
from albert_tf2.tasks import column_names
from albert_tf2.tasks.column_names import ID, LABEL, ROLES, TEXT_A, TEXT_B
from albert_tf2.tasks.reading import BadRow
from albert_tf2.tasks.tables import Table

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_LONGEST_NAME = 40
PASS_OVER = ("", "_")
# What a label is: one of some classes, several of them, or a number.
CLASS, CLASSES, SCORE = "class", "classes", "score"


@dataclasses.dataclass(frozen=True)
class Columns:
    """What the columns of a file mean.

    Attributes:
        roles: One of `ROLES` for each column, "" for one that is not used.
        header: The columns' names; None without a header.
        why: What was guessed and how, as sentences.
    """

    roles: tuple[str, ...]
    header: tuple[str, ...] | None = None
    why: tuple[str, ...] = ()

    @functools.cached_property
    def used(self) -> list[tuple[str, list[int]]]:
        """The roles that occur, each with its columns."""
        return [(role, p) for role in ROLES if (p := self.places(role))]

    def places(self, role: str) -> list[int]:
        return [i for i, name in enumerate(self.roles) if name == role]

    def is_header(self, cells: Sequence[Any]) -> bool:
        """Whether a row repeats the header, as in files put together."""
        if self.header is None or plain(cells[0]) != self.header[0]:
            return False
        return self.header == tuple(map(plain, cells))

    def name(self, place: int) -> str:
        return cut(self.header[place]) if self.header else f"column {place + 1}"

    def told(self) -> str:
        """Returns what is taken for what, as it is printed."""
        parts = ["a header" if self.header else "no header"]
        for role in ROLES:
            names = [self.name(i) for i in self.places(role)]
            if names:
                joined = " (joined by a space)" if len(names) > 1 else ""
                parts.append(f"{role} = {' + '.join(names)}{joined}")
        return ", ".join(parts)


class Look(NamedTuple):
    """What a column's cells are like."""

    filled: int
    distinct: int
    once: int  # values that occur once
    length: float  # mean, in characters
    is_number: bool
    is_serial: bool  # 1, 2, 3, ...

    @property
    def repeats(self) -> bool:
        """Whether each value stands for several rows, as labels do."""
        return 2 * self.distinct <= self.filled


def plain(cell: Any) -> str:
    """Returns a cell as text."""
    if isinstance(cell, str):
        return cell.strip()
    return "" if cell is None else str(cell)


def is_number(text: str) -> bool:
    """Whether a text is a number, as people write them: 3, -0.5, 1e-3."""
    return _NUMBER.fullmatch(text) is not None


def is_whole(text: str) -> bool:
    """Whether a text is a whole number; one of 20 digits is a name."""
    return text.isdecimal() and len(text) < 20


def look_at(cells: Sequence[Any]) -> Look:
    """Describes the cells of a column."""
    filled = [text for text in map(plain, cells) if text]
    counts = Counter(filled)
    is_serial = len(filled) > 1 and all(
        is_whole(a) and is_whole(b) and int(b) == int(a) + 1
        for a, b in itertools.pairwise(filled)
    )
    return Look(
        filled=len(filled),
        distinct=len(counts),
        once=sum(count == 1 for count in counts.values()),
        length=sum(map(len, filled)) / max(len(filled), 1),
        is_number=bool(filled) and all(map(is_number, filled)),
        is_serial=is_serial,
    )


def check_asked(asked: Sequence[str]) -> None:
    """Refuses a recipe's `columns` that name no text or unknown roles."""
    roles = [str(entry).partition("=")[0].strip() for entry in asked]
    unknown = [r for r in roles if r not in (*ROLES, *PASS_OVER)]
    mixed = len({"=" in str(entry) for entry in asked if str(entry)}) > 1
    if unknown or mixed or (asked and TEXT_A not in roles):
        raise UserError(
            f"`columns` must be names of {', '.join(ROLES)} (_ for a column "
            "to pass over), text_a among them, in the order of the file: "
            "columns=[label,_,text_a]; or each with the name in the header: "
            "columns=[text_a=content,label=class]. Received: "
            f"`columns={list(asked)}`"
        )


def find(
    table: Table,
    *,
    asked: Sequence[str] = (),
    known: Columns | None = None,
    known_labels: Sequence[str] = (),
    label: str = CLASS,
) -> tuple[Columns, int]:
    """Finds out what the columns are.

    Args:
        table: The file.
        asked: The recipe's `columns`; empty finds them.
        known: The training file's, which other files follow.
        known_labels: The labels of the training file.
        label: What a label is: `CLASS`, `CLASSES` or `SCORE`.

    Returns:
        The columns, and at which row the data begin (1 after a header).

    Raises:
        UserError: If that cannot be told.
    """
    rows = [cells for _, cells in table.rows if not isinstance(cells, BadRow)]
    if not rows:
        return known or Columns((TEXT_A,)), 0
    widths = Counter(len(cells) for cells in rows)
    width = widths.most_common(1)[0][0]
    header, why = table.names or None, []
    first = table.rows[0][1]
    begins = 0
    if header is None and not isinstance(first, BadRow) and len(first) == width:
        reason = _header_reason(first, rows[1:], known, known_labels)
        if reason is not None:
            begins = 1
            header = tuple(cell.strip() for cell in first)
            why += [reason] if reason else []
    body = [cells for cells in rows[begins:] if len(cells) == width]
    if asked:
        roles = _asked_roles(
            table, asked, header, width, may_lack_label=known is not None
        )
        why += _contradictions(roles, header)
    elif known is not None:
        roles = _known_roles(table, known, header, width)
    else:
        roles, more = _found_roles(table, header, body, label)
        why += more
    why += _not_used(roles, header, body)
    return Columns(tuple(roles), header, tuple(why)), begins


def _header_reason(first, rest, known, known_labels) -> str | None:
    """Says why a first row is a header: "" for its names; None if not."""
    names = [cell.strip() for cell in first]
    if known and known.header and set(names) <= set(known.header):
        return ""
    given = [name for name in names if name]
    if len(set(given)) < len(given) or max(map(len, names)) > _LONGEST_NAME:
        return None
    columns = [
        [cells[i].strip() for cells in rest if len(cells) == len(names)]
        for i in range(len(names))
    ]
    named = [i for i, name in enumerate(names) if column_names.is_name(name)]
    if len(named) > 1 or len(names) == len(named) == 1:
        return ""
    if named:
        # One name alone may be a label or a text: `情感`, `其他`.
        return None if names[named[0]] in columns[named[0]] else ""
    if len(rest) < 3:
        return None
    for i, cells in enumerate(columns):
        filled = [cell for cell in cells if cell]
        if not names[i] or not filled:
            continue
        if all(map(is_number, filled)):
            if not is_number(names[i]):
                return (
                    f"line 1 is taken for a header: {names[i]!r} stands above "
                    "numbers"
                )
        elif i in (0, len(names) - 1) and names[i] not in known_labels:
            if min(Counter(filled).values()) > 1 and names[i] not in filled:
                return (
                    f"line 1 is taken for a header: {names[i]!r} stands there "
                    "and never again, all other labels several times"
                )
    return None


def _asked_roles(
    table, asked, header, width, *, may_lack_label: bool
) -> list[str]:
    """Reads the recipe's `columns`, by place or by name."""
    if "=" not in "".join(map(str, asked)):
        roles = ["" if r in PASS_OVER else str(r) for r in asked]
        if len(roles) == width + 1 and LABEL in roles and may_lack_label:
            roles.remove(LABEL)  # a test file without labels
        if len(roles) != width:
            raise UserError(
                f"{table.path}: `columns` names {len(asked)} columns, and the "
                f"file has {width}; use _ for a column to pass over"
            )
        return roles
    if header is None:
        raise UserError(
            f"{table.path}: `columns` gives names, and the file has no header "
            "that is known as one: name the columns by place, "
            "columns=[text_a,label]"
        )
    roles = [""] * width
    for entry in map(str, asked):
        role, _, name = entry.partition("=")
        if name.strip() in header:
            roles[header.index(name.strip())] = role.strip()
        elif role.strip() in (TEXT_A, TEXT_B):
            raise UserError(
                f"{table.path}: no column is named `{name.strip()}`; the "
                f"header has {', '.join(header)}"
            )
    return roles


def _contradictions(roles, header) -> list[str]:
    """Says where the recipe's `columns` take a label for a text, or back."""
    if not header:
        return []
    named = column_names.roles_of(header)
    return [
        f"`columns` makes {cut(name)} the {role}, though it is named as a "
        f"{'label' if meant == LABEL else 'text'}"
        for name, role, meant in zip(header, roles, named, strict=True)
        if role and meant and (role == LABEL) != (meant == LABEL)
        if ID not in (role, meant)
    ]


def _known_roles(table, known: Columns, header, width) -> list[str]:
    """Follows the training file, which may have had a label more."""
    if header and known.header:
        by_name = dict(zip(known.header, known.roles, strict=True))
        wanted = set(known.roles) - {"", LABEL, ID}
        for roles in (
            [by_name.get(name, "") for name in header],
            column_names.roles_of(header),
        ):
            if wanted <= set(roles):
                return roles
    roles = list(known.roles)
    if len(roles) == width + 1 and LABEL in roles:
        roles.remove(LABEL)
    if len(roles) != width:
        texts = [role for role in roles if role in (TEXT_A, TEXT_B)]
        if len(texts) == width:
            return texts
        raise UserError(
            f"{table.path} has {width} columns, and the training file "
            f"{len(known.roles)} ({known.told()}): give both the same columns"
        )
    return roles


def _found_roles(table, header, body, label) -> tuple[list[str], list[str]]:
    """Finds roles by the header's names, then by what the cells are like."""
    width = len(body[0]) if body else len(header)
    looks = [look_at([cells[i] for cells in body]) for i in range(width)]
    roles, why = _named_roles(header, label) if header else ([""] * width, [])
    free = [i for i, role in enumerate(roles) if not role]
    if not header and width > 2 and looks[0].is_serial:
        roles[0] = ID
        free.remove(0)
    if LABEL not in roles and len(free) + (TEXT_A in roles) > 1:
        place = _label_by_looks(table, roles, header, looks, free, label)
        roles[place] = LABEL
        free.remove(place)
    if TEXT_A not in roles:
        texts = [i for i in free if not (header and looks[i].is_number)]
        if not 1 <= len(texts) <= 2 or (header and len(texts) > 1):
            raise UserError(
                f"{table.path}: the columns do not tell which of them hold "
                f"texts; name them, e.g. {_example(header, width)}"
            )
        for i, role in zip(texts, (TEXT_A, TEXT_B), strict=False):
            roles[i] = role
    return roles, why


def _named_roles(header, label) -> tuple[list[str], list[str]]:
    """Returns roles by the header's names, and what else might be meant."""
    scores = label == SCORE
    roles = column_names.roles_of(header, prefer_scores=scores)
    first, *others = column_names.labels_in(header, prefer_scores=scores) or [0]
    if not others:
        return roles, []
    names = ", ".join(cut(header[i]) for i in others)
    return roles, [f"{cut(header[first])} is taken for the label, not {names}"]


def _label_by_looks(table, roles, header, looks, free, label) -> int:
    """Returns the column whose cells are like labels."""
    # A table without a header has its label at one of its ends.
    ends = sorted({free[0], free[-1]}) if not header else free
    if label == SCORE:
        fit = [i for i in ends if looks[i].is_number]
    elif label == CLASSES:
        shortest = min(looks[i].length for i in ends)
        fit = [i for i in ends if looks[i].length == shortest]
    else:
        fit = [i for i in ends if looks[i].repeats]
        # In a small table nothing repeats, but no text is one character.
        fit = fit or [i for i in ends if looks[i].length == 1]
    if len(fit) > 1:
        fewest = min(looks[i].distinct for i in fit)
        fit = [i for i in fit if looks[i].distinct < 2 * fewest]
    if len(fit) == 1:
        return fit[0]
    if not header and label == CLASS and not any(looks[i].repeats for i in fit):
        # The usual place; labels that are no labels are refused later.
        return ends[-1]
    raise UserError(
        f"{table.path}: the columns do not tell which of them is the label; "
        f"name them, e.g. {_example(header, len(roles))}"
    )


def _example(header, width: int) -> str:
    if header:
        names = ", ".join(header)
        return (
            f"--set 'columns=[text_a={header[0]},label={header[-1]}]' (the "
            f"header has {names})"
        )
    roles = {
        1: [TEXT_A],
        2: [TEXT_A, LABEL],
        3: [TEXT_A, TEXT_B, LABEL],
        4: [ID, TEXT_A, TEXT_B, LABEL],
    }.get(width, [LABEL, TEXT_A, *["_"] * (width - 2)])
    return f"--set 'columns=[{','.join(roles)}]' (_ passes a column over)"


def _not_used(roles, header, body) -> list[str]:
    """Names the columns that are not used; texts among them with emphasis."""
    others = [i for i, role in enumerate(roles) if not role]
    if not others:
        return []
    columns = Columns(tuple(roles), header)
    shown = []
    for i in others:
        look = look_at([cells[i] for cells in body])
        is_text = look.length >= 8 and not look.is_number and not look.repeats
        mean = f" (texts of {look.length:.0f} characters)" if is_text else ""
        shown.append(columns.name(i) + mean)
    return [f"not used: {', '.join(shown)}"]
