"""The pages of made results are well-formed: every element is closed in its order, every SVG is XML, nothing is loaded from elsewhere.

usage: check_pages.py PAGES-PROGRAM, which writes the pages into a folder. Standard library only.
"""
import html.parser
import os
import re
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

VOID = {"meta", "link", "br", "img", "hr", "input"}
# what a page may be made of; a string from outside that became an element would be another one
ALLOWED = set("html head meta link title style body main h1 h2 h3 p ul li span b dl dt dd bdi pre code div table thead tbody tr th td "
              "figure figcaption small svg path text rect details summary footer".split())


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.stack, self.problems, self.tags, self.title = [], [], {}, ""
        self.feed(text)
        self.close()
        if self.stack:
            self.problems.append(f"not closed: {self.stack}")

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        at = self.getpos()
        if tag not in ALLOWED and not (tag == "title" and "svg" in self.stack):
            self.problems.append(f"{at}: element <{tag}>")
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)) or any(n.startswith("on") for n in names):
            self.problems.append(f"{at}: attributes {names} of <{tag}>")
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action") and value != "data:,":
                self.problems.append(f"{at}: {name}={value}")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.stack.pop()

    def handle_endtag(self, tag):
        if not self.stack or self.stack.pop() != tag:
            self.problems.append(f"{self.getpos()}: </{tag}> does not close what is open")

    def handle_data(self, data):
        if self.stack == ["html", "head", "title"]:
            self.title += data


class Pages(unittest.TestCase):
    def test_well_formed(self):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([PROGRAM, folder], check=True)
            names = sorted(os.listdir(folder))
            self.assertEqual(names, sorted(f"{n}.html" for n in "nothing empty one usual hostile many sweep".split()))
            for name in names:
                with self.subTest(page=name):
                    with open(os.path.join(folder, name), encoding="utf-8", errors="strict") as f:
                        self.check(f.read())

    def check(self, text):
        page = Page(text)
        self.assertEqual(page.problems, [])
        self.assertTrue(page.title.endswith(": load report"))
        self.assertNotRegex(re.search(r"<style>(.*?)</style>", text, re.S)[1], r"@import|url\(")
        for svg in re.findall(r"<svg.*?</svg>", text, re.S):
            root = xml.etree.ElementTree.fromstring(svg)
            for path in root.iter("path"):
                self.assertRegex(path.get("d"), r"^([MLHVZmlhvza][-0-9. ]*)*$")
            if root.get("role") == "img":
                self.assertTrue(root.get("aria-label"))


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    unittest.main()
