// The arguments that both attention operators take from Python.
#pragma once

#include "bindings/arrays.h"
#include "cpu/packed.h"

namespace uqabench {

// Checks these arguments and fills `in` with them.
inline void fill_attention(AttentionInputs& in, const FloatArray& q, const FloatArray& k, const FloatArray& v,
                           const IndexArray& offsets, double scale, int threads) {
  require(q.ndim() == 3 && v.ndim() == 3, "q and v must have three dimensions.");
  const py::ssize_t tokens = q.shape(0), head_count = q.shape(1), width = q.shape(2), value_width = v.shape(2);
  require(head_count >= 1 && width >= 1 && value_width >= 1, "q and v must have at least one head and component.");
  require_shape(q, "q", {tokens, head_count, width});
  require_shape(k, "k", {tokens, head_count, width});
  require_shape(v, "v", {tokens, head_count, value_width});
  require(tokens < std::numeric_limits<int32_t>::max(), "q must have fewer than 2^31 - 1 tokens.");
  require_threads(threads);
  in.q = heads(q);
  in.k = heads(k);
  in.v = heads(v);
  in.offsets = checked_offsets(offsets, tokens);
  in.sequences = offsets.size() - 1;
  in.heads = head_count;
  in.width = width;
  in.value_width = value_width;
  in.scale = static_cast<float>(scale);
  in.threads = threads;
}

}  // namespace uqabench
