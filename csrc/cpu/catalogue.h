// How the catalogue of a cross entropy is divided, and which of its items are special for a token. Included after
// simd.h, gemm.h, linear_cross_entropy.h, <algorithm>, <utility> and <vector>, once for each instruction set.

namespace uqabench::UQ_ISA {
namespace {

constexpr int64_t tile = 96;        // items whose rows stay in the L1 or L2 cache for all tokens of a batch
constexpr int64_t max_slices = 24;  // parts of the catalogue, one a task, each with a partial gradient of `hidden`

// The catalogue is divided into stretches of whole tiles, and the stretches into slices: the same number for each slice
// but the last.
struct Catalogue {
  int64_t items, stretch, stretches, slices, stretches_each;

  explicit Catalogue(int64_t size) : items(size) {
    stretch = std::clamp(round_up(size / (2 * max_slices), tile), tile, 16 * tile);
    stretches = (size + stretch - 1) / stretch;
    stretches_each = (stretches + max_slices - 1) / max_slices;
    slices = (stretches + stretches_each - 1) / stretches_each;
  }

  // Calls body(stretch, first item, end item) for the stretches of one slice.
  template <class Body>
  void for_stretches(int64_t slice, const Body& body) const {
    const int64_t end = std::min(stretches, (slice + 1) * stretches_each);
    for (int64_t s = slice * stretches_each; s < end; ++s) body(s, s * stretch, std::min(items, (s + 1) * stretch));
  }
};

// An item that is special for a token: its target, or one that is left out. `token` is an index in the batch.
struct Candidate {
  int64_t item, token;
  bool operator<(const Candidate& other) const { return item < other.item; }
};

// Calls body(candidate) for those of a sorted list whose items lie in [begin, end).
template <class Body>
void for_candidates(const std::vector<Candidate>& list, int64_t begin, int64_t end, const Body& body) {
  auto at = std::lower_bound(list.begin(), list.end(), Candidate{begin, 0});
  for (; at != list.end() && at->item < end; ++at) body(*at);
}

using ItemsById = std::vector<std::pair<int64_t, int64_t>>;  // (id, item), sorted

inline ItemsById items_by_id(const LinearCrossEntropy& args) {
  ItemsById items;
  for (int64_t v = 0; args.item_ids && v < args.items; ++v) items.emplace_back(args.item_ids[v], v);
  std::sort(items.begin(), items.end());
  return items;
}

}  // namespace
}  // namespace uqabench::UQ_ISA
