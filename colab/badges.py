"""Writes the project's address into the notebooks: their badge and `SOURCE`.

The address is `REPOSITORY` in albert_tf2/errors.py, and nothing else. While it
is empty, the badge opens Colab's own page and a line says to upload the file.

    python colab/badges.py
"""

import json
import re
from pathlib import Path

from albert_tf2.errors import REPOSITORY

FOLDER = Path(__file__).resolve().parent
COLAB = "https://colab.research.google.com/"
BADGE = f"[![Open in Colab]({COLAB}assets/colab-badge.svg)]"
UPLOAD = (
    " File → Upload notebook, then choose this file · "
    "文件 → 上传笔记本，选择本文件"
)


def badge(name: str, repository: str) -> str:
    """Returns the line below a notebook's title."""
    path = re.sub(r"^https://github\.com/|\.git$", "", repository)
    if repository.startswith("https://github.com/"):
        return f"{BADGE}({COLAB}github/{path}/blob/main/colab/{name}.ipynb)"
    return f"{BADGE}({COLAB}){UPLOAD}"


def addressed(name: str, text: str, repository: str) -> str:
    """Returns a notebook's JSON with the address in its two places."""
    notebook = json.loads(text)
    title, install = notebook["cells"][0]["source"], notebook["cells"][1]
    title[2] = badge(name, repository) + "\n"
    source = f"git+{repository}" if repository else ""
    install["source"] = [
        re.sub(r'^SOURCE = "[^"]*"', f'SOURCE = "{source}"', line)
        for line in install["source"]
    ]
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


def main() -> None:
    for path in sorted(FOLDER.glob("*.ipynb")):
        text = path.read_text(encoding="utf-8")
        path.write_text(addressed(path.stem, text, REPOSITORY), "utf-8")


if __name__ == "__main__":
    main()
