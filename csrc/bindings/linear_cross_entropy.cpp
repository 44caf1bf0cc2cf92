#include "cpu/linear_cross_entropy.h"

#include <numeric>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/bind.h"

namespace uqabench {
namespace {

const int64_t* ids(const std::optional<IntArray>& x, const char* name, py::ssize_t size) {
  if (!x) return nullptr;
  require_shape(*x, name, {size});
  return x->data();
}

// `share` times the sum of the losses.
float scaled_sum(const float* losses, int64_t count, double share) {
  return static_cast<float>(share * std::accumulate(losses, losses + count, 0.0));
}

// The targets that were given, or else item t for token t, written to `diagonal`.
const int64_t* targets(const std::optional<IndexArray>& given, py::ssize_t tokens, py::ssize_t items,
                       std::vector<int64_t>* diagonal) {
  if (given) return checked_indices(*given, "target", tokens, items);
  require(tokens <= items, "weight must have a row for each token where there is no target.");
  diagonal->resize(tokens);
  std::iota(diagonal->begin(), diagonal->end(), 0);
  return diagonal->data();
}

}  // namespace

void bind_linear_cross_entropy(py::module_& m) {
  m.def(
      "linear_cross_entropy",
      [](std::optional<FloatArray> losses, std::optional<FloatArray> loss, std::optional<FloatArray> hidden_gradient,
         std::optional<FloatArray> weight_gradient, const FloatArray& hidden, const FloatArray& weight,
         const std::optional<IndexArray>& target, std::optional<FloatArray> bias, std::optional<IntArray> token_ids,
         std::optional<IntArray> item_ids, double share, int threads) {
        require(hidden.ndim() == 2 && weight.ndim() == 2, "hidden and weight must have two dimensions.");
        const py::ssize_t tokens = hidden.shape(0), width = hidden.shape(1), items = weight.shape(0);
        require_shape(hidden, "hidden", {tokens, width});
        require_shape(weight, "weight", {items, width});
        require(items >= 1 || tokens == 0, "weight must have at least one row.");
        require(token_ids.has_value() == item_ids.has_value(), "token_ids and item_ids must come together.");
        require_threads(threads);
        std::vector<int64_t> diagonal;
        std::vector<float> unwanted(losses ? 0 : tokens);
        const LinearCrossEntropy args{hidden.data(),
                                      row_stride(hidden),
                                      weight.data(),
                                      row_stride(weight),
                                      targets(target, tokens, items, &diagonal),
                                      input(bias, "bias", {items}),
                                      ids(token_ids, "token_ids", tokens),
                                      ids(item_ids, "item_ids", items),
                                      static_cast<float>(share),
                                      losses ? output(*losses, "losses", {tokens}) : unwanted.data(),
                                      output(hidden_gradient, "hidden_gradient", {tokens, width}),
                                      output(weight_gradient, "weight_gradient", {items, width}),
                                      tokens,
                                      items,
                                      width,
                                      threads};
        float* to_loss = output(loss, "loss", {});
        py::gil_scoped_release release;
        linear_cross_entropy(args);
        if (to_loss) *to_loss = scaled_sum(args.losses, args.tokens, share);
      },
      py::arg("losses").noconvert(), py::arg("loss").noconvert(), py::arg("hidden_gradient").noconvert(),
      py::arg("weight_gradient").noconvert(), py::arg("hidden").noconvert(), py::arg("weight").noconvert(),
      py::arg("target").noconvert(), py::arg("bias").noconvert(), py::arg("token_ids").noconvert(),
      py::arg("item_ids").noconvert(), py::arg("share"), py::arg("threads"));
}

}  // namespace uqabench
