// One question at a time: the history, the options, what every method answered and how sure it was, and the truth.

const browsing = { list: new Uint32Array(0), place: 0, data: null };

/** The chosen questions, further narrowed to those that one row answered rightly or wrongly. */
function narrowed(data, chosen) {
  const row = data.rows[Number(byId("outcome-row").value)], outcome = byId("outcome").value;
  if (!outcome || !row) return chosen;
  const right = rightness(data, row);
  return chosen.filter((q) => (outcome === "right" ? right[q] > 0.5 : right[q] <= 0.5));
}

/** Browse these questions; the one that was shown stays where it is among them. */
function browse(data, chosen) {
  const shown = browsing.data === data ? browsing.list[browsing.place] : undefined;
  Object.assign(browsing, { data, list: narrowed(data, chosen) });
  browsing.place = Math.max(0, browsing.list.indexOf(shown));
  showQuestion();
}

function turn(steps) {
  const last = browsing.list.length - 1;
  browsing.place = Math.min(last, Math.max(0, browsing.place + steps));
  showQuestion();
}

/** Buttons, the number field, and keys: arrows, Page Up and Down, Home and End. */
function prepareBrowser() {
  byId("before").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  byId("place").addEventListener("change", () => { browsing.place = Number(byId("place").value) - 1 || 0; turn(0); });
  const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
  byId("browser").addEventListener("keydown", (event) => {
    if (event.key in steps && !event.target.matches("input, select") && !event.target.closest(".history")) {
      event.preventDefault();
      turn(steps[event.key]);
    }
  });
}

function showQuestion() {
  const { data, list, place } = browsing;
  byId("place").value = list.length ? place + 1 : "";
  byId("place").max = list.length;
  byId("of").textContent = `of ${whole(list.length)}`;
  byId("before").disabled = place <= 0;
  byId("next").disabled = place >= list.length - 1;
  if (!list.length) {
    byId("about-question").replaceChildren();
    byId("question").replaceChildren(element("p", { class: "about" }, "No question is under these filters."));
    return;
  }
  const q = list[place], { questions, users } = data;
  const tags = [
    data.subtasks[questions.subtask[q]].toUpperCase(), data.kinds[questions.kind[q]], data.attributes[questions.attribute[q]],
    data.levels[questions.level[q]], `user ${users.number[questions.user[q]]}`, `question ${questions.id[q]}`,
  ];
  byId("about-question").replaceChildren(...tags.filter(Boolean).map((tag) => element("span", {}, tag)));
  byId("question").replaceChildren(
    element("div", { class: "asked" }, element("p", { class: "text", lang: "" }, data.texts[questions.text[q]]), optionList(data, q), answerTable(data, q)),
    historyList(data, q),
  );
}

function optionList(data, q) {
  const { options, answer } = data.questions;
  const items = data.letters.map((letter, index) => {
    const right = index === answer[q];
    return element("li", { class: right ? "truth" : undefined }, element("b", {}, letter), element("span", {}, data.texts[options[4 * q + index]]),
      ...(right ? [element("span", { class: "mark" }, "right answer")] : []));
  });
  return element("ul", { class: "options" }, ...items);
}

/** A line a method and seed: its letter, whether that is right, and the probabilities of the letters as bars. */
function answerTable(data, q) {
  const lines = data.rows.flatMap((row) => row.seeds.filter(({ answers }) => answers[q] !== data.codes.notAsked).map((seed) => {
    const given = seed.answers[q], right = given === data.questions.answer[q];
    const name = row.seeds.length > 1 ? `${row.name}, seed ${seed.seed}` : row.name;
    const letter = given < 4 ? data.letters[given] : "–";
    const bars = data.letters.map((each, index) => {
      const share = seed.probabilities ? seed.probabilities[4 * (q - seed.first) + index] / seed.scale : null;
      return element("td", { class: `share${index === data.questions.answer[q] ? " truth" : ""}` },
        ...(share === null ? [] : [element("span", { class: "fill", style: `width: ${100 * share}%` }), element("span", { class: "value" }, `${(100 * share).toFixed(0)}`)]));
    });
    return element("tr", { class: right ? "right" : "wrong" }, element("th", { scope: "row" }, name),
      element("td", { class: "letter" }, letter, element("span", { class: "sign", "aria-label": right ? "right" : "wrong" }, right ? "✓" : "✗")), ...bars);
  }));
  const head = element("tr", {}, element("th", { scope: "col" }, "Method"), element("th", { scope: "col" }, "Answer"),
    ...data.letters.map((letter) => element("th", { scope: "col", class: "share" }, `${letter}, %`)));
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Answers" },
    element("table", { class: "answers" }, element("thead", {}, head), element("tbody", {}, ...lines)));
}

/** The items of the history, oldest first, with a rule where a basket begins. */
function historyList(data, q) {
  const { questions, users } = data;
  const u = questions.user[q], cut = questions.cut[q], n = questions.history[q];
  const first = users.offset[u] + cut - n - users.start[u];
  const baskets = data.sets[questions.set[q]].baskets;
  const items = Array.from({ length: n }, (_, index) => element("li", {
    class: baskets && index && users.basket[first + index] ? "basket" : undefined,
  }, data.texts[users.lines[first + index]]));
  const list = element("ol", { class: "history", tabindex: 0, start: 1, "aria-label": "History, oldest first" }, ...items);
  const side = element("div", { class: "side" }, element("h3", {}, `History: ${whole(n)} items, oldest first`), list);
  queueMicrotask(() => { list.scrollTop = list.scrollHeight; });
  return side;
}
