"""The report's style sheet: light and dark, phone and paper."""

from typing import Final

STYLE: Final = """
:root {
  --ground: #f5f6f8; --paper: #ffffff; --ink: #171b22; --soft: #5d6675; --line: #e3e6eb; --faint: #9aa2af;
  --good: #0f8a72; --warn: #b8620b; --bad: #cf2f36; --warn-ground: #fff5e6; --code: #eef0f4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #12151b; --paper: #1a1f27; --ink: #e8ebf0; --soft: #a1a9b7; --line: #2b313c; --faint: #6c7584;
    --good: #3cc7a8; --warn: #f0a34a; --bad: #ff6b70; --warn-ground: #33260f; --code: #262c36;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); -webkit-text-size-adjust: 100%;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK SC", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 2px 0 6px; letter-spacing: -0.015em; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 12px; letter-spacing: -0.005em; }
h3 { font-size: 14px; margin: 18px 0 6px; color: var(--soft); font-weight: 600; }
p { margin: 0 0 8px; }
code { font: 0.92em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: var(--code);
  padding: 1px 5px; border-radius: 4px; overflow-wrap: anywhere; }
.kicker { color: var(--soft); font-size: 12px; letter-spacing: 0.08em; text-transform: uppercase; }
.lead { color: var(--soft); overflow-wrap: anywhere; margin: 0; }
.note { color: var(--soft); font-size: 13.5px; max-width: 78ch; }
header { margin-bottom: 20px; }
section, .verdict { background: var(--paper); border: 1px solid var(--line); border-radius: 12px;
  padding: 20px 22px; margin: 16px 0; }
.simulator { background: var(--warn-ground); border: 2px solid var(--warn); border-radius: 12px; padding: 14px 20px;
  margin: 0 0 16px; }
.simulator strong { color: var(--warn); letter-spacing: 0.06em; }
.verdict { border-left: 6px solid var(--good); }
.verdict.degraded { border-left-color: var(--warn); }
.verdict.invalid { border-left-color: var(--bad); }
.verdict h2 { display: flex; flex-wrap: wrap; gap: 8px 14px; align-items: center; margin: 0; font-size: 19px; }
.level { font-weight: 650; }
.level.valid { color: var(--good); } .level.degraded { color: var(--warn); } .level.invalid { color: var(--bad); }
.level.note { color: var(--soft); }
.pills { display: flex; flex-wrap: wrap; gap: 6px; font-size: 12.5px; font-weight: 400; }
.pill { border: 1px solid var(--line); border-radius: 99px; padding: 1px 10px; color: var(--soft); }
.pill::before { content: ""; display: inline-block; width: 7px; height: 7px; border-radius: 50%; margin-right: 6px;
  background: var(--good); vertical-align: 1px; }
.pill.degraded::before { background: var(--warn); } .pill.invalid::before { background: var(--bad); }
.pill.degraded { color: var(--warn); } .pill.invalid { color: var(--bad); }
.reasons { list-style: none; margin: 14px 0 0; padding: 0; }
.reasons li { padding: 10px 0; border-top: 1px solid var(--line); display: grid; gap: 2px 16px;
  grid-template-columns: 84px 1fr; overflow-wrap: anywhere; }
.reasons .advice { grid-column: 2; color: var(--soft); }
.cards { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(146px, 1fr)); margin: 16px 0; }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 12px; padding: 14px 16px; }
.card .name { color: var(--soft); font-size: 12.5px; }
.card .value { font-size: 27px; font-weight: 620; letter-spacing: -0.02em; line-height: 1.25; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.card .value small { font-size: 13px; font-weight: 400; color: var(--soft); letter-spacing: 0; margin-left: 3px; }
.card .value.long { font-size: 20px; line-height: 1.7; }
.card .more { color: var(--soft); font-size: 12.5px; font-variant-numeric: tabular-nums; }
.card .more span { white-space: nowrap; }
.card.degraded { border-top: 3px solid var(--warn); } .card.invalid { border-top: 3px solid var(--bad); }
.scroll { overflow-x: auto; margin: 0 -4px; }
.figures tbody th, .figures thead th:first-child { position: sticky; left: 0; background: var(--paper); }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { padding: 7px 10px; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
tbody tr:last-child > * { border-bottom: 0; }
thead th { color: var(--soft); font-weight: 500; font-size: 12.5px; white-space: nowrap; }
tbody th { font-weight: 550; }
.figures { font-variant-numeric: tabular-nums; }
.figures th, .figures td { white-space: nowrap; }
.figures td, .figures thead th:not(:first-child) { text-align: right; }
.texts td { overflow-wrap: anywhere; min-width: 70px; }
.unsure { color: var(--faint); }
.facts { margin: 0; display: grid; gap: 0 32px;
  grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); }
.facts div { display: grid; grid-template-columns: 150px 1fr; gap: 12px; padding: 6px 0;
  border-bottom: 1px solid var(--line); }
.facts dt { color: var(--soft); font-size: 13.5px; } .facts dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
.pair { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); }
figure { margin: 0; min-width: 0; }
figure ~ figure { margin-top: 18px; }
.pair figure { margin: 0; }
figcaption { color: var(--soft); font-size: 13.5px; margin-bottom: 4px; }
.plot { width: 100%; }
section > .scroll + *, section > * + .scroll, section > .facts + figure { margin-top: 14px; }
footer { color: var(--faint); font-size: 12.5px; margin-top: 24px; }
@media (max-width: 640px) {
  main { padding: 18px 12px 40px; } section, .verdict { padding: 16px 14px; } h1 { font-size: 23px; }
  .reasons li { grid-template-columns: 1fr; } .reasons .advice { grid-column: 1; }
  .cards { grid-template-columns: 1fr 1fr; gap: 8px; } .card { padding: 10px 12px; } .card .value { font-size: 21px; }
  .card:last-child:nth-child(odd) { grid-column: span 2; } .facts div { grid-template-columns: 110px 1fr; }
}
@media print {
  :root { --ground: #fff; --paper: #fff; --ink: #000; --soft: #444; --line: #ccc; --faint: #888; --code: #f2f2f2;
    --good: #0f8a72; --warn: #b8620b; --bad: #cf2f36; --warn-ground: #fff5e6; }
  main { max-width: none; padding: 0; } body { font-size: 12px; }
  .verdict, .card, figure, tr { break-inside: avoid; } h2 { break-after: avoid; } section { border: 0; padding: 8px 0; }
  .scroll { overflow: visible; } .pair { grid-template-columns: 1fr; }
}
"""
