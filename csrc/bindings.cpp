// The Python module uqabench._native: argument checks and GIL handling; the work is in cpu/.
#include <pybind11/pybind11.h>

PYBIND11_MODULE(_native, m) { m.doc() = "Native CPU kernels of uqabench."; }
