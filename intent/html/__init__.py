"""Render pages and pictures from Jinja2 templates, and place values on charts.

A page's template is beside the module that computes its values. Every value is escaped, because product names and messages come
from other people. A value that a template misses is an error. This package knows nothing of what a page shows.
"""

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, **values: object) -> str:
    """Render `template`, a path in `intent` such as "nightly/run.html.j2". Raises UndefinedError for a missing value."""
    return _ENVIRONMENT.get_template(template).render(values)


def _markdown(text: str) -> Markup:
    """Render Markdown. HTML, links and pictures in it stay text, because the Markdown has other people's messages."""
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    return Markup(reader.disable(["link", "image", "autolink", "entity"]).render(text))


_ENVIRONMENT = Environment(
    loader=PackageLoader("intent", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_ENVIRONMENT.filters["markdown"] = _markdown
