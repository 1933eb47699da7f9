"""What a page of the tree needs to be a page of the site. mkdocs calls these functions."""

import posixpath
import re
from pathlib import Path

# How pages that are also read elsewhere name files of the repository.
TREE = "https://github.com/istio-pod-network/controller/blob/main/"

ROOT = Path(__file__).resolve().parents[2]
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\()([^)\s#]+)")
CELL = re.compile(r"<td>(.*?)</td>", re.DOTALL)
TAG = re.compile(r"<[^>]*>")


def on_page_markdown(markdown, page, config, files):
    """Links to pages stay in the site, and those to other files of the tree lead to the forge."""
    directory = posixpath.dirname(page.file.src_uri)

    def lead(match):
        target = match[2]
        if target.startswith(TREE):
            path = target.removeprefix(TREE)
        elif "://" in target or target.startswith("mailto:"):
            return match[0]
        else:
            path = posixpath.normpath(posixpath.join(directory, target))
        if files.get_file_from_path(path):
            return match[1] + posixpath.relpath(path, directory or ".")
        if not (ROOT / path).exists():
            return match[0]  # mkdocs says so
        return match[1] + TREE + path

    parts = FENCED.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(lead, part) for part in parts)


def on_page_content(html, page, config, files):
    """Cells of tables say how much text they have, so that site.css keeps their columns from being too narrow to read."""

    def measure(match):
        length = len(TAG.sub("", match[1]))
        if length <= 40:
            return match[0]
        return '<td class="%s">%s</td>' % ("text" if length <= 120 else "text long", match[1])

    return CELL.sub(measure, html)
