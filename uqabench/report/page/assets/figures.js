// What each chart shows. A function takes the state of the page and returns a Vega-Lite specification and its values.

const ROW_HEIGHT = 22;
/** Colour by group, with those groups in the legend that the values have. */
const groupColour = (values, groups) => {
  const present = groups.filter((group) => values.some((value) => value.group === group));
  return { field: "group", type: "nominal", title: null, scale: { domain: present, range: present.map((group) => colour(GROUP_COLOURS[group])) } };
};
const tooltip = (...fields) => fields.map(([field, title, format]) => ({ field, title, ...(format ? { format, type: "quantitative" } : {}) }));
const SCORE_TIPS = [["name", "Method"], ["accuracy", "Accuracy, %", ".2f"], ["low", "from", ".2f"], ["high", "to", ".2f"], ["n", "Questions", ",d"]];
const INTERVAL_AXIS = { field: "accuracy", type: "quantitative", scale: { zero: false, nice: true }, title: "Accuracy, % (95 % interval)" };

/** Rows minus the base, as points with intervals; neither the coin nor the truth is compared with. */
function differencesFigure({ data, chosen, base }, vega) {
  const rows = data.rows.filter((row) => row !== base && row.rival && row.seeds.length);
  if (!base || !rows.length || !chosen.length) return null;
  const found = rows.map((row) => ({ name: row.name, group: row.group, ...paired(data, row, base, chosen, vega.cumulativeNormal) }))
    .filter(({ n }) => n);
  const adjusted = holm(found.map(({ p }) => p));
  const values = found.map((each, index) => ({ ...each, holm: adjusted[index], sure: adjusted[index] < 0.05 }));
  const least = values.reduce((a, b) => (b.detectable < a.detectable ? b : a), { detectable: Infinity });
  byId("power").textContent = Number.isFinite(least.detectable)
    ? `${whole(least.n)} questions of ${whole(least.users)} users cannot see less than ${points(least.detectable, 1)} points ` +
      "(80 % power at the 5 % level, before Holm), even between the two methods that are easiest to compare." : "";
  const y = { field: "name", type: "nominal", sort: values.map(({ name }) => name), title: null };
  const color = groupColour(values, data.groups);
  const spec = {
    height: { step: ROW_HEIGHT },
    layer: [
      { mark: { type: "rule", strokeDash: [3, 3] }, encoding: { x: { datum: 0 }, color: { value: colour("soft") } } },
      { mark: { type: "rule", strokeWidth: 2 }, encoding: { y, color, x: { field: "low", type: "quantitative", title: `Points above ${base.name}`, axis: { tickCount: 8 } }, x2: { field: "high" } } },
      {
        mark: { type: "point", size: 70, strokeWidth: 2, opacity: 1 },
        encoding: {
          y, color, x: { field: "difference", type: "quantitative" },
          fill: { ...color, legend: null, condition: { test: "!datum.sure", value: colour("paper") } },
          tooltip: tooltip(["name", "Method"], ["difference", "Difference", "+.2f"], ["low", "from", "+.2f"], ["high", "to", "+.2f"], ["p", "p", ".4f"],
            ["holm", "Holm p", ".4f"], ["detectable", "Detectable", ".1f"], ["n", "Questions", ",d"]),
        },
      },
    ],
  };
  return { spec, values };
}

/** Accuracy by method and sub-task as a heat map. */
function subtasksFigure({ shown, scopes, data }) {
  const keys = scopes.filter(({ task, key }) => !task && key !== "overall");
  const values = shown.flatMap(({ row, scores }) => keys.filter(({ key }) => scores[key])
    .map(({ key, name }) => ({ name: row.name, subtask: name, ...scores[key] })));
  if (!values.length) return null;
  const [low, high] = isDark() ? ["#1d2733", "#7db7f5"] : ["#f3f6fa", "#1f5fa8"];
  const spec = {
    height: { step: ROW_HEIGHT + 4 },
    encoding: {
      y: { field: "name", type: "nominal", sort: data.rows.map(({ name }) => name), title: null },
      x: { field: "subtask", type: "nominal", sort: keys.map(({ name }) => name), title: null, axis: { orient: "top", labelAngle: 0, domain: false, ticks: false } },
    },
    layer: [
      {
        mark: { type: "rect", cornerRadius: 3, stroke: colour("paper"), strokeWidth: 2 },
        encoding: {
          color: { field: "accuracy", type: "quantitative", scale: { domain: [15, 100], range: [low, high], clamp: true }, legend: null },
          tooltip: tooltip(["name", "Method"], ["subtask", "Sub-task"], ...SCORE_TIPS.slice(1)),
        },
      },
      {
        mark: { type: "text", fontSize: 11.5 },
        encoding: {
          text: { field: "accuracy", type: "quantitative", format: ".0f" },
          color: { condition: { test: "datum.accuracy > 62", value: isDark() ? "#10161d" : "#ffffff" }, value: colour("ink") },
        },
      },
    ],
  };
  return { spec, values };
}

