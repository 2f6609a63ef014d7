"""The parts of an HTML page that a browser acts on, for the tests of pages."""

import itertools
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


def check_self_contained(page: str) -> None:
    """The page holds no markup of the data and loads nothing."""
    outline = Outline(page)
    assert not outline.tags & {"script", "img", "iframe", "link", "object", "form"}
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in outline.addresses)
    assert not re.search(r"url\((?!#)|@import", page)
    assert "default-src 'none'" in page


def check_accessible(page: str, num_figures: int) -> None:
    """The page can be read without seeing it: headings in order, distinct ids, links that lead somewhere, described figures."""
    outline = Outline(page)
    assert outline.headings[0] == 1
    assert outline.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(outline.headings))
    assert len(outline.ids) == len(set(outline.ids))
    assert {a for a in outline.addresses if a.startswith("#")} <= {f"#{name}" for name in outline.ids}
    assert len(outline.figures) == num_figures
    assert all(outline.figures)
