# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A written page, read by a parser as a browser would."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Elements of a page with their attributes, and `shown`, the pieces of text outside scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.shown, self.inside = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside.append(tag)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self.inside):
            self.shown.append(data)

    def all(self, tag, of=""):
        return [attributes for name, attributes in self.elements if name == tag and of in attributes.get("class", "")]