/** Points of accuracy against a cost, with names that do not lie upon each other, and the line of the best. */
function costPoints(shown, costOf) {
  const values = shown.filter(({ row, scores }) => costOf(row) > 0 && scores.overall && row.group !== "Baselines")
    .map(({ row, scores }) => ({ name: row.name, label: row.label, group: row.group, cost: costOf(row), ...scores.overall }));
  const range = Math.max(...values.map(({ high }) => high)) - Math.min(...values.map(({ low }) => low)) || 1;
  const gap = range / 20;
  const placed = [];
  for (const value of [...values].sort((a, b) => a.accuracy - b.accuracy)) {
    const near = placed.filter((other) => Math.abs(Math.log(other.cost / value.cost)) < 0.7);
    value.place = Math.max(value.accuracy, ...near.map((other) => other.place + gap));
    placed.push(value);
  }
  for (const value of values) {
    value.best = !values.some((other) => other !== value && other.accuracy >= value.accuracy && other.cost <= value.cost
      && (other.accuracy > value.accuracy || other.cost < value.cost));
  }
  return values;
}

function costFigure(data, values, title) {
  const color = groupColour(values, data.groups);
  const x = { field: "cost", type: "quantitative", title, scale: { type: "log", nice: true, padding: 30 }, axis: { format: "~s", labelOverlap: true, grid: false } };
  const spec = {
    height: 320,
    layer: [
      { transform: [{ filter: "datum.best" }], mark: { type: "line", strokeDash: [4, 3], strokeWidth: 1.5, color: colour("soft") }, encoding: { x, y: { field: "accuracy", type: "quantitative" } } },
      { mark: { type: "rule", strokeWidth: 1.5, opacity: 0.7 }, encoding: { x, y: { ...INTERVAL_AXIS, field: "low" }, y2: { field: "high" }, color } },
      { mark: { type: "point", filled: true, size: 70, opacity: 1 }, encoding: { x, y: INTERVAL_AXIS, color, tooltip: tooltip(...SCORE_TIPS, ["cost", title, ",.4~g"]) } },
      { mark: { type: "text", align: "left", dx: 9, fontSize: 11.5, color: colour("ink") }, encoding: { x, y: { field: "place", type: "quantitative" }, text: { field: "name" } } },
    ],
  };
  return { spec, values };
}

/** Accuracy against the tokens of a prompt. */
function tokensFigure({ data, shown }) {
  const values = costPoints(shown, (row) => row.tokens);
  return values.length > 1 ? costFigure(data, values, "Tokens of a prompt, mean") : null;
}

/** Accuracy against what a method costs, where an experiment measured it. */
const measuredFigure = (field, title) => ({ data, shown }) => {
  const values = costPoints(shown, (row) => row[field]);
  return values.length > 1 ? costFigure(data, values, title) : null;
};

/** Accuracy against the encoder's size, a line a method, where a method has encoders of three sizes. */
function scalingFigure({ shown }) {
  const sized = shown.filter(({ row, scores }) => row.modelSize && scores.overall);
  const sizes = (label) => new Set(sized.filter(({ row }) => row.label === label).map(({ row }) => row.modelSize)).size;
  const values = sized.filter(({ row }) => sizes(row.label) >= 3)
    .map(({ row, scores }) => ({ name: row.name, label: row.label, size: row.modelSize, ...scores.overall }));
  if (!values.length) return null;
  const x = { field: "size", type: "quantitative", title: "Parameters of the encoder's blocks", scale: { type: "log", padding: 16 }, axis: { format: "~s", grid: false } };
  const color = { field: "label", type: "nominal", title: null, scale: { range: seriesColours() } };
  const spec = {
    height: 320,
    encoding: { color },
    layer: [
      { mark: { type: "line", strokeWidth: 1.5 }, encoding: { x, y: INTERVAL_AXIS } },
      { mark: { type: "rule", strokeWidth: 1.5, opacity: 0.7 }, encoding: { x, y: { ...INTERVAL_AXIS, field: "low" }, y2: { field: "high" } } },
      { mark: { type: "point", filled: true, size: 60, opacity: 1 }, encoding: { x, y: INTERVAL_AXIS, tooltip: tooltip(...SCORE_TIPS, ["size", "Parameters", ",d"]) } },
    ],
  };
  return { spec, values };
}

