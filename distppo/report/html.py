"""HTML made of elements. Whatever is not an element is text and is escaped, so that nothing a run holds can become markup."""

from __future__ import annotations

import html

LONGEST_TEXT = 2000


class Html(str):
    """Markup that is safe as it is: it was made by `element` or stands in our own sources."""

    __slots__ = ()


Child = Html | str | int | float | None
_EMPTY = frozenset({"br", "hr", "img", "input", "meta", "link", "source"})
_SVG_EMPTY = frozenset({"path", "line", "rect", "circle"})


def element(name: str, /, *children: Child | list[Html], **attributes: Child | bool) -> Html:
    """An element.

    Args:
        name: of the element.
        children: elements, lists of them, and text; None is nothing.
        attributes: by name, with _ for - and a trailing _ for Python's own words; None and False leave one out, True writes it bare.

    Example:
        >>> element("p", "1 < 2", class_="small")
        '<p class="small">1 &lt; 2</p>'
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _EMPTY:
        return Html(f"<{name}{written}>")
    if name in _SVG_EMPTY and not children:
        return Html(f"<{name}{written}/>")
    return Html(f"<{name}{written}>{joined(*children)}</{name}>")


def joined(*children: Child | list[Html]) -> Html:
    """Elements and text one after the other."""
    return Html("".join("".join(map(text, child)) if isinstance(child, list) else text(child) for child in children))


def text(value: Child) -> Html:
    """Text that stands for itself: escaped, cut where it is absurdly long, without characters that cannot be seen."""
    if isinstance(value, Html):
        return value
    if value is None:
        return Html("")
    plain = str(value)
    plain = plain if len(plain) <= LONGEST_TEXT else f"{plain[:LONGEST_TEXT]} ..."
    return Html(html.escape("".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in plain)))


def _attribute(key: str, value: Child | bool) -> str:
    name = key.rstrip("_").replace("_", "-")
    name = {"viewbox": "viewBox", "preserveaspectratio": "preserveAspectRatio"}.get(name, name)
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{text(value)}"'
