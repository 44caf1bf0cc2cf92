// Threads: parallel_for hands out independent tasks one at a time, with scratch memory for each thread; parallel_team
// takes a group of threads through a sequence of steps with a barrier between them.
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

// `count` uninitialised floats at a 64-byte boundary. Throws std::bad_alloc.
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

// Divides a task's scratch memory into pieces, each rounded up to 64 bytes.
struct Arena {
  float* next;

  float* take(int64_t floats) {
    float* piece = next;
    next += (floats + 15) / 16 * 16;
    return piece;
  }
};

// Calls task(i, scratch) for i in [0, count) on up to `threads` threads; tasks are started in the order of i. `scratch`
// points to `floats` floats that belong to the thread. They are allocated before the parallel region, inside which
// nothing may throw.
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

// One thread of a team.
struct Member {
  int64_t index, count;

  // This member's share of `tasks` tasks is [begin, end). The members' shares are adjacent and cover all tasks.
  int64_t begin(int64_t tasks) const { return tasks * index / count; }
  int64_t end(int64_t tasks) const { return tasks * (index + 1) / count; }

  // A barrier: returns when every member of the team has reached it.
  void wait() const {
#ifdef _OPENMP
    if (count > 1) {
#pragma omp barrier
    }
#endif
  }
};

// Calls work(member) concurrently for each member of a team of up to `threads` threads. `work` must not throw.
template <class Work>
void parallel_team(int threads, const Work& work) {
#ifdef _OPENMP
  if (threads > 1) {
#pragma omp parallel num_threads(threads)
    work(Member{omp_get_thread_num(), omp_get_num_threads()});
    return;
  }
#endif
  work(Member{0, 1});
}

}  // namespace uqabench
