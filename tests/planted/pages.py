"""What every page of a report must keep to."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """Fails on a tag that is closed out of order; collects addresses and text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "img", "br", "link", "input", "hr"}:
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag == "img":
            assert dict(attrs).get("alt"), "a picture without a text alternative"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
