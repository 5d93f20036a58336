# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""For the site's reference: docstrings name classes as transformers' do, [`ValorModel`], which here become links to their entries."""

import re
from pathlib import Path
from typing import Any

from griffe import Extension, Object


REFERENCE = Path(__file__).parents[1] / "docs" / "reference"


class References(Extension):
    """Links [`Name`] and [`Name.member`] to the entry of `Name`, where a page of docs/reference has one (`::: module.Name`)."""

    def __init__(self) -> None:
        pages = (page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md"))
        entries = (entry for page in pages for entry in re.findall(r"^::: (\S+)", page, re.MULTILINE))
        self.entries = {entry.rpartition(".")[2]: entry for entry in entries}

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Writes the links into the docstring of an object. Names under `Raises` are shown as code anyway."""
        if obj.docstring is not None:
            text = re.sub(r"\[`(~?)([\w.]+)`\](?!\()", self._link, obj.docstring.value)
            obj.docstring.value = re.sub(r"^(\s+)`(\w+)`:", r"\1\2:", text, flags=re.MULTILINE)

    def _link(self, match: re.Match[str]) -> str:
        shortened, name = match.groups()
        shown = name.rpartition(".")[2] if shortened else name
        entry = next((self.entries[part] for part in name.split(".") if part in self.entries), None)
        return f"`{shown}`" if entry is None else f"[`{shown}`][{entry}]"
