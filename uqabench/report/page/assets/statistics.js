// Accuracy and paired differences with intervals over users: the linearised (cluster-robust) standard error of a ratio.

const Z = 1.959963984540054; // the standard normal quantile at 0.975
const Z_POWER = 0.8416212335729143; // and at 0.8

/**
 * The mean of all questions' values and its standard error, from each user's sum of values and number of questions.
 * With fewer than two users nothing is known of other users, and the error is NaN.
 */
function clustered(total, asked) {
  let sum = 0, n = 0, users = 0;
  for (let u = 0; u < asked.length; u++) {
    if (asked[u]) { sum += total[u]; n += asked[u]; users += 1; }
  }
  if (!n) return { mean: NaN, error: NaN, n: 0, users: 0 };
  const mean = sum / n;
  let squares = 0;
  for (let u = 0; u < asked.length; u++) {
    if (asked[u]) squares += (total[u] - mean * asked[u]) ** 2;
  }
  const error = users > 1 ? Math.sqrt((users / (users - 1)) * squares) / n : NaN;
  return { mean, error, n, users };
}

/**
 * Accuracy in percent with its interval. Where all answers are right, or all wrong, the standard error says nothing: the
 * exact binomial bound with one trial a user takes its place. One user says nothing of others: the interval is all.
 */
function accuracyOf(right, asked) {
  const { mean, error, n, users } = clustered(right, asked);
  let low = mean - Z * error, high = mean + Z * error;
  if (users === 1) { low = 0; high = 1; }
  else if (mean === 0 || mean === 1) {
    const bound = 0.025 ** (1 / users);
    low = mean ? bound : 0;
    high = mean ? 1 : 1 - bound;
  }
  return { accuracy: 100 * mean, low: 100 * Math.max(0, low), high: 100 * Math.min(1, high), n, users };
}

/** A paired difference in points with interval, two-sided p, and the true difference that is found four times in five. */
function differenceOf(net, asked, normal) {
  const { mean, error, n, users } = clustered(net, asked);
  const known = error > 0;
  return {
    difference: 100 * mean,
    low: known ? 100 * (mean - Z * error) : users === 1 ? -100 : 100 * mean,
    high: known ? 100 * (mean + Z * error) : users === 1 ? 100 : 100 * mean,
    p: known ? 2 * normal(-Math.abs(mean) / error) : 1,
    detectable: known ? 100 * (Z + Z_POWER) * error : NaN,
    n, users,
  };
}

/** p values adjusted for as many tests as there are (Holm 1979). */
function holm(values) {
  const order = values.map((_, index) => index).sort((a, b) => values[a] - values[b]);
  const adjusted = new Array(values.length);
  let largest = 0;
  order.forEach((index, rank) => {
    largest = Math.max(largest, values[index] * (values.length - rank));
    adjusted[index] = Math.min(1, largest);
  });
  return adjusted;
}
