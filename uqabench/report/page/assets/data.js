// Reading what Python packed into the page: base64 of gzip of a JSON header and arrays behind it.

/** The bytes that the text of an element holds as base64 of gzip. */
async function inflated(element) {
  const text = element.textContent;
  const bytes = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const ARRAYS = { Uint8Array, Uint16Array, Uint32Array, Float32Array };

/** A set of results: its header, with every packed array in the place of its reference. */
async function results(element) {
  const bytes = await inflated(element);
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const view = ({ type, at, length: n }) => new ARRAYS[type](bytes.buffer, 8 + length + at, n);
  const viewed = (columns) => Object.fromEntries(Object.entries(columns).map(([name, ref]) => [name, view(ref)]));
  header.questions = viewed(header.questions);
  header.users = viewed(header.users);
  header.users.offset = sums(header.users.length);
  header.count = header.questions.user.length;
  for (const row of header.rows) {
    for (const seed of row.seeds) {
      seed.answers = view(seed.answers);
      seed.probabilities = seed.probabilities ? view(seed.probabilities) : null;
    }
  }
  return header;
}

/** Where each of several stretches begins, and at the end their whole length. */
function sums(lengths) {
  const offset = new Uint32Array(lengths.length + 1);
  lengths.forEach((length, index) => { offset[index + 1] = offset[index] + length; });
  return offset;
}
