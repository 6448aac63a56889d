"""Pages and pictures: Jinja2 templates, and where values are on a chart. Knows nothing of what is shown.

The templates of a page are beside the module that computes its values. Every value is escaped, since products, languages and
messages come from other people. A name that a template lacks is an error.
"""

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, **values: object) -> str:
    """Render `template`, a path in this package such as "nightly/night.html.j2". Raises UndefinedError for a missing value."""
    return _ENVIRONMENT.get_template(template).render(values)


def _markdown(text: str) -> Markup:
    """Render Markdown. HTML, links and pictures in it stay text, as other people's messages must."""
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    return Markup(reader.disable(["link", "image", "autolink", "entity"]).render(text))


_ENVIRONMENT = Environment(
    loader=PackageLoader("intent", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_ENVIRONMENT.filters["markdown"] = _markdown
