// Reads values off the figures, by pointer and by arrow keys, and switches between light and dark. The figures are there without it.
"use strict";

const figures = new Map(JSON.parse(document.getElementById("figures").textContent).map((figure) => [figure.key, figure]));

function formatted(value) {
  if (value === undefined || !Number.isFinite(value)) return "-";
  const size = Math.abs(value);
  if (size >= 1000 && size < 1e9) return Math.round(value).toLocaleString("en-US");
  if (size !== 0 && size < 1e-4) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

// Index of the step nearest to `step`, by bisection; -1 outside of the curve.
function nearest(steps, step, reach) {
  if (!steps.length || step < steps[0] - reach || step > steps[steps.length - 1] + reach) return -1;
  let low = 0;
  let high = steps.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (steps[middle] <= step) low = middle;
    else high = middle;
  }
  return step - steps[low] < steps[high] - step ? low : high;
}

function reading(figure, step) {
  const reach = (figure.x[1] - figure.x[0]) / 50;
  const parts = [];
  for (const series of figure.series) {
    const index = nearest(series.steps, step, reach);
    if (index < 0) continue;
    const band = series.low ? ` (${formatted(series.low[index])} to ${formatted(series.high[index])})` : "";
    parts.push(`${series.name} ${formatted(series.values[index])}${band}`);
  }
  return `${formatted(step)} ${figure.unit}: ${parts.join(", ") || "-"}`;
}

function connect(plot) {
  const figure = figures.get(plot.dataset.figure);
  const area = plot.querySelector(".area");
  const cursor = plot.querySelector(".cursor");
  const output = plot.parentElement.querySelector(".reading");
  if (!figure || !figure.series.length) return;
  const steps = [...new Set(figure.series.flatMap((series) => series.steps))].sort((a, b) => a - b);
  let at = steps.length - 1;

  function show(index) {
    at = Math.min(Math.max(index, 0), steps.length - 1);
    cursor.hidden = false;
    cursor.style.left = `${(100 * (steps[at] - figure.x[0])) / (figure.x[1] - figure.x[0])}%`;
    output.textContent = reading(figure, steps[at]);
  }

  function hide() {
    cursor.hidden = true;
    output.textContent = "";
  }

  area.addEventListener("pointermove", (event) => {
    const box = area.getBoundingClientRect();
    const step = figure.x[0] + ((event.clientX - box.left) / box.width) * (figure.x[1] - figure.x[0]);
    show(nearest(steps, Math.min(Math.max(step, steps[0]), steps[steps.length - 1]), 0));
  });
  area.addEventListener("pointerleave", () => {
    if (document.activeElement !== plot) hide();
  });
  plot.addEventListener("focus", () => show(at));
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const far = Math.max(1, Math.round(steps.length / 10));
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - far, PageDown: at + far, Home: 0, End: steps.length - 1 };
    if (!(event.key in moves) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    show(moves[event.key]);
  });
}

function connectTheme(button) {
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const label = () => {
    button.textContent = dark() ? "Light colors" : "Dark colors";
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    label();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
  label();
}

document.querySelectorAll(".plot").forEach(connect);
connectTheme(document.getElementById("theme"));
