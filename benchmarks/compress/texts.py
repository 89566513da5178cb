"""Documents that gensim ships: Lee's news (2005) with similarities that people gave, and a piece of Wikipedia."""

from __future__ import annotations

import bz2
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy

from stonefx.benchmarks.compress.packages import folder

WIKIPEDIA = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
SHORTEST_ARTICLE = 2000
"""Characters: below are redirects and stubs."""


def _data() -> Path:
    return folder("gensim", "gensim") / "test" / "test_data"


def lee_background() -> list[str]:
    """300 documents."""
    return _lines(_data() / "lee_background.cor")


def lee() -> tuple[list[str], numpy.ndarray]:
    """50 documents, and `[50, 50]` similarities that people gave."""
    similarities = numpy.loadtxt(_data() / "similarities0-1.txt")
    return _lines(_data() / "lee.cor"), numpy.maximum(similarities, similarities.T)


def wikipedia() -> list[str]:
    """The text of each article that is no redirect."""
    with bz2.open(_data() / WIKIPEDIA) as file:
        raw = file.read()
    articles = []
    # The dump was cut off: its last page ends nowhere.
    for page in re.findall(rb"<page>.*?</page>", raw, re.S):
        root = ElementTree.fromstring(page)
        text = root.findtext("revision/text") or ""
        if root.findtext("ns", "0") == "0" and not text.lstrip().lower().startswith("#redirect"):
            plain = plain_text(text)
            if len(plain) >= SHORTEST_ARTICLE:
                articles.append(plain)
    return articles


def plain_text(markup: str) -> str:
    """Wikipedia's markup without templates, tables, references, links' targets and headings' signs.

    >>> plain_text("'''Ann''' is {{cite|a}} [[Town|town]]s.<ref>b</ref>")
    'Ann is  towns.'
    """
    text = re.sub(r"<!--.*?-->|<ref[^>]*/>|<ref.*?</ref>|<math.*?</math>", "", markup, flags=re.S)
    for opening, closing in ((r"\{\{", r"\}\}"), (r"\{\|", r"\|\}")):
        before = None
        while before != text:
            before = text
            text = re.sub(rf"{opening}(?:(?!{opening}|{closing}).)*?{closing}", "", text, flags=re.S)
    before = None
    while before != text:
        before = text
        text = re.sub(
            r"\[\[(?:File|Image|Category|[a-z-]{2,12}):(?:(?!\[\[|\]\]).)*\]\]", "", text, flags=re.S
        )
        text = re.sub(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]", r"\1", text)
    text = re.sub(r"\[https?://\S*\s?([^\]]*)\]", r"\1", text)
    text = re.sub(r"<[^>]{1,200}>|'{2,}", "", text)
    text = re.sub(r"^=+\s*(.*?)\s*=+\s*$", r"\1", text, flags=re.M)
    text = re.sub(r"^[*#:;]+\s*", "", text, flags=re.M)
    for code, sign in (("&nbsp;", " "), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"')):
        text = text.replace(code, sign)
    return re.sub(r"\n\s*\n+", "\n", text).strip()


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="latin-1").splitlines() if line.strip()]
