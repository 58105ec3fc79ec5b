"""What `mkdocs build` does beside rendering docs/*.md.

CONTRIBUTING.md and its neighbours stand at the top of the repository, where
people look for them; the site has them as pages. Links are written as they
work in the repository and are turned here. The page of all commands is made
from their parsers (`commands_page`).
"""

import re
import sys
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
# The file at the top -> the page of the site.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "license.md",
    "RELEASE.md": "release.md",
    "SECURITY.md": "security.md",
}


def content(name: str) -> str:
    """Returns a file of the repository's top as a page of the site."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if name == "LICENSE":
        return f"# License\n\n```text\n{text.strip()}\n```\n"
    text = text.replace("](docs/", "](")
    for file, page in PAGES.items():
        text = text.replace(f"]({file}", f"]({page}")
    return text


def on_files(files, config):
    """Adds the pages that are made of files outside docs/."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=content(name)))
    text = commands()
    files.append(File.generated(config, "commands.md", content=text))
    return files


def commands() -> str:
    """Returns the page of all commands."""
    sys.path[:0] = [str(ROOT), str(ROOT / "docs")]
    import albert_tf2

    # `setup.py` maps data/ and hub_export/ into the package; here nothing is
    # installed.
    albert_tf2.__path__.append(str(ROOT))
    import commands_page

    return commands_page.page()


def on_page_markdown(markdown, page, **_):
    """Turns `](../CHANGELOG.md)`, right in the repository, to the page."""
    # From docs/zh the top is one folder further away.
    up = "../" * page.file.src_uri.count("/")
    return re.sub(
        rf"\]\(\.\./{re.escape(up)}([A-Z]+(?:\.md)?)(?=[)#])",
        lambda found: f"]({up}{PAGES.get(found[1], found[1])}",
        markdown,
    )
