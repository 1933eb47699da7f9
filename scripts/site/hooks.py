"""What a page of the tree needs to be a page of the site. mkdocs calls these functions."""

import posixpath
import re
from pathlib import Path

# How pages that are also read elsewhere name files of the repository.
TREE = "https://github.com/istio-pod-network/controller/blob/main/"

ROOT = Path(__file__).resolve().parents[2]
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\()([^)\s#]+)")


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
