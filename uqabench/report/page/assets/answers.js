// From the single answers to scores: everything that the page shows of accuracy is counted here.

/** Scopes in the order of the table: overall, then each task's sub-tasks and the task itself. */
function scopesOf(data) {
  const tasks = Object.entries(data.tasks).flatMap(([task, { name, subtasks }]) => [
    ...subtasks.map((key) => ({ key, name: key.toUpperCase(), subtasks: [data.subtasks.indexOf(key)] })),
    { key: task, name, subtasks: subtasks.map((key) => data.subtasks.indexOf(key)), task: true },
  ]);
  return [{ key: "overall", name: "Overall", subtasks: data.subtasks.map((_, index) => index) }, ...tasks];
}

/** A row's scores by scope over the chosen questions, all seeds together. Scopes that no question belongs to are absent. */
function scoresOf(data, row, chosen, scopes) {
  const { answer, user, subtask } = data.questions;
  const users = data.users.number.length, kinds = data.subtasks.length;
  const right = new Uint32Array(kinds * users), asked = new Uint32Array(kinds * users);
  for (const { answers } of row.seeds) {
    for (const q of chosen) {
      const given = answers[q];
      if (given === data.codes.notAsked) continue;
      const at = subtask[q] * users + user[q];
      asked[at] += 1;
      if (given === answer[q]) right[at] += 1;
    }
  }
  const found = {};
  for (const { key, subtasks } of scopes) {
    const [r, a] = subtasks.length === 1
      ? [right, asked].map((counts) => counts.subarray(subtasks[0] * users, (subtasks[0] + 1) * users))
      : [right, asked].map((counts) => added(counts, subtasks, users));
    const score = accuracyOf(r, a);
    if (score.n) found[key] = score;
  }
  return found;
}

function added(counts, parts, size) {
  const sum = new Uint32Array(size);
  for (const part of parts) {
    for (let u = 0, at = part * size; u < size; u++, at++) sum[u] += counts[at];
  }
  return sum;
}

/** How right a row is at each question: the mean over seeds, NaN where it was not asked. */
function rightness(data, row) {
  if (row.rightness) return row.rightness;
  const sum = new Float32Array(data.count), asked = new Uint8Array(data.count);
  for (const { answers } of row.seeds) {
    for (let q = 0; q < data.count; q++) {
      if (answers[q] === data.codes.notAsked) continue;
      asked[q] += 1;
      if (answers[q] === data.questions.answer[q]) sum[q] += 1;
    }
  }
  row.rightness = sum.map((value, q) => (asked[q] ? value / asked[q] : NaN));
  return row.rightness;
}

/** Row minus base over the chosen questions that both were asked. */
function paired(data, row, base, chosen, normal) {
  const a = rightness(data, row), b = rightness(data, base), { user } = data.questions;
  const users = data.users.number.length;
  const net = new Float64Array(users), asked = new Uint32Array(users);
  for (const q of chosen) {
    const difference = a[q] - b[q];
    if (difference === difference) { // NaN is not equal to itself: one of the two was not asked
      net[user[q]] += difference;
      asked[user[q]] += 1;
    }
  }
  return differenceOf(net, asked, normal);
}

/** By letter: how often it is right, how often the row gives it, and how often it is found where it is right. */
function lettersOf(data, row, chosen) {
  const truth = new Float64Array(4), given = new Float64Array(4), found = new Float64Array(4);
  let n = 0;
  for (const { answers } of row.seeds) {
    for (const q of chosen) {
      if (answers[q] === data.codes.notAsked) continue;
      n += 1;
      truth[data.questions.answer[q]] += 1;
      if (answers[q] < 4) given[answers[q]] += 1;
      if (answers[q] === data.questions.answer[q]) found[answers[q]] += 1;
    }
  }
  return data.letters.map((letter, i) => ({
    letter, right: (100 * truth[i]) / n, given: (100 * given[i]) / n, accuracy: (100 * found[i]) / truth[i],
  }));
}

const BINS = 15; // of confidence, of equal width, as in Guo et al. 2017

/** The reliability curve over bins of confidence, and the expected calibration error in points; null without logits. */
function calibrationOf(data, row, chosen) {
  const n = new Float64Array(BINS), right = new Float64Array(BINS), sure = new Float64Array(BINS);
  let total = 0;
  for (const { answers, probabilities, first, scale } of row.seeds) {
    if (!probabilities) return null;
    for (const q of chosen) {
      if (answers[q] === data.codes.notAsked) continue;
      const at = 4 * (q - first);
      const top = Math.max(probabilities[at], probabilities[at + 1], probabilities[at + 2], probabilities[at + 3]) / scale;
      const bin = Math.min(BINS - 1, Math.max(0, Math.ceil(top * BINS) - 1));
      n[bin] += 1;
      sure[bin] += top;
      if (answers[q] === data.questions.answer[q]) right[bin] += 1;
      total += 1;
    }
  }
  const bins = [];
  let error = 0;
  for (let b = 0; b < BINS; b++) {
    if (!n[b]) continue;
    bins.push({ confidence: (100 * sure[b]) / n[b], accuracy: (100 * right[b]) / n[b], n: n[b] });
    error += Math.abs(right[b] - sure[b]);
  }
  return { bins, error: (100 * error) / total };
}
