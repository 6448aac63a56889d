"""Pages of daily runs: names of products and languages cannot run code, load anything or break the markup."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from intent.nightly.gate import Profile
from intent.nightly.pages import nightly_run_page, trend_page
from intent.run.progress import Summary

EVIL = "<script>alert(1)</script>\"'&"
SUMMARY = Summary(100, 90, 5, 5, variants={EVIL: {"rows": 95, "rows_per_second": 1.0}})
SHARES = {"rejected": 0.05, "abstained": 0.05, "none": 0.2}
MIXES = {"action": {"add": 70, "none": 20}, f"action in {EVIL}": {EVIL: 3}, "product": {f"{EVIL}{n}": n for n in range(1, 40)}}
PROFILE = Profile("2026-11-23", "f", SUMMARY, SHARES, MIXES, {EVIL: 0.9}, [f"the mix of {EVIL}"])


class Page(HTMLParser):
    """Collects tags, links and text. Fails on a tag that is closed before it is opened."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.links, self.text, self.open = [], [], "", []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("last", [[], [replace(PROFILE, night="2026-11-22")]])
def test_a_page_shows_other_peoples_words_and_runs_none(last):
    pages = [nightly_run_page(PROFILE, last, accepted=False), trend_page([*last, PROFILE], {"2026-11-22"})]
    for page in map(Page, pages):
        assert "script" not in page.tags and EVIL in page.text
        assert all(link in ("index.html", "2026-11-22.html", "2026-11-23.html") for link in page.links)


@pytest.mark.parametrize(
    ("accepted", "reasons", "expected"),
    [
        (True, [], "accepted"),
        (True, ["too odd"], "accepted by hand, outside its limits"),
        (False, ["too odd"], "quarantined: its labels are kept apart"),
        (False, [], "not published yet"),
    ],
)
def test_a_page_says_how_the_daily_run_ended_and_why(accepted, reasons, expected):
    page = Page(nightly_run_page(replace(PROFILE, findings=reasons), [], accepted))
    assert expected in page.text and ("too odd" in page.text) == bool(reasons)


def test_an_unusual_day_is_marked_without_color():
    profiles = [replace(PROFILE, night=f"2026-11-{n}", findings=["odd"] if n == 21 else []) for n in (20, 21, 22)]
    text = trend_page(profiles, {"2026-11-20", "2026-11-22"})
    assert 'class="cross"' in text and "2026-11-21:  100, quarantined" in Page(text).text


def test_a_page_tells_rows_from_the_cache_from_duplicates_and_from_engines():
    summary = replace(SUMMARY, cached=60, duplicates_saved=15, classified=20, asked_again=50, agreed=49)
    last = replace(PROFILE, night="2026-11-22", summary=replace(SUMMARY, cached=40, classified=45))
    profile = replace(PROFILE, summary=summary)
    text = Page(nightly_run_page(profile, [last], accepted=True)).text
    for line in ("rows from the label cache6040", "rows saved as duplicates150", "messages that models saw2045"):
        assert line in text, text
    assert "cached labels that agree, of 50 asked again98.00%" in text
    assert "rows from the label cache" in Page(trend_page([last, profile], set())).text
    assert "asked again" not in Page(nightly_run_page(PROFILE, [], accepted=True)).text
