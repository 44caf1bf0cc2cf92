// The filters: which questions are shown. They stand in the address, so that a view can be kept and passed on.

/** The controls of the form by name. */
const controls = document.getElementById("filters").elements;
const FILTERS = ["subtask", "kind", "attribute", "level", "from", "to", "user"];

/** Fill the controls with what the questions have; a control with nothing to choose from is hidden. */
function prepareFilters(data) {
  const { questions } = data;
  const present = (column) => [...new Set(column)].sort((a, b) => a - b);
  const tasks = Object.entries(data.tasks).map(([key, { name }]) => [key, name]);
  const subtasks = present(questions.subtask).map((i) => [data.subtasks[i], data.subtasks[i].toUpperCase()]);
  fill(controls.subtask, [["", "all"], ...subtasks, ...tasks]);
  const named = (column, names) => present(column).map((i) => [String(i), names[i] || "none"]);
  fill(controls.kind, [["", "all"], ...named(questions.kind, data.kinds)]);
  fill(controls.attribute, [["", "all"], ...named(questions.attribute, data.attributes)]);
  fill(controls.level, [["", "all"], ...named(questions.level, data.levels)]);
  for (const select of [controls.kind, controls.attribute, controls.level]) {
    select.closest("label").hidden = select.options.length < 3;
  }
  const most = questions.history.reduce((a, b) => Math.max(a, b), 0);
  controls.from.max = controls.to.max = most;
  controls.to.placeholder = most;
  const numbers = [...new Set(data.users.number)].sort((a, b) => a - b);
  document.getElementById("users").replaceChildren(...numbers.slice(0, 200).map((n) => element("option", { value: n })));
  const kept = new URLSearchParams(location.hash.slice(1));
  for (const name of FILTERS) controls[name].value = kept.get(name) ?? "";
}

function fill(select, choices) {
  select.replaceChildren(...choices.map(([value, text]) => element("option", { value }, text)));
}

/** The questions under the filters, by place on the page. */
function chosenQuestions(data) {
  const { questions, users } = data;
  const value = (name) => controls[name].value;
  const number = (name, other) => (value(name) === "" ? other : Number(value(name)));
  const task = data.tasks[value("subtask")];
  const wanted = task ? task.subtasks : value("subtask") ? [value("subtask")] : data.subtasks;
  const subtasks = data.subtasks.map((key) => wanted.includes(key));
  const kind = number("kind", -1), attribute = number("attribute", -1), level = number("level", -1);
  const from = number("from", 0), to = number("to", Infinity), user = number("user", -1);
  const chosen = new Uint32Array(data.count);
  let n = 0;
  for (let q = 0; q < data.count; q++) {
    if (
      subtasks[questions.subtask[q]] &&
      (kind < 0 || questions.kind[q] === kind) &&
      (attribute < 0 || questions.attribute[q] === attribute) &&
      (level < 0 || questions.level[q] === level) &&
      questions.history[q] >= from && questions.history[q] <= to &&
      (user < 0 || users.number[questions.user[q]] === user)
    ) chosen[n++] = q;
  }
  return chosen.subarray(0, n);
}

/** Whether every question is shown. */
const unfiltered = () => FILTERS.every((name) => controls[name].value === "");

/** Keep the filters in the address, without a step of the browser's history for each. */
function keepInAddress() {
  const kept = new URLSearchParams(FILTERS.map((name) => [name, controls[name].value]).filter(([, value]) => value !== ""));
  history.replaceState(null, "", `#${kept}`);
}
