"""A plain page of HTML: text, tables and bars, in one file that opens offline, in light and in dark, without scripts.

Every string is escaped where it is put in, but what is `Html` already. Bars are inline SVG. Equal input gives equal bytes.
"""

import html
from collections.abc import Iterable, Sequence

from .ticks import printable

BAR_PX, LABEL_PX, WIDTH_PX, ROW_PX = 350, 190, 720, 22  # of a chart: longest bar, room for labels, all, a line
HISTOGRAM_PX, COLUMN_PX = 120, 64  # its highest and its widest column

CSS = """
:root { color-scheme: light dark;
  --ink: #1b1b1b; --soft: #5f6368; --rule: #d9d9d6; --paper: #fdfdfb; --tint: #f3f3ef;
  --a: #0072b2; --b: #d55e00; --c: #009e73; --d: #b9b9b4; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e6e6e3; --soft: #a3a6aa; --rule: #3a3b3d; --paper: #191a1b; --tint: #232527;
  --a: #56b4e9; --b: #e69f00; --c: #2fbf97; --d: #55585c; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 62rem; margin: 0 auto; padding: 2rem 1.2rem 5rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .6rem; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .5rem; padding-top: .8rem; border-top: 1px solid var(--rule); }
p { max-width: 44rem; margin: .5rem 0; }
.soft { color: var(--soft); font-size: .9rem; }
.bad { color: var(--b); font-weight: 600; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: 1rem; margin: 1.4rem 0; }
dl div { background: var(--tint); padding: .6rem .8rem; border-radius: .3rem; }
dt { color: var(--soft); font-size: .85rem; }
dd { margin: 0; font-size: 1.3rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .25rem 1rem .25rem 0; border-bottom: 1px solid var(--rule); }
td { overflow-wrap: break-word; }
th { color: var(--soft); font-weight: 500; white-space: nowrap; }
td.n, th.n { text-align: right; white-space: nowrap; }
code, pre { font: .85em/1.45 ui-monospace, monospace; }
code { overflow-wrap: anywhere; }
pre { background: var(--tint); padding: .8rem; overflow-x: auto; border-radius: .3rem; }
svg { display: block; width: 100%; max-width: 45rem; height: auto; margin: .8rem 0; }
svg text { font: 13px system-ui, sans-serif; fill: var(--ink); }
svg text.soft { fill: var(--soft); font-size: 13px; }
svg line { stroke: var(--rule); }
.a { fill: var(--a); } .b { fill: var(--b); } .c { fill: var(--c); } .d { fill: var(--d); }
summary { cursor: pointer; margin: .6rem 0; }
"""


class Html(str):
    """Markup that is escaped already."""


def text(value: object) -> Html:
    """Anything as markup: `Html` as it is, all else escaped; controls and characters that turn a line around show as their escapes."""
    return value if isinstance(value, Html) else Html(html.escape(printable(str(value)), quote=True))


def join(*parts: object) -> Html:
    """The parts, one after the other."""
    return Html("".join(map(text, parts)))


def tag(name: str, *parts: object, css: str = "") -> Html:
    """An element with these parts."""
    return Html(f"<{name}{f' class={css}' if css else ''}>{join(*parts)}</{name}>")


