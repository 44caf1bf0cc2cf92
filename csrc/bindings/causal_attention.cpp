#include "cpu/causal_attention.h"

#include "bindings/attention.h"
#include "bindings/bind.h"

namespace uqabench {

void bind_causal_attention(py::module_& m) {
  m.def(
      "causal_attention_forward",
      [](FloatArray out, FloatArray log_sums, const FloatArray& q, const FloatArray& k, const FloatArray& v,
         const IndexArray& offsets, double scale, int threads) {
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
         const IndexArray& offsets, double scale, int threads) {
        AttentionInputs in{};
        fill_attention(in, q, k, v, offsets, scale, threads);
        const Dims shape(q.shape(), q.shape() + 3), value_shape(v.shape(), v.shape() + 3);
        require_shape(grad, "grad", value_shape);
        require_shape(out, "out", value_shape);
        require_shape(log_sums, "log_sums", {q.shape(0), q.shape(1)});
        require(log_sums.is_contiguous(), "log_sums must be contiguous.");
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

}  // namespace uqabench
