#include "cpu/ssd_scan.h"

#include "bindings/arrays.h"
#include "bindings/bind.h"

namespace uqabench {
namespace {

// The scan's inputs as Python passes them.
struct SsdArrays {
  const FloatArray &x, &dt, &a, &b, &c;
  const std::optional<FloatArray>&d, &z, &dt_bias;
  const IndexArray& offsets;
  const std::optional<FloatArray>& initial_state;

  Dims tokens() const { return {x.shape(0), x.shape(1), x.shape(2)}; }
  Dims states() const { return {offsets.size() - 1, x.shape(1), x.shape(2), b.shape(2)}; }
  Dims shared() const { return {x.shape(0), b.shape(1), b.shape(2)}; }

  SsdScan checked(bool softplus, int threads) const {
    require(x.ndim() == 3 && b.ndim() == 3, "x and B must have three dimensions.");
    const py::ssize_t count = x.shape(0), head_count = x.shape(1), groups = b.shape(1);
    require(groups >= 1 && head_count % groups == 0, "B's groups must divide the heads of x.");
    require_shape(x, "x", tokens());
    require_shape(dt, "dt", {count, head_count});
    require_shape(b, "B", {count, groups, b.shape(2)});
    require_shape(c, "C", shared());
    if (z) require_shape(*z, "z", tokens());
    require_threads(threads);
    SsdScan in{};
    in.offsets = checked_offsets(offsets, count);
    in.x = heads(x);
    in.z = z ? heads(*z) : HeadView{nullptr, 0, 0};
    in.b = heads(b);
    in.c = heads(c);
    in.dt = dt.data();
    in.dt_stride = row_stride(dt);
    in.a = input(a, "A", {head_count});
    in.d = input(d, "D", {head_count});
    in.dt_bias = input(dt_bias, "dt_bias", {head_count});
    in.initial_state = input(initial_state, "initial_state", states());
    in.sequences = offsets.size() - 1;
    in.heads = head_count;
    in.width = x.shape(2);
    in.groups = groups;
    in.states = b.shape(2);
    in.softplus = softplus;
    in.threads = threads;
    return in;
  }
};

}  // namespace

void bind_ssd_scan(py::module_& m) {
  m.def(
      "ssd_scan_forward",
      [](FloatArray y, std::optional<FloatArray> state, std::optional<FloatArray> ungated, const FloatArray& x,
         const FloatArray& dt, const FloatArray& a, const FloatArray& b, const FloatArray& c,
         std::optional<FloatArray> d, std::optional<FloatArray> z, std::optional<FloatArray> dt_bias,
         const IndexArray& offsets, bool softplus, std::optional<FloatArray> initial_state, int threads) {
        const SsdArrays arrays{x, dt, a, b, c, d, z, dt_bias, offsets, initial_state};
        const SsdScan in = arrays.checked(softplus, threads);
        float* to = output(y, "y", arrays.tokens());
        float* to_ungated = output(ungated, "ungated", arrays.tokens());
        float* to_state = output(state, "state", arrays.states());
        py::gil_scoped_release release;
        ssd_scan_forward(in, to, to_ungated, to_state);
      },
      py::arg("y").noconvert(), py::arg("state").noconvert(), py::arg("ungated").noconvert(), py::arg("x").noconvert(),
      py::arg("dt").noconvert(), py::arg("A").noconvert(), py::arg("B").noconvert(), py::arg("C").noconvert(),
      py::arg("D").noconvert(), py::arg("z").noconvert(), py::arg("dt_bias").noconvert(),
      py::arg("offsets").noconvert(), py::arg("softplus"), py::arg("initial_state").noconvert(), py::arg("threads"));
  m.def(
      "ssd_scan_backward",
      [](FloatArray dx, FloatArray ddt, FloatArray da, FloatArray db, FloatArray dc, std::optional<FloatArray> dd,
         std::optional<FloatArray> dz, std::optional<FloatArray> dbias, std::optional<FloatArray> d_initial,
         const FloatArray& grad, std::optional<FloatArray> state_grad, std::optional<FloatArray> ungated,
         const FloatArray& x, const FloatArray& dt, const FloatArray& a, const FloatArray& b, const FloatArray& c,
         std::optional<FloatArray> d, std::optional<FloatArray> z, std::optional<FloatArray> dt_bias,
         const IndexArray& offsets, bool softplus, std::optional<FloatArray> initial_state, int threads) {
        const SsdArrays arrays{x, dt, a, b, c, d, z, dt_bias, offsets, initial_state};
        const SsdScan in = arrays.checked(softplus, threads);
        const py::ssize_t heads = x.shape(1);
        require(!z || (dz && ungated), "z needs dz and ungated.");
        const float* y_grad = input(grad, "grad", arrays.tokens());
        const SsdGradients to{output(dx, "dx", arrays.tokens()),
                              output(ddt, "ddt", {x.shape(0), heads}),
                              output(da, "dA", {heads}),
                              output(db, "dB", arrays.shared()),
                              output(dc, "dC", arrays.shared()),
                              output(dd, "dD", {heads}),
                              output(dz, "dz", arrays.tokens()),
                              output(dbias, "ddt_bias", {heads}),
                              output(d_initial, "d_initial_state", arrays.states())};
        const SsdGiven given{{y_grad, heads * x.shape(2), x.shape(2)},
                             input(state_grad, "state_grad", arrays.states()),
                             input(ungated, "ungated", arrays.tokens())};
        py::gil_scoped_release release;
        ssd_scan_backward(in, given, to);
      },
      py::arg("dx").noconvert(), py::arg("ddt").noconvert(), py::arg("dA").noconvert(), py::arg("dB").noconvert(),
      py::arg("dC").noconvert(), py::arg("dD").noconvert(), py::arg("dz").noconvert(), py::arg("ddt_bias").noconvert(),
      py::arg("d_initial_state").noconvert(), py::arg("grad").noconvert(), py::arg("state_grad").noconvert(),
      py::arg("ungated").noconvert(), py::arg("x").noconvert(), py::arg("dt").noconvert(), py::arg("A").noconvert(),
      py::arg("B").noconvert(), py::arg("C").noconvert(), py::arg("D").noconvert(), py::arg("z").noconvert(),
      py::arg("dt_bias").noconvert(), py::arg("offsets").noconvert(), py::arg("softplus"),
      py::arg("initial_state").noconvert(), py::arg("threads"));
}

}  // namespace uqabench
