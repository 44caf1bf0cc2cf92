#include "cpu/hstu_attention.h"

#include "bindings/attention.h"
#include "bindings/bind.h"

namespace uqabench {
namespace {

struct HstuTables {
  std::optional<FloatArray> position_bias, time_bias;
  std::optional<IntArray> bucket_starts, timestamps;
};

HstuAttention hstu_arguments(const FloatArray& q, const FloatArray& k, const FloatArray& v, const IndexArray& offsets,
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

HstuLimits limits_of(const HstuAttention& args, const std::optional<IndexArray>& num_targets, int64_t max_attn_len,
                     int64_t contextual_seq_len) {
  require(max_attn_len >= 0 && contextual_seq_len >= 0, "max_attn_len and contextual_seq_len must be 0 or above.");
  if (num_targets) {
    require_shape(num_targets->array(), "num_targets", {args.sequences});
    for (int64_t b = 0; b < args.sequences; ++b) {
      const int64_t targets = num_targets->data()[b];
      require(targets >= 0 && targets <= args.length(b), "num_targets must lie in [0, the sequence's length].");
    }
  }
  // The kernel counts steps in 32 bits, and no sequence has more.
  const int64_t most = std::numeric_limits<int32_t>::max();
  return {num_targets ? num_targets->data() : nullptr, std::min(max_attn_len, most),
          std::min(contextual_seq_len, most)};
}

}  // namespace

void bind_hstu_attention(py::module_& m) {
  m.def(
      "hstu_attention_forward",
      [](FloatArray out, const FloatArray& q, const FloatArray& k, const FloatArray& v, const IndexArray& offsets,
         int64_t max_len, double scale, std::optional<FloatArray> position_bias, std::optional<FloatArray> time_bias,
         std::optional<IntArray> bucket_starts, std::optional<IntArray> timestamps,
         std::optional<IndexArray> num_targets, int64_t max_attn_len, int64_t contextual_seq_len, int threads) {
        const HstuTables tables{position_bias, time_bias, bucket_starts, timestamps};
        const HstuAttention args = hstu_arguments(q, k, v, offsets, tables, max_len, scale, threads);
        const HstuLimits limits = limits_of(args, num_targets, max_attn_len, contextual_seq_len);
        float* to = output(out, "out", {v.shape(0), v.shape(1), v.shape(2)});
        py::gil_scoped_release release;
        if (limits.are_none()) {
          hstu_attention_forward(args, to);
        } else {
          hstu_limited_forward(args, limits, to);
        }
      },
      py::arg("out").noconvert(), py::arg("q").noconvert(), py::arg("k").noconvert(), py::arg("v").noconvert(),
      py::arg("offsets").noconvert(), py::arg("max_len"), py::arg("scale"), py::arg("position_bias").noconvert(),
      py::arg("time_bias").noconvert(), py::arg("bucket_starts").noconvert(), py::arg("timestamps").noconvert(),
      py::arg("num_targets").noconvert(), py::arg("max_attn_len"), py::arg("contextual_seq_len"), py::arg("threads"));
  m.def(
      "hstu_attention_backward",
      [](FloatArray dq, FloatArray dk, FloatArray dv, FloatArray d_position, FloatArray d_time, const FloatArray& grad,
         const FloatArray& q, const FloatArray& k, const FloatArray& v, const IndexArray& offsets, int64_t max_len,
         double scale, std::optional<FloatArray> position_bias, std::optional<FloatArray> time_bias,
         std::optional<IntArray> bucket_starts, std::optional<IntArray> timestamps,
         std::optional<IndexArray> num_targets, int64_t max_attn_len, int64_t contextual_seq_len, int threads) {
        const HstuTables tables{position_bias, time_bias, bucket_starts, timestamps};
        const HstuAttention args = hstu_arguments(q, k, v, offsets, tables, max_len, scale, threads);
        const HstuLimits limits = limits_of(args, num_targets, max_attn_len, contextual_seq_len);
        const Dims shape(q.shape(), q.shape() + 3), value_shape(v.shape(), v.shape() + 3);
        require_shape(grad, "grad", value_shape);
        const HstuGradients gradients{
            output(dq, "dq", shape), output(dk, "dk", shape), output(dv, "dv", value_shape),
            output(d_position, "d_position", {position_bias ? 2 * max_len - 1 : 0}),
            output(d_time, "d_time", {static_cast<py::ssize_t>(args.buckets)})};
        const HeadView g = heads(grad);
        py::gil_scoped_release release;
        if (limits.are_none()) {
          hstu_attention_backward(args, g, gradients);
        } else {
          hstu_limited_backward(args, limits, g, gradients);
        }
      },
      py::arg("dq").noconvert(), py::arg("dk").noconvert(), py::arg("dv").noconvert(),
      py::arg("d_position").noconvert(), py::arg("d_time").noconvert(), py::arg("grad").noconvert(),
      py::arg("q").noconvert(), py::arg("k").noconvert(), py::arg("v").noconvert(), py::arg("offsets").noconvert(),
      py::arg("max_len"), py::arg("scale"), py::arg("position_bias").noconvert(), py::arg("time_bias").noconvert(),
      py::arg("bucket_starts").noconvert(), py::arg("timestamps").noconvert(), py::arg("num_targets").noconvert(),
      py::arg("max_attn_len"), py::arg("contextual_seq_len"), py::arg("threads"));
}

}  // namespace uqabench
