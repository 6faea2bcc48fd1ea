"""Reads a report as a browser's parser would, for tests: elements, attributes, text."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """A page taken apart.

    Attributes:
        elements: (name, attributes) in order.
        sections: text of each section by its id.
        scripts: contents of the script elements.
        words: all text outside of scripts and styles.
    """

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.sections: dict[str, str] = {}
        self.scripts: list[str] = []
        self.words = ""
        self._section, self._raw = "", ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        if tag == "section":
            self._section = attributes["id"]
            self.sections[self._section] = ""
        if tag in ("script", "style"):
            self._raw = tag
            self.scripts += [""] * (tag == "script")

    def handle_endtag(self, tag: str) -> None:
        self._section = "" if tag == "section" else self._section
        self._raw = "" if tag == self._raw else self._raw

    def handle_data(self, data: str) -> None:
        if self._raw == "script":
            self.scripts[-1] += data
        elif not self._raw:
            self.words += data
            if self._section:
                self.sections[self._section] += data
