// Threads: a loop whose tasks are handed out one at a time, each with its thread's own scratch memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace uqabench {

// `count` floats at a 64-byte boundary, not initialised. Throws std::bad_alloc.
class Scratch {
 public:
  explicit Scratch(size_t count)
      : floats_(static_cast<float*>(std::aligned_alloc(64, (count * sizeof(float) + 127) / 64 * 64))) {
    if (!floats_) throw std::bad_alloc();
  }
  float* get() const { return floats_.get(); }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float, Free> floats_;
};

// Calls task(i, scratch) for i in [0, count) on up to `threads` threads, in order of i; `scratch` is `floats` floats of
// the thread's own. The memory is taken beforehand, so nothing throws inside the parallel region.
template <class Task>
void parallel_for(int64_t count, int threads, size_t floats, const Task& task) {
  if (count <= 0) return;
  if (threads > count) threads = static_cast<int>(count);
  if (threads < 1) threads = 1;
  const size_t each = (floats + 15) / 16 * 16;
  const Scratch scratch(each * threads);
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (int64_t i = 0; i < count; ++i) task(i, scratch.get() + each * omp_get_thread_num());
#else
  for (int64_t i = 0; i < count; ++i) task(i, scratch.get());
#endif
}

}  // namespace uqabench
