"""The parts of an HTML page that a browser acts on, for the tests of pages."""

import re
from html.parser import HTMLParser


class Outline(HTMLParser):
    """Tags, heading levels, ids, URLs, and the text alternatives of figures ("" if one is missing)."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.figures: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        attributes = dict(attrs)
        self.tags.add(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "svg" and "aria-hidden" not in attributes:
            self.figures.append(attributes["aria-label"] if attributes.get("role") == "img" else "")
        self.ids += [v for k, v in attrs if k == "id"]
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href", "action", "data", "srcset")]
        assert not any(k.startswith("on") for k in attributes)
