// The main table: a row a method, a column a scope, sortable, with the interval of the sorted column drawn.

const GROUP_COLOURS = { "Text-based": "text-method", "Embedding-based": "embedding", Controls: "control", Baselines: "baseline" };
const sorting = { key: null, descending: true };

/** Columns: the scopes that have questions, and the tokens of a prompt. */
function tableColumns(shown, scopes) {
  const columns = scopes.filter(({ key }) => shown.some(({ scores }) => scores[key]));
  const extra = shown.some(({ row }) => row.tokens) ? [{ key: "tokens", name: "Tokens", extra: true }] : [];
  return [...columns, ...extra];
}

const sortValue = ({ row, scores }, key) =>
  key === "name" ? row.name : key === "tokens" ? row.tokens ?? NaN : scores[key]?.accuracy ?? NaN;

/** Draw the table of rows with their scores; `again` is called when the reader has chosen another order. */
function drawTable(shown, scopes, marks, again) {
  const columns = tableColumns(shown, scopes);
  const drawn = columns.some(({ key }) => key === sorting.key) && sorting.key !== "tokens" ? sorting.key : "overall";
  const name = columns.find(({ key }) => key === drawn)?.name ?? "";
  const head = element("tr", {}, heading("name", "Method", again),
    element("th", { scope: "col", class: "drawn" }, `${name}, 95 %`),
    ...columns.map(({ key, name: title, task }) => heading(key, title, again, task)));
  const body = inOrder(shown).map((each) => tableRow(each, columns, drawn, marks));
  byId("table").replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
}

function heading(key, title, again, task) {
  const active = sorting.key === key;
  const button = element("button", { type: "button", "data-key": key }, title);
  button.addEventListener("click", () => {
    sorting.descending = active ? !sorting.descending : key !== "name" && key !== "tokens";
    sorting.key = key;
    again();
    byId("table").querySelector(`button[data-key="${key}"]`).focus();
  });
  const order = active ? (sorting.descending ? "descending" : "ascending") : "none";
  return element("th", { scope: "col", class: `${key === "name" ? "name" : "number"}${task ? " task" : ""}`, "aria-sort": order }, button);
}

/** The rows as sorted; what has no value stands last in either order. Without a choice, as the tables have them. */
function inOrder(shown) {
  if (!sorting.key) return shown;
  const sign = sorting.descending ? -1 : 1;
  return [...shown].sort((a, b) => {
    const [x, y] = [sortValue(a, sorting.key), sortValue(b, sorting.key)];
    if (typeof x === "string") return sign * x.localeCompare(y);
    return Number.isNaN(x) - Number.isNaN(y) || sign * (x - y) || 0;
  });
}

function tableRow({ row, scores }, columns, drawn, marks) {
  const label = element("th", { scope: "row", class: "name" },
    element("span", { class: "dot", style: `background: var(--${GROUP_COLOURS[row.group]})`, title: row.group }), row.name);
  if (row.status !== "done") label.append(element("span", { class: "failed", title: row.failures.join("; ") }, ` ${row.status}`));
  const cells = columns.map(({ key, extra, task }) => {
    if (extra) return element("td", { class: "number" }, row.tokens ? whole(row.tokens) : "–");
    const score = scores[key];
    const best = marks && row.best.includes(key);
    return element("td", {
      class: `number${best ? " best" : ""}${task ? " task" : ""}`, "data-scope": key,
      title: score ? `${points(score.low)} to ${points(score.high)}, ${whole(score.n)} questions, ${whole(score.users)} users` : undefined,
    }, score ? points(score.accuracy) : "–");
  });
  return element("tr", { "data-row": row.name }, label, element("td", { class: "drawn" }, track(scores[drawn], row)), ...cells);
}

/** The interval as a line over 0 to 100 with a dot at the accuracy and a mark at chance. */
function track(score, row) {
  if (!score) return "";
  const line = element("span", { class: "track", role: "img", "aria-label": `${points(score.low)} to ${points(score.high)}` },
    element("span", { class: "chance" }),
    element("span", { class: "interval", style: `left: ${score.low}%; width: ${score.high - score.low}%` }),
    element("span", { class: "point", style: `left: ${score.accuracy}%` }));
  line.style.setProperty("--own", `var(--${GROUP_COLOURS[row.group]})`);
  return line;
}
