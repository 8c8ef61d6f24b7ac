"""The style sheet of the report: light and dark, screen and paper, nothing fetched."""

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #22262b; --soft: #5b6470;
  --line: #dfe2e6; --panel: #f6f7f9; --model: #0f62a8; --better: #1b6e3c; --better-bg: #e7f4ec;
  --worse: #9b2c1f; --worse-bg: #fbeae7; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e6e8eb; --soft: #a0a8b3;
  --line: #32373e; --panel: #1d2126; --model: #7db8f0; --better: #86d6a4; --better-bg: #17301f;
  --worse: #f2a396; --worse-bg: #3a1d18; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .75rem; }
.soft, caption, figcaption, .unit, footer { color: var(--soft); }
.soft { margin: 0; }
.notes { margin: 1.5rem 0 0; padding: .8rem 1rem .8rem 2.2rem; background: var(--panel);
  border-left: 3px solid var(--model); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; }
caption { text-align: left; padding: 0 0 .6rem; max-width: 48rem; }
th, td { padding: .32rem .9rem; text-align: right; white-space: nowrap; }
th { font-weight: 600; }
th:first-child, th[scope="row"], td.text { text-align: left; }
td.text { white-space: normal; overflow-wrap: anywhere; }
thead th { border-bottom: 1px solid var(--soft); vertical-align: bottom; }
th[scope="colgroup"] { text-align: center; border-bottom: 1px solid var(--line); }
tbody { border-bottom: 1px solid var(--line); }
tbody th[scope="row"] { font-weight: 400; }
th[scope="rowgroup"] { vertical-align: top; }
.unit { display: block; font-weight: 400; font-size: .85rem; }
td.model { color: var(--model); font-weight: 600; }
td.better { color: var(--better); background: var(--better-bg); font-weight: 600; }
td.worse { color: var(--worse); background: var(--worse-bg); font-weight: 600; }
details { border-top: 1px solid var(--line); padding: .7rem 0; }
details:last-of-type { border-bottom: 1px solid var(--line); }
details[open] summary { margin-bottom: .6rem; }
summary { cursor: pointer; font-weight: 600; }
code { font-size: .85em; font-weight: 400; color: var(--soft); }
figure { margin: 2rem 0 0; }
figure img { display: block; max-width: 100%; height: auto; background: #ffffff; padding: .5rem;
  border: 1px solid var(--line); border-radius: 6px; }
figcaption { margin-top: .4rem; font-size: .93rem; }
dt { font-weight: 600; margin-top: .8rem; }
dd { margin: 0; max-width: 48rem; }
footer { margin-top: 3rem; padding-top: .8rem; border-top: 1px solid var(--line);
  font-size: .85rem; }
@media print { main { max-width: none; } figure, tbody { break-inside: avoid; } }
"""
