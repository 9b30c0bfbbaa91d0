"""The HTML report in a browser (label clients): headless Chromium opens each page of made results, says nothing on its console, and has
the plots in its document.

CAPSTAN_LOAD_PAGES names the program that writes the pages (ctest sets it); CAPSTAN_SCREENSHOTS a folder to keep pictures in.
"""
import html.parser
import os
import shutil
import subprocess
import tempfile
import unittest

PAGES = os.environ["CAPSTAN_LOAD_PAGES"]
KEEP = os.environ.get("CAPSTAN_SCREENSHOTS")
PLOTS = {"nothing": 0, "empty": 0, "one": 10, "usual": 10, "hostile": 10, "many": 10, "sweep": 4 + 9 * 10}


def chromium(profile, *args):
    """Its standard output and its standard error."""
    name = shutil.which("chromium") or shutil.which("chromium-browser")
    if not name:
        raise AssertionError("chromium is not installed")
    r = subprocess.run([name, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--enable-logging=stderr",
                        "--hide-scrollbars", *args], capture_output=True, timeout=120)
    if r.returncode:
        raise AssertionError(f"chromium ended with {r.returncode}: {r.stderr[-2000:]}")
    return r.stdout, r.stderr.decode(errors="replace")


class Document(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.plots, self.foreign, self.headings = 0, [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.plots += tag == "svg" and ("role", "img") in attrs
        self.headings += tag == "h1"
        if tag in ("script", "img", "iframe", "object") or any(n.startswith("on") for n, _ in attrs):
            self.foreign.append((tag, attrs))


class Report(unittest.TestCase):
    def test_pages_open_without_a_word(self):
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as profile:
            subprocess.run([PAGES, folder], check=True)
            for name, plots in PLOTS.items():
                url = f"file://{folder}/{name}.html"
                with self.subTest(page=name):
                    dom, log = chromium(profile, "--dump-dom", url)
                    said = [line for line in log.split("\n") if ":CONSOLE" in line]
                    self.assertEqual(said, [])
                    document = Document(dom.decode())
                    self.assertEqual((document.plots, document.foreign, document.headings), (plots, [], 1))
                    if KEEP:
                        self.pictures(profile, name, url)

    def pictures(self, profile, name, url):
        for theme, more in (("light", []), ("dark", ["--blink-settings=preferredColorScheme=0"])):
            for width in (1200, 390):
                chromium(profile, *more, f"--window-size={width},6000", f"--screenshot={KEEP}/{name}-{theme}-{width}.png", url)


if __name__ == "__main__":
    unittest.main()
