// The page as a whole: which results, which questions, and what is drawn anew when one of them changes.

const state = { data: null, scopes: [], chosen: new Uint32Array(0), shown: [], base: null, row: null, curve: "" };
const sets = [...document.querySelectorAll("script.results")];

/** Count and draw everything that depends on the filters. What is read first comes first; charts follow when in sight. */
function renew() {
  const { data, scopes } = state;
  state.chosen = chosenQuestions(data);
  state.shown = data.rows.map((row) => ({ row, scores: scoresOf(data, row, state.chosen, scopes) }));
  const users = new Set();
  for (const q of state.chosen) users.add(data.questions.user[q]);
  byId("count").textContent = `${whole(state.chosen.length)} of ${whole(data.count)} questions, ${whole(users.size)} users`;
  redrawTable();
  browse(data, state.chosen);
  showCharts();
}

function redrawTable() {
  const marks = unfiltered();
  drawTable(state.shown, state.scopes, marks, redrawTable);
  const any = marks && state.data.rows.some(({ best }) => best.length);
  byId("best").textContent = any
    ? "Bold: significantly better than every other method (paired permutation test over users, Holm, p < 0.05), baselines aside." : "";
}

const charts = [
  new Chart("chart-differences", differencesFigure), new Chart("chart-subtasks", subtasksFigure),
  new Chart("chart-tokens", tokensFigure), new Chart("chart-latency", measuredFigure("latency", "Time to first token, ms")),
  new Chart("chart-memory", measuredFigure("memory", "Peak memory of a prompt, MB")), new Chart("chart-scaling", scalingFigure),
  new Chart("chart-letters", lettersFigure), new Chart("chart-calibration", calibrationFigure),
  new Chart("chart-training", trainingFigure),
];

const showCharts = () => charts.forEach((chart) => chart.show(state));

/** The row of the largest accuracy over all questions, baselines aside. */
function bestRow(data) {
  const all = Uint32Array.from({ length: data.count }, (_, q) => q);
  const scored = data.rows.filter(({ seeds }) => seeds.length)
    .map((row) => ({ row, score: scoresOf(data, row, all, state.scopes).overall?.accuracy ?? -1, baseline: row.group === "Baselines" }));
  scored.sort((a, b) => a.baseline - b.baseline || b.score - a.score);
  return scored[0]?.row ?? null;
}

/** Show one set of results. */
async function open(index) {
  const data = await results(sets[index]);
  Object.assign(state, { data, scopes: scopesOf(data) });
  byId("title").textContent = data.title;
  byId("facts").textContent = data.facts.join(" · ");
  byId("versions").textContent = `Made with ${Object.entries(data.versions).map(([name, version]) => `${name} ${version}`).join(", ")}.`;
  const answered = data.rows.map((row, i) => [i, row]).filter(([, { seeds }]) => seeds.length);
  const named = answered.map(([i, { name }]) => [String(i), name]);
  for (const id of ["base", "shown", "outcome-row"]) fill(byId(id), named);
  state.base = state.row = bestRow(data);
  byId("base").value = byId("shown").value = byId("outcome-row").value = String(data.rows.indexOf(state.base));
  const curveNames = [...new Set(data.curves.map(curveName))];
  fill(byId("curve"), curveNames.map((name) => [name, name]));
  state.curve = curveNames.find((name) => name.endsWith(": loss")) ?? curveNames[0] ?? "";
  byId("curve").value = state.curve;
  byId("training").hidden = !curveNames.length;
  prepareFilters(data);
  renew();
}

function prepare() {
  prepareTheme(showCharts);
  prepareBrowser();
  const form = byId("filters");
  form.addEventListener("input", () => { keepInAddress(); renew(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { keepInAddress(); renew(); }));
  for (const id of ["outcome-row", "outcome"]) byId(id).addEventListener("change", () => browse(state.data, state.chosen));
  byId("base").addEventListener("change", () => { state.base = state.data.rows[Number(byId("base").value)]; showCharts(); });
  byId("shown").addEventListener("change", () => { state.row = state.data.rows[Number(byId("shown").value)]; showCharts(); });
  byId("curve").addEventListener("change", () => { state.curve = byId("curve").value; showCharts(); });
  for (const link of document.querySelectorAll("nav a, .skip")) {
    link.addEventListener("click", (event) => { // The address holds the filters, so that a link must not replace them.
      event.preventDefault();
      const target = document.querySelector(link.getAttribute("href"));
      target.scrollIntoView();
      target.setAttribute("tabindex", "-1");
      target.focus({ preventScroll: true });
    });
  }
  fill(byId("results"), sets.map((set, index) => [String(index), set.dataset.title]));
  byId("results-field").hidden = sets.length < 2;
  byId("results").addEventListener("change", () => open(Number(byId("results").value)));
}

prepare();
await open(0);
document.documentElement.dataset.ready = Math.round(performance.now());
