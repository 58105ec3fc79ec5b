"""The report as a page that needs nothing else: no network, no fonts, no plot.

All text of the corpus is escaped: it reaches the page as text, never as
markup.
"""

import html
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import inspect_records

if TYPE_CHECKING:
    from .analysis import Analysis

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #8884; }
.tiles { display: grid; gap: .5rem;
  grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); }
.tiles div { border: 1px solid #8884; border-radius: .4rem; padding: .5rem; }
.tiles b { display: block; font-size: 1.4rem; }
.charts { display: grid; gap: 2rem;
  grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); }
figure { margin: 0; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .2rem .6rem .2rem 0; vertical-align: top; }
td.n { text-align: right; white-space: nowrap; }
td.bar { width: 60%; }
td.bar i { display: block; background: #4a78b8; height: 1rem; }
li { margin: .4rem 0; }
code { background: #8882; padding: 0 .2rem; overflow-wrap: anywhere; }
mark { background: #e8b73c; color: #000; }
.row { border-left: 3px solid #8884; padding-left: .8rem; margin: 1rem 0;
  overflow-wrap: anywhere; }
.mask { background: #c0392b; color: #fff; }
.random { background: #e8b73c; color: #000; }
.keep { background: #3c9a5f; color: #fff; }
.special { opacity: .5; }
"""
# `inspect_records` colours for a terminal.
_PAINTED = re.compile("\033\\[(.*?)m(.*?)\033\\[0m")
_CLASSES = {code: name for name, code in inspect_records.COLOURS.items()}
# Lines of a row that are shown: it may hold many short pairs.
_MANY = 6
_FLAG = re.compile(r"(?<![\w-])(--\w+ (?:true|exact|near|0\.\d+)|--\w+)")


def rows_as_seen(analysis: "Analysis") -> list[list[str]]:
    """Returns some rows as training sees them, a line for each pair.

    Loads TensorFlow, which draws order and masks.
    """
    return inspect_records.lines_of_frames(
        analysis.rows(),
        analysis.plan.vocabulary,
        max_seq_length=analysis.plan.config.max_seq_length,
        max_pairs=analysis.plan.config.max_pairs_per_record,
    )


def page(result: Mapping[str, Any], rows: Sequence[Sequence[str]]) -> str:
    """Returns the report as one page.

    Args:
        result: The figures.
        rows: Rows of the records (`rows_as_seen`).
    """
    r = result
    found = [f"<li>{_text(one)}</li>" for one in r["findings"]]
    sections = [
        "<h1>The corpus</h1>",
        _tiles(r),
        "<h2>What to look at</h2>",
        f"<ul>{''.join(found)}</ul>"
        if found
        else "<p>Nothing amiss found.</p>",
        '<h2>Lengths, in tokens</h2><div class="charts">',
        _lengths("Sentences", r["sentence_lengths"]),
        _lengths("Documents", r["document_lengths"]),
        "</div><h2>Scripts</h2>",
        _bars([(n, s, f"{100 * s:.2f} %") for n, s in r["scripts"].items()]),
        f"<h2>[UNK]: {100 * r['unknown_share']:.3f} % of the tokens</h2>",
        _unknown(r),
        "<h2>Documents that repeat</h2>",
        _repeated(r),
        "<h2>As the model will see it</h2>",
        '<p><span class="mask">«x»</span> is [MASK] in the input, and x is to '
        'be predicted; <span class="random">{x→y}</span> is replaced by y; '
        '<span class="keep">{x}</span> stays; / divides words. Order and '
        "masks are drawn afresh in every epoch.</p>",
        *map(_row, rows),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Corpus report</title><style>{_STYLE}</style></head>"
        f"<body><main>{chr(10).join(sections)}</main></body></html>\n"
    )


def _text(text: str) -> str:
    """Escapes a finding, and shows its flags as code."""
    return _FLAG.sub(r"<code>\1</code>", html.escape(text))


def _tiles(r: Mapping[str, Any]) -> str:
    figures = [
        ("files", f"{r['files']:,}"),
        ("of text", f"{r['bytes'] / 1e6:,.1f} MB"),
        ("documents", f"{r['documents']:,}"),
        ("sentences", f"{r['sentences']:,}"),
        ("tokens", f"{r['tokens']:,}"),
        (f"records of {r['max_seq_length']}", f"{r['records']:,}"),
        ("pairs", f"{r['pairs']:,}"),
        ("padding", f"{100 * r['padding_share']:.1f} %"),
        (
            "documents of two sentences or more",
            f"{100 * r['sentence_order_share']:.1f} %",
        ),
        (
            f"steps an epoch, of {r['global_batch_size']:,}",
            f"{r['steps_per_epoch']:,}",
        ),
    ]
    tiles = [f"<div><b>{value}</b>{name}</div>" for name, value in figures]
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _lengths(title: str, h: Mapping[str, Any]) -> str:
    bars = [
        (f"≤ {limit:,}" if limit else "more", count, f"{count:,}")
        for limit, count in zip(h["up_to"], h["counts"], strict=True)
    ]
    return (
        f"<figure><figcaption>{title}: mean {h['mean']:,.1f}, median "
        f"{h['median']:,}, longest {h['longest']:,}</figcaption>"
        f"{_bars(bars)}</figure>"
    )


def _bars(bars: Sequence[tuple[str, float, str]]) -> str:
    """Draws (name, size, how it is written) as bars."""
    most = max([size for _, size, _ in bars], default=0) or 1
    rows = [
        f'<tr><td>{html.escape(name)}</td><td class="n">{written}</td>'
        f'<td class="bar"><i style="width:{100 * size / most:.1f}%"></i></td>'
        "</tr>"
        for name, size, written in bars
    ]
    return f"<table>{''.join(rows)}</table>"


def _unknown(r: Mapping[str, Any]) -> str:
    if not r["unknown_words"]:
        return "<p>None.</p>"
    rows = []
    for one in r["unknown_words"]:
        word, context = html.escape(one["word"]), html.escape(one["context"])
        marked = context.replace(word, f"<mark>{word}</mark>", 1)
        codes = " ".join(f"U+{ord(c):04X}" for c in one["word"][:3])
        rows.append(
            f"<tr><td>{word}</td><td>{codes}</td>"
            f'<td class="n">{one["count"]:,}</td><td>{marked}</td></tr>'
        )
    told = r["unknown_counts_too_low_by"]
    note = f"<p>Counts may be too low by {told:,}.</p>" if told else ""
    head = "<tr><th>word</th><th></th><th>count</th><th>for instance</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>{note}"


def _repeated(r: Mapping[str, Any]) -> str:
    exact, near = r["duplicate_documents"], r["near_duplicate_documents"]
    share = r["duplicates_looked_for_in"]
    told = f"{exact:,} documents stand earlier in the corpus, and {near:,} "
    told += "nearly so (most of their 5-grams of tokens)"
    if share < 1:
        told += (
            f", estimated from {share:.2g} of the documents (the first number "
            f"to within {r['duplicates_error']:,.0f})"
        )
    rows = [
        f'<tr><td class="n">{one["count"]:,} times</td>'
        f"<td>{html.escape(one['begins'])} …</td></tr>"
        for one in r["repeated_documents"]
    ]
    return f"<p>{told}.</p><table>{''.join(rows)}</table>"


def _row(lines: Sequence[str]) -> str:
    pairs = [_painted(line) for line in lines[:-1]]
    more = (
        f"<p>and {len(pairs) - _MANY} more pairs</p>" if pairs[_MANY:] else ""
    )
    shown = "".join(f"<p>{pair}</p>" for pair in pairs[:_MANY])
    return (
        f'<div class="row">{shown}{more}<p>{html.escape(lines[-1])}</p></div>'
    )


def _painted(line: str) -> str:
    return _PAINTED.sub(
        lambda found: f'<span class="{_CLASSES[found[1]]}">{found[2]}</span>',
        html.escape(line),
    )