/** For one method: how often a letter is right, is given, and is found where it is right. */
function lettersFigure({ data, chosen, row }) {
  if (!row?.seeds.length || !chosen.length) return null;
  const names = { right: "is right", given: "is given", accuracy: "found where right" };
  const values = lettersOf(data, row, chosen).flatMap((each) =>
    Object.entries(names).map(([key, what]) => ({ letter: each.letter, what, share: Number.isFinite(each[key]) ? each[key] : 0 })));
  const what = { field: "what", type: "nominal", title: null, sort: null, scale: { domain: Object.values(names), range: [colour("baseline"), colour("text-method"), colour("embedding")] } };
  const spec = {
    height: 260,
    mark: { type: "bar", cornerRadiusEnd: 2 },
    encoding: {
      x: { field: "letter", type: "nominal", title: null, axis: { labelAngle: 0 } }, xOffset: { field: "what", sort: Object.values(names) },
      y: { field: "share", type: "quantitative", title: "Percent of questions" }, color: what,
      tooltip: tooltip(["letter", "Letter"], ["what", "What"], ["share", "Percent", ".1f"]),
    },
  };
  return { spec, values };
}

/** For one method: accuracy against confidence. */
function calibrationFigure({ data, chosen, row }) {
  const found = row && chosen.length ? calibrationOf(data, row, chosen) : null;
  const caption = byId("calibration-caption");
  caption.textContent = found
    ? `Accuracy against the probability of the answer given, in ${BINS} bins; expected calibration error ${points(found.error, 1)} points. On the line, sureness is deserved.`
    : "";
  if (!found) return null;
  const spec = {
    height: 260,
    layer: [
      { data: { values: [{ x: 20, y: 20 }, { x: 100, y: 100 }] }, mark: { type: "line", strokeDash: [3, 3], color: colour("soft") }, encoding: { x: { field: "x", type: "quantitative" }, y: { field: "y", type: "quantitative" } } },
      { mark: { type: "line", color: colour("embedding"), strokeWidth: 1.5 }, encoding: { x: { field: "confidence", type: "quantitative", scale: { domain: [20, 100] }, title: "Probability of the answer given, %" }, y: { field: "accuracy", type: "quantitative", scale: { domain: [0, 100] }, title: "Accuracy, %" } } },
      {
        mark: { type: "point", filled: true, opacity: 0.85, color: colour("embedding") },
        encoding: {
          x: { field: "confidence", type: "quantitative" }, y: { field: "accuracy", type: "quantitative" }, size: { field: "n", type: "quantitative", legend: null, scale: { range: [25, 300] } },
          tooltip: tooltip(["confidence", "Probability, %", ".1f"], ["accuracy", "Accuracy, %", ".1f"], ["n", "Answers", ",d"]),
        },
      },
    ],
  };
  return { spec, values: found.bins };
}

/** Training curves of one stage and metric. */
function trainingFigure({ data, curve }) {
  const series = data.curves.filter((each) => curveName(each) === curve);
  if (!series.length) return null;
  const values = series.flatMap(({ series: name, step, value }) => step.map((at, index) => ({ name, step: at, value: value[index] })));
  const spec = {
    height: 320,
    mark: { type: "line", strokeWidth: 1.5, point: { size: 18, filled: true } },
    encoding: {
      x: { field: "step", type: "quantitative", title: "Step", axis: { grid: false } },
      y: { field: "value", type: "quantitative", title: curve, scale: { zero: false } },
      color: { field: "name", type: "nominal", title: null, sort: series.map((each) => each.series), scale: { range: seriesColours() } },
      tooltip: tooltip(["name", "Method"], ["step", "Step", ",d"], ["value", curve, ".4~g"]),
    },
  };
  return { spec, values };
}

const curveName = ({ stage, metric }) => `${stage}: ${metric.replaceAll("_", " ")}`;

/** Colours that can be told apart on both grounds, also by most who see few colours (Okabe and Ito, and more). */
const seriesColours = () => ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c3a", "#7b61c9", "#a0522d", "#4f9d9d", isDark() ? "#c5c9cf" : "#333333"];
