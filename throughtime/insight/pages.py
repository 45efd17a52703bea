"""Pages of HTML in which each token of a text is shaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

#: Red, green and blue of a shade above 0 and below it: two of `figures.COLOURS`.
ABOVE, BELOW = (213, 94, 0), (0, 114, 178)

STYLE = """
body { font: 16px/1.7 system-ui, sans-serif;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #000;
  background: #fff }
h1 { font-size: 1.3rem } h2 { font-size: 1rem; margin-bottom: 0 }
.text { white-space: pre-wrap; overflow-wrap: anywhere; font-family: ui-monospace, monospace }
.text span { border-radius: 2px } .mark { text-decoration: underline 2px }
.spaced span { margin-right: .4em }
"""


def page(title: str, lines: Iterable[str], parts: Iterable[tuple[str, str]], spaced: bool = False) -> str:
    """A page of its own: a title, what is to know, and parts, each a heading and what `token` made, joined.

    `spaced` puts some space between tokens that do not bring their own.
    """
    text = "text spaced" if spaced else "text"
    told = "".join(f"<p>{escape(line)}</p>\n" for line in lines)
    shown = "".join(
        f'<h2>{escape(heading)}</h2>\n<div class="{text}">{body}</div>\n' for heading, body in parts
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{told}{shown}</body>\n</html>\n"
    )


def token(text: str, share: float, tip: str, mark: bool = False) -> str:
    """A token, shaded as much as `share` in -1 .. 1 says, with a tip where a mouse points at it.

    Below 0 it is blue, above orange. A `mark` underlines it, so that it is seen without colours. Line breaks
    are shown and done.
    """
    red, green, blue = ABOVE if share >= 0 else BELOW
    alpha = 0.85 * min(abs(share), 1.0)
    kind = ' class="mark"' if mark else ""
    style = f"background: rgba({red}, {green}, {blue}, {alpha:.2f})"
    shown = escape(text).replace("\n", "⏎\n")
    return f'<span{kind} style="{style}" title="{escape(tip, quote=True)}">{shown}</span>'


def needs_spaces(rows: Sequence[Sequence[str]]) -> bool:
    """Whether tokens are words without the spaces between them."""
    names = [name for row in rows for name in row]
    long = sum(len(name) > 1 for name in names)
    return 2 * long > len(names) and not any(name[:1].isspace() for name in names)
