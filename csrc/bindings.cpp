// The Python module uqabench._native: argument checks and GIL handling; the work is in cpu/.
//
// Arrays come as NumPy views of the tensors' memory and are never copied: a wrong dtype is a TypeError. The operators
// have checked their arguments already; what could read or write out of bounds is checked here again.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/causal_attention.h"
#include "cpu/hstu_attention.h"
#include "cpu/isa.h"
#include "cpu/linear_rank.h"

namespace py = pybind11;
using namespace uqabench;

namespace {

using FloatArray = py::array_t<float, 0>;
using IntArray = py::array_t<int64_t, 0>;

void require(bool holds, const std::string& message) {
  if (!holds) throw py::value_error(message);
}

void require_shape(const py::array& x, const char* name, const std::vector<py::ssize_t>& shape) {
  require(x.ndim() == static_cast<py::ssize_t>(shape.size()) && std::equal(shape.begin(), shape.end(), x.shape()),
          std::string(name) + " has the wrong shape.");
  require(x.size() == 0 || x.shape(x.ndim() - 1) <= 1 || x.strides(x.ndim() - 1) == x.itemsize(),
          std::string(name) + " must be contiguous in its last dimension.");
}

// As require_shape, and contiguous as a whole: for what is written.
float* output(FloatArray& x, const char* name, const std::vector<py::ssize_t>& shape) {
  require_shape(x, name, shape);
  require(x.flags() & py::array::c_style, std::string(name) + " must be contiguous.");
  return x.mutable_data();
}

void require_values_in(const IntArray& x, const char* name, int64_t size) {
  const int64_t* data = x.data();
  require(std::all_of(data, data + x.size(), [size](int64_t v) { return v >= 0 && v < size; }),
          std::string(name) + " must lie in [0, " + std::to_string(size) + ").");
}

HeadView heads(const FloatArray& x) {
  constexpr auto bytes = static_cast<int64_t>(sizeof(float));
  return {x.data(), x.strides(0) / bytes, x.strides(1) / bytes};
}

// Fills what both attentions take, after checking it.
void fill_attention(AttentionInputs& in, const FloatArray& q, const FloatArray& k, const FloatArray& v,
                    const IntArray& offsets, double scale, int threads) {
  require(q.ndim() == 3 && v.ndim() == 3 && offsets.ndim() == 1 && offsets.size() >= 1,
          "q and v must have three dimensions, offsets one and at least one entry.");
  const py::ssize_t tokens = q.shape(0), head_count = q.shape(1), width = q.shape(2), value_width = v.shape(2);
  require(head_count >= 1 && width >= 1 && value_width >= 1, "q and v must have at least one head and component.");
  require_shape(q, "q", {tokens, head_count, width});
  require_shape(k, "k", {tokens, head_count, width});
  require_shape(v, "v", {tokens, head_count, value_width});
  require_shape(offsets, "offsets", {offsets.size()});
  require(tokens < std::numeric_limits<int32_t>::max(), "q must have fewer than 2^31 - 1 tokens.");
  require(threads >= 1, "threads must be at least 1.");
  const int64_t* at = offsets.data();
  require(at[0] == 0 && at[offsets.size() - 1] == tokens, "offsets must go from 0 to the number of tokens.");
  for (py::ssize_t b = 0; b + 1 < offsets.size(); ++b) require(at[b + 1] >= at[b], "offsets must not fall.");
  in.q = heads(q);
  in.k = heads(k);
  in.v = heads(v);
  in.offsets = at;
  in.sequences = offsets.size() - 1;
  in.heads = head_count;
  in.width = width;
  in.value_width = value_width;
  in.scale = static_cast<float>(scale);
  in.threads = threads;
}

struct HstuTables {
  std::optional<FloatArray> position_bias, time_bias;
  std::optional<IntArray> bucket_starts, timestamps;
};

HstuAttention hstu_arguments(const FloatArray& q, const FloatArray& k, const FloatArray& v, const IntArray& offsets,
                             const HstuTables& tables, int64_t max_len, double scale, int threads) {
  HstuAttention args{};
  fill_attention(args, q, k, v, offsets, scale, threads);
  require(max_len >= 1 && max_len < std::numeric_limits<int32_t>::max(), "max_len must lie in [1, 2^31 - 1).");
  require(args.longest() <= max_len, "max_len is less than the longest sequence.");
  args.max_len = max_len;
  if (tables.position_bias) {
    require_shape(*tables.position_bias, "position_bias", {2 * max_len - 1});
    args.position_bias = tables.position_bias->data();
  }
  if (tables.time_bias) {
    require(tables.timestamps && tables.bucket_starts, "time_bias needs timestamps and bucket_starts.");
    args.buckets = tables.time_bias->size();
    require_shape(*tables.time_bias, "time_bias", {args.buckets});
    // The kernel holds a bucket in a byte.
    require(args.buckets >= 1 && args.buckets <= 256, "time_bias must have 1 to 256 buckets.");
    require_shape(*tables.bucket_starts, "bucket_starts", {args.buckets - 1});
    require_shape(*tables.timestamps, "timestamps", {args.tokens()});
    args.time_bias = tables.time_bias->data();
    args.timestamps = tables.timestamps->data();
    args.bucket_starts = tables.bucket_starts->data();
  }
  return args;
}

void bind_hstu_attention(py::module_& m) {
  m.def(
      "hstu_attention_forward",
      [](FloatArray out, const FloatArray& q, const FloatArray& k, const FloatArray& v, const IntArray& offsets,
         std::optional<FloatArray> position_bias, std::optional<FloatArray> time_bias,
         std::optional<IntArray> bucket_starts, std::optional<IntArray> timestamps, int64_t max_len, double scale,
         int threads) {
        const HstuTables tables{position_bias, time_bias, bucket_starts, timestamps};
        const HstuAttention args = hstu_arguments(q, k, v, offsets, tables, max_len, scale, threads);
        float* to = output(out, "out", {v.shape(0), v.shape(1), v.shape(2)});
        py::gil_scoped_release release;
        hstu_attention_forward(args, to);
      },
      py::arg("out").noconvert(), py::arg("q").noconvert(), py::arg("k").noconvert(), py::arg("v").noconvert(),
      py::arg("offsets").noconvert(), py::arg("position_bias").noconvert(), py::arg("time_bias").noconvert(),
      py::arg("bucket_starts").noconvert(), py::arg("timestamps").noconvert(), py::arg("max_len"), py::arg("scale"),
      py::arg("threads"));
  m.def(
      "hstu_attention_backward",
      [](FloatArray dq, FloatArray dk, FloatArray dv, FloatArray d_position, FloatArray d_time, const FloatArray& grad,
         const FloatArray& q, const FloatArray& k, const FloatArray& v, const IntArray& offsets,
         std::optional<FloatArray> position_bias, std::optional<FloatArray> time_bias,
         std::optional<IntArray> bucket_starts, std::optional<IntArray> timestamps, int64_t max_len, double scale,
         int threads) {
        const HstuTables tables{position_bias, time_bias, bucket_starts, timestamps};
        const HstuAttention args = hstu_arguments(q, k, v, offsets, tables, max_len, scale, threads);
        const std::vector<py::ssize_t> shape(q.shape(), q.shape() + 3), value_shape(v.shape(), v.shape() + 3);
        require_shape(grad, "grad", value_shape);
        const HstuGradients gradients{
            output(dq, "dq", shape), output(dk, "dk", shape), output(dv, "dv", value_shape),
            output(d_position, "d_position", {position_bias ? 2 * max_len - 1 : 0}),
            output(d_time, "d_time", {static_cast<py::ssize_t>(args.buckets)})};
        const HeadView g = heads(grad);
        py::gil_scoped_release release;
        hstu_attention_backward(args, g, gradients);
      },
      py::arg("dq").noconvert(), py::arg("dk").noconvert(), py::arg("dv").noconvert(),
      py::arg("d_position").noconvert(), py::arg("d_time").noconvert(), py::arg("grad").noconvert(),
      py::arg("q").noconvert(), py::arg("k").noconvert(), py::arg("v").noconvert(), py::arg("offsets").noconvert(),
      py::arg("position_bias").noconvert(), py::arg("time_bias").noconvert(), py::arg("bucket_starts").noconvert(),
      py::arg("timestamps").noconvert(), py::arg("max_len"), py::arg("scale"), py::arg("threads"));
}

void bind_causal_attention(py::module_& m) {
  m.def(
      "causal_attention_forward",
      [](FloatArray out, FloatArray log_sums, const FloatArray& q, const FloatArray& k, const FloatArray& v,
         const IntArray& offsets, double scale, int threads) {
        AttentionInputs in{};
        fill_attention(in, q, k, v, offsets, scale, threads);
        float* to = output(out, "out", {v.shape(0), v.shape(1), v.shape(2)});
        float* logs = output(log_sums, "log_sums", {q.shape(0), q.shape(1)});
        py::gil_scoped_release release;
        causal_attention_forward(in, to, logs);
      },
      py::arg("out").noconvert(), py::arg("log_sums").noconvert(), py::arg("q").noconvert(), py::arg("k").noconvert(),
      py::arg("v").noconvert(), py::arg("offsets").noconvert(), py::arg("scale"), py::arg("threads"));
  m.def(
      "causal_attention_backward",
      [](FloatArray dq, FloatArray dk, FloatArray dv, const FloatArray& grad, const FloatArray& out,
         const FloatArray& log_sums, const FloatArray& q, const FloatArray& k, const FloatArray& v,
         const IntArray& offsets, double scale, int threads) {
        AttentionInputs in{};
        fill_attention(in, q, k, v, offsets, scale, threads);
        const std::vector<py::ssize_t> shape(q.shape(), q.shape() + 3), value_shape(v.shape(), v.shape() + 3);
        require_shape(grad, "grad", value_shape);
        require_shape(out, "out", value_shape);
        require_shape(log_sums, "log_sums", {q.shape(0), q.shape(1)});
        require(log_sums.flags() & py::array::c_style, "log_sums must be contiguous.");
        const CausalGradients gradients{output(dq, "dq", shape), output(dk, "dk", shape),
                                        output(dv, "dv", value_shape)};
        const CausalAttentionResult result{heads(grad), heads(out), log_sums.data()};
        py::gil_scoped_release release;
        causal_attention_backward(in, result, gradients);
      },
      py::arg("dq").noconvert(), py::arg("dk").noconvert(), py::arg("dv").noconvert(), py::arg("grad").noconvert(),
      py::arg("out").noconvert(), py::arg("log_sums").noconvert(), py::arg("q").noconvert(), py::arg("k").noconvert(),
      py::arg("v").noconvert(), py::arg("offsets").noconvert(), py::arg("scale"), py::arg("threads"));
}

void bind_linear_rank(py::module_& m) {
  m.def(
      "linear_rank",
      [](IntArray rank, const FloatArray& hidden, const FloatArray& weight, const IntArray& target, int threads) {
        require(hidden.ndim() == 2 && weight.ndim() == 2, "hidden and weight must have two dimensions.");
        const py::ssize_t tokens = hidden.shape(0), width = hidden.shape(1), items = weight.shape(0);
        require_shape(hidden, "hidden", {tokens, width});
        require_shape(weight, "weight", {items, width});
        require_shape(target, "target", {tokens});
        require_shape(rank, "rank", {tokens});
        require(threads >= 1, "threads must be at least 1.");
        require(items < std::numeric_limits<int32_t>::max(), "weight must have fewer than 2^31 - 1 rows.");
        require_values_in(target, "target", items);
        constexpr auto bytes = static_cast<int64_t>(sizeof(float));
        const LinearRank args{hidden.data(), hidden.strides(0) / bytes, weight.data(),  weight.strides(0) / bytes,
                              target.data(), rank.mutable_data(),       tokens,         items,
                              width,         threads};
        py::gil_scoped_release release;
        linear_rank(args);
      },
      py::arg("rank").noconvert(), py::arg("hidden").noconvert(), py::arg("weight").noconvert(),
      py::arg("target").noconvert(), py::arg("threads"));
}

void bind_instruction_sets(py::module_& m) {
  m.def("instruction_sets", [] {
    std::vector<std::string> names;
    for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
      if (is_supported(isa)) names.emplace_back(isa_names[static_cast<int>(isa)]);
    }
    return names;
  }, "Names of the instruction sets that this machine can run, narrowest first.");
  m.def("instruction_set", [] { return isa_names[static_cast<int>(current_isa())]; },
        "Name of the instruction set that the kernels use.");
  m.def("set_instruction_set", [](const std::string& name) {
    for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
      if (name == isa_names[static_cast<int>(isa)] && is_supported(isa)) return set_isa(isa);
    }
    throw py::value_error("instruction set '" + name + "' is unknown or not supported by this machine.");
  }, py::arg("name"), "Makes the kernels use that instruction set, in every thread, from the next call on.");
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "Native CPU kernels of uqabench.";
  m.attr("has_cuda") = false;
  bind_instruction_sets(m);
  bind_causal_attention(m);
  bind_hstu_attention(m);
  bind_linear_rank(m);
}
