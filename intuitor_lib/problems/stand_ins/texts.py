"""Read the text files of this folder, from which problems are made."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["read_sections"]


def read_sections(name: str) -> dict[str, list[str]]:
    """Lines of each section `[section]` of a file; an indented line continues the one above.

    Lines that begin with `#`, and empty ones, are left out.
    """
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    parts = re.split(r"^\[(\w+)\]\n", text, flags=re.MULTILINE)
    return {
        section: re.sub(r"\n {4}", " ", lines.strip()).split("\n")
        for section, lines in zip(parts[1::2], parts[2::2], strict=True)
    }
