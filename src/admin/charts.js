// The charts of the last 15 minutes: lines in SVG, drawn anew with every answer of GET history.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 90;
const SPARK = { width: 60, height: 16 };

const milliseconds = (value) => (value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(value < 10000 ? 1 : 0)} s`);
const perSecond = (value) => `${value.toFixed(value < 10 ? 1 : 0)} /s`;
const share = (value) => `${Math.round(100 * value)} %`;

/** What each chart shows: its lines, each from a history to a list of numbers, null where there is none. */
const CHARTS = [
  {
    name: "Time to first token",
    text: milliseconds,
    lines: [
      { name: "p50", look: "first", of: (history) => history.first_token_p50_ms },
      { name: "p99", look: "second", of: (history) => history.first_token_p99_ms },
    ],
  },
  {
    name: "Cache reuse",
    text: share,
    most: 1,
    lines: [
      {
        name: "of prompt tokens",
        look: "first",
        of: (history) => history.prompt_tokens.map((all, at) => (all > 0 ? history.cached_prompt_tokens[at] / all : null)),
      },
    ],
  },
  { name: "Requests", text: perSecond, lines: [{ name: "ended", look: "first", of: (history) => rates(history, history.requests) }] },
  { name: "Errors", text: perSecond, lines: [{ name: "5xx", look: "bad", of: (history) => rates(history, history.errors) }] },
];

/** Per second. The last point, which is not over, would show a dip: it is left out. */
function rates(history, counts) {
  return counts.map((count, at) => (at === counts.length - 1 ? null : count / history.step_seconds));
}

function svg(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** The path of a line: a new piece after each gap, and a point where a value stands alone. */
function pathOf(values, most, { width, height }) {
  const x = (at) => ((width * at) / (values.length - 1)).toFixed(1);
  const y = (value) => (height - 1 - (value / most) * (height - 2)).toFixed(1);
  const starts = (at) => at === 0 || values[at - 1] === null;
  const ends = (at) => at === values.length - 1 || values[at + 1] === null;
  return values
    .map((value, at) => {
      if (value === null) return "";
      return `${starts(at) ? "M" : "L"}${x(at)},${y(value)}${starts(at) && ends(at) ? "h.1" : ""}`;
    })
    .join("");
}

const latest = (values) => values.findLast((value) => value !== null);

function buildChart({ name, lines }) {
  const figure = make("figure", "chart");
  const caption = make("figcaption");
  const title = make("strong");
  title.textContent = name;
  caption.append(title);
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  for (const line of lines) {
    caption.append(make("span", `legend ${line.look}`));
    drawing.append(svg("path", { class: line.look }));
  }
  const scale = make("div", "scale");
  scale.append(make("span"), make("span"), make("span"));
  figure.append(caption, drawing, scale);
  return figure;
}

function updateChart(figure, { name, text, most, lines }, history) {
  const [caption, drawing, scale] = figure.children;
  const all = lines.map((line) => line.of(history));
  const top = most || Math.max(...all.flat().map((value) => value || 0)) || 1;
  const said = lines.map((line, index) => {
    drawing.children[index].setAttribute("d", pathOf(all[index], top, { width: WIDTH, height: HEIGHT }));
    const value = latest(all[index]);
    const label = `${line.name} ${value === undefined ? "-" : text(value)}`;
    write(caption.children[index + 1], label);
    return label;
  });
  drawing.setAttribute("aria-label", `${name} in the last 15 minutes, at most ${text(top)}; now ${said.join(", ")}`);
  write(scale.children[0], "15 min ago");
  write(scale.children[1], `top: ${text(top)}`);
  write(scale.children[2], "now");
}

/** A small line beside the figure of a backend. */
function sparkline() {
  const drawing = svg("svg", { class: "spark", viewBox: `0 0 ${SPARK.width} ${SPARK.height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  drawing.append(svg("path", { class: "first" }));
  return drawing;
}

function showHistory(history) {
  const box = byId("charts");
  if (box.children.length === 0) box.append(...CHARTS.map(buildChart));
  CHARTS.forEach((chart, index) => updateChart(box.children[index], chart, history));
  const most = Math.max(1, ...history.backends.flatMap((backend) => backend.in_flight));
  const load = new Map(history.backends.map((backend) => [backend.name, backend.in_flight]));
  for (const row of byId("backends").children) {
    const values = load.get(row.dataset.key);
    const path = row.querySelector(".spark path");
    if (values && path) path.setAttribute("d", pathOf(values, most, SPARK));
  }
}
