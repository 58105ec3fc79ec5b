"""The Chinese pages say what the English ones say: programs and figures.

README.zh-CN.md stands for README.md whole. A guide under docs/zh may leave
sections of its English page out, but it says so by a link to them. A section
is known by the English one's anchor, `<a id="your-own-files"></a>` before the
heading, so a link keeps its place when the language changes.
"""

import collections
import dataclasses
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GUIDES = sorted(
    path.name
    for path in (ROOT / "docs" / "zh").glob("*.md")
    if (ROOT / "docs" / path.name).exists()
)
PAGES = [ROOT / "README.zh-CN.md", *(ROOT / "docs" / "zh").glob("*.md")]
# English prose spells small numbers out.
WORDS = dict(
    one="1", two="2", twice="2", three="3", four="4", five="5", six="6",
    seven="7", eight="8", nine="9", ten="10", thousand="1000",
)  # fmt: skip
HAN = "一-鿿"
COMMAND = r" *(\$ )?(python|pip|make|albert-tf2|docker|curl|-)"


@dataclasses.dataclass
class Section:
    """A page from one heading to the next: (line number, text) each."""

    place: str
    code: list[tuple[int, str]]
    tables: list[tuple[int, str]]
    prose: list[tuple[int, str]]
    above: str = ""  # the section that it is a part of


def anchor(heading):
    """Returns the name that GitHub and mkdocs give a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return kept.strip().replace(" ", "-")


def sections(path):
    """Returns a page's sections by their anchors; the first has none."""
    current = Section(f"{path.relative_to(ROOT)}", [], [], [])
    found, name, fenced, language = {"": current}, "", False, ""
    above = ""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        given = re.fullmatch(r'<a id="([^"]+)"></a>', line)
        heading = not fenced and re.match(r"#{2,} (.*)", line)
        if line.startswith("```"):
            fenced = not fenced
            language = line[3:] if fenced else ""
        elif given:
            name = given[1]
        elif heading:
            name = name or anchor(heading[1])
            above = name if line.startswith("## ") else above
            current = Section(current.place, [], [], [], above)
            found[name] = current
            name = ""
        elif fenced or line.startswith("    "):
            # A block without a language may be a drawing or an answer.
            if language or re.match(COMMAND, line):
                current.code.append((number, line))
        elif line.startswith("|"):
            current.tables.append((number, line))
        else:
            current.prose.append((number, line))
    return found


def programs(section):
    """Returns the lines of a section's code, without their comments."""
    bare = [
        # A remark beside a flag stands three spaces behind it.
        (number, re.sub(r"(^|  ?)#.*|(?<=\S) {3,}\S.*", "", line).rstrip())
        for number, line in section.code
    ]
    return [(number, line) for number, line in bare if line]


def figures(lines):
    """Returns (line number, figure) of every number in prose or tables."""
    return [
        (number, figure.replace(",", ""))
        for number, line in lines
        for figure in re.findall(
            r"(?<![A-Za-z0-9_.])\d+(?:[.,]\d+)*(?:e-?\d+)?",
            re.sub(r"\]\([^)]*\)|<[^>]*>", "", line),
        )
    ]


def said(lines):
    """Returns the numbers of English prose, spelled-out ones too."""
    text = " ".join(line for _, line in lines).lower()
    words = {
        WORDS[word] for word in re.findall("[a-z]+", text) if word in WORDS
    }
    return words | {figure for _, figure in figures(lines)}


def compare_programs(english, chinese):
    ours, theirs = programs(chinese), programs(english)
    for number, line in ours:
        assert line in [text for _, text in theirs], (
            f"{chinese.place}:{number}: not a line of {english.place}'s "
            f"programs: {line}"
        )
    for number, line in theirs:
        assert line in [text for _, text in ours], (
            f"{english.place}:{number}: not in {chinese.place}: {line}"
        )


def compare_figures(english, chinese):
    """Tables have the same figures; Chinese prose has none of its own."""
    counts = [
        collections.Counter(figure for _, figure in figures(section.tables))
        for section in (english, chinese)
    ]
    for here, other, section in (
        (*counts, english),
        (*reversed(counts), chinese),
    ):
        for number, figure in figures(section.tables):
            assert here[figure] == other[figure], (
                f"{section.place}:{number}: {figure} stands {here[figure]} "
                f"times in this section's tables, {other[figure]} times in "
                "the other language's"
            )
    known = said(english.prose + english.tables + english.code)
    for number, figure in figures(chinese.prose):
        assert figure in known, (
            f"{chinese.place}:{number}: {figure} is not in the same section "
            f"of {english.place}"
        )


@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_is_in_step_with_its_english_page(name):
    english = sections(ROOT / "docs" / name)
    path = ROOT / "docs" / "zh" / name
    chinese = sections(path)
    for key, section in chinese.items():
        assert key in english, f"{section.place}: no section #{key} in English"
        compare_programs(english[key], section)
        compare_figures(english[key], section)
    text = path.read_text("utf-8")
    assert f"[English](../{name})" in text
    assert f"[中文](zh/{name})" in (ROOT / "docs" / name).read_text("utf-8")
    for key in english.keys() - chinese.keys():
        # A part of a section that is linked is linked.
        assert any(
            f"](../{name}#{place})" in text
            for place in (key, english[key].above)
        ), (
            f"docs/{name}#{key} is neither translated in docs/zh/{name} nor "
            "linked from it"
        )


def test_the_readmes_give_the_same_figures():
    english, chinese = (
        [section for section in sections(ROOT / name).values()]
        for name in ("README.md", "README.zh-CN.md")
    )
    assert len(english) == len(chinese)
    for ours, theirs in zip(english, chinese, strict=True):
        compare_figures(ours, theirs)
        known = {figure for _, figure in figures(theirs.prose)}
        for number, figure in figures(ours.prose):
            assert figure in known, (
                f"README.md:{number}: {figure} is not in README.zh-CN.md"
            )


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_line_breaks_inside_a_chinese_sentence(path):
    """A browser shows a line break as a space; between two words it is none."""
    before = ""
    for section in sections(path).values():
        for number, line in section.prose:
            assert not (
                re.search(f"[{HAN}]$", before) and re.match(f"[{HAN}]", line)
            ), f"{section.place}:{number}: a break after {before[-1]}"
            before = line


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_words_are_those_of_the_field(path):
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        for wrong, right in {
            "遮蔽": "掩码",
            "配方": "训练配置",
            "证书": "转换校验报告",
            "留出文档": "验证集",
            "只答一种": "多数类基线",
            "制作记录": "生成预训练数据",
            "词元": "token",
        }.items():
            assert wrong not in line, f"{path.name}:{number}: {wrong}: {right}"
        assert not re.search(r"\d %", line), f"{path.name}:{number}: 50%"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)]+)", path.read_text("utf-8")):
        if not target.startswith("http"):
            file, _, place = target.partition("#")
            page = path.parent / file if file else path
            assert page.exists(), f"{path.name}: {target}"
            if place:
                assert place in sections(page.resolve()), f"{target}"