def page(title: str, *parts: Html) -> str:
    """The whole document."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"  # whatever a recording is called, nothing here loads or runs
    head = (
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{text(title)}</title>",
        f"<style>{CSS}</style>",
    )
    return "\n".join(["<!doctype html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", *parts, "</body>", "</html>", ""])


def section(title: str, *parts: object) -> Html:
    """A heading and what stands under it."""
    return Html("\n".join([tag("h2", title), *map(text, parts)]))


def facts(items: Iterable[tuple[str, object]]) -> Html:
    """A few numbers to see first, each with its name."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in items))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """A table; a column whose name ends in `#` is of numbers, and loses the `#`."""
    css = ["n" if name.endswith("#") else "" for name in head]
    lines = [tag("tr", *(tag("th", name.removesuffix("#"), css=kind) for name, kind in zip(head, css, strict=True)))]
    lines += [tag("tr", *(tag("td", value, css=kind) for value, kind in zip(row, css, strict=True))) for row in rows]
    return Html(f"<div class=wide>{tag('table', Html(chr(10).join(lines)))}</div>")


def details(summary: str, body: str) -> Html:
    """Text that opens on a click, as it is."""
    lines = "\n".join(text(line) for line in body.splitlines())
    return tag("details", tag("summary", summary), tag("pre", Html(lines)))


def bars(items: Sequence[tuple[str, float, str]], *, about: str) -> Html:
    """A horizontal bar for each (label, value, what is written behind it)."""
    most = max((value for _, value, _ in items), default=0) or 1
    lines = []
    for row, (label, value, caption) in enumerate(items):
        y, width = row * ROW_PX, BAR_PX * value / most
        lines.append(_text(LABEL_PX - 10, y + 15, _short(label), anchor="end"))
        lines.append(_rect(LABEL_PX, y + 4, width, ROW_PX - 8, "a"))
        lines.append(_text(LABEL_PX + width + 8, y + 15, caption, css="soft"))
    return _svg(len(items) * ROW_PX, about, lines)


def stack(items: Sequence[tuple[str, float, str]], *, about: str) -> Html:
    """One bar of all values, with a legend of (label, value, what is written behind the label). At most four."""
    whole = sum(value for _, value, _ in items) or 1
    lines, x = [], 0.0
    for row, ((label, value, caption), css) in enumerate(zip(items, "abcd", strict=False)):
        width = WIDTH_PX * value / whole
        lines.append(_rect(x, 0, width, 26, css))
        lines.append(_rect(0, 41 + row * ROW_PX, 12, 12, css))
        lines.append(_text(20, 52 + row * ROW_PX, f"{label} {caption}"))
        x += width
    return _svg(40 + len(items) * ROW_PX, about, lines)


def histogram(bins: Sequence[tuple[str, int]], *, axis: str, about: str, marked: int = -1) -> Html:
    """A column for each (label, count), counts above, labels below where there is room; column `marked` begins at a rule (zero)."""
    most = max((count for _, count in bins), default=0) or 1
    width = min(COLUMN_PX, WIDTH_PX / max(len(bins), 1))
    right = width * len(bins)
    step = max(1, -(-44 // max(1, int(width))))  # a label needs 44 px
    lines = [f'<line x1="0" y1="{HISTOGRAM_PX + 16}" x2="{right:.1f}" y2="{HISTOGRAM_PX + 16}"/>']
    for at, (label, count) in enumerate(bins):
        height = HISTOGRAM_PX * count / most
        lines.append(_rect(at * width + 1, HISTOGRAM_PX + 16 - height, width - 2, height, "a"))
        if count and width >= 24:
            lines.append(_text((at + 0.5) * width, HISTOGRAM_PX + 11 - height, _short_count(count), anchor="middle", css="soft"))
        if at % step == (marked % step if marked >= 0 else 0):
            lines.append(_text((at + 0.5) * width, HISTOGRAM_PX + 33, label, anchor="middle"))
        if at == marked:
            lines.append(f'<line x1="{at * width:.1f}" y1="0" x2="{at * width:.1f}" y2="{HISTOGRAM_PX + 16}"/>')
    lines.append(_text(0, HISTOGRAM_PX + 52, axis, css="soft"))
    return _svg(HISTOGRAM_PX + 58, about, lines)


def _svg(height: float, about: str, lines: Sequence[str]) -> Html:
    name = text(about)
    return Html(
        f'<svg viewBox="0 0 {WIDTH_PX} {height:.0f}" role="img" aria-label="{name}"><title>{name}</title>\n' + "\n".join(lines) + "\n</svg>"
    )


def _rect(x: float, y: float, width: float, height: float, css: str) -> str:
    return f'<rect class={css} x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}"/>'


def _text(x: float, y: float, value: str, *, anchor: str = "start", css: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{f" class={css}" if css else ""}>{text(value)}</text>'


def _short(label: str) -> str:
    return label if len(label) <= 24 else label[:23] + "…"


def _short_count(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k" if count < 10_000_000 else f"{count / 1e6:.0f}M"
