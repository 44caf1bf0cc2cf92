// CUDA's execution model on a CPU, for tests: the kernels of csrc/cuda compiled by a C++ compiler.
//
// A block's lanes are fibers of one thread that take turns at barriers and shuffles, in ascending or descending order:
// results that differ between the two show a barrier that is missing. Shared memory is a heap block of exactly the
// size launched with, full of NaN, and global memory the caller's heap blocks, so the address sanitizer sees what
// leaves them. Ends the program with a message where lanes wait for different barriers or shuffles, or where one has
// returned while others wait.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __launch_bounds__(...)
#define UQ_SHARED(name) float* name = uqabench::emulation::block.shared

namespace uqabench::emulation {

struct Index {
  unsigned x = 0;
};

enum class At { running, barrier, shuffle, returned };

struct Fiber {
  ucontext_t context{};
  std::unique_ptr<char[]> stack;
  At at = At::running;
  int line = 0;  // of the barrier or shuffle that it waits at
  float given = 0.0f;
  float taken = 0.0f;
  int from = 0;  // the lane of its warp that it takes from
};

constexpr size_t stack_size = 256 * 1024;

struct Block {
  std::vector<Fiber> fibers;
  ucontext_t scheduler{};
  std::function<void()> body;
  float* shared = nullptr;
  unsigned current = 0;
  bool is_descending = false;
};

inline Block block;
inline Index block_index, grid_size, block_size;

[[noreturn]] inline void fail(const char* message, int line, int other) {
  std::fprintf(stderr, "emulation: %s (lines %d and %d)\n", message, line, other);
  std::exit(3);
}

inline const void* thread_stack = nullptr;
inline size_t thread_stack_size = 0;

// To a fiber, or to the scheduler's own stack. The sanitizer has to be told of every change of stacks.
inline void change_stack(ucontext_t& from, ucontext_t& to, const void* stack, size_t size, bool is_last = false) {
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(is_last ? nullptr : &fake, stack, size);
  swapcontext(&from, &to);
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
  static_cast<void>(stack), static_cast<void>(size), static_cast<void>(is_last);
  swapcontext(&from, &to);
#endif
}

inline void leave(At at, int line) {
  Fiber& fiber = block.fibers[block.current];
  fiber.at = at;
  fiber.line = line;
  change_stack(fiber.context, block.scheduler, thread_stack, thread_stack_size, at == At::returned);
}

inline void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &thread_stack, &thread_stack_size);
#endif
  block.body();
  leave(At::returned, 0);
}

// All lanes [begin, end) wait for the same thing or have returned; goes on with them if they wait.
inline void release(unsigned begin, unsigned end, At at) {
  const Fiber& first = block.fibers[begin];
  for (unsigned i = begin; i < end; ++i) {
    const Fiber& fiber = block.fibers[i];
    if (fiber.at == At::returned) fail("a lane has returned while others wait", first.line, fiber.line);
    if (fiber.at != at || fiber.line != first.line) {
      fail("lanes wait at different barriers or shuffles", first.line, fiber.line);
    }
  }
  for (unsigned i = begin; i < end; ++i) {
    if (at == At::shuffle) block.fibers[i].taken = block.fibers[begin + block.fibers[i].from].given;
  }
  for (unsigned i = begin; i < end; ++i) block.fibers[i].at = At::running;
}

// Runs every lane that can until it waits; then lets warps whose lanes shuffle, or else the whole block, go on.
inline void run_block() {
  const auto size = static_cast<unsigned>(block.fibers.size());
  for (;;) {
    for (unsigned i = 0; i < size; ++i) {
      block.current = block.is_descending ? size - 1 - i : i;
      Fiber& fiber = block.fibers[block.current];
      if (fiber.at == At::running) change_stack(block.scheduler, fiber.context, fiber.stack.get(), stack_size);
    }
    bool has_shuffled = false;
    unsigned returned = 0;
    for (unsigned begin = 0; begin < size; begin += 32) {
      bool shuffles = false;
      for (unsigned i = begin; i < begin + 32; ++i) {
        shuffles = shuffles || block.fibers[i].at == At::shuffle;
        returned += block.fibers[i].at == At::returned;
      }
      if (shuffles) release(begin, begin + 32, At::shuffle);
      has_shuffled = has_shuffled || shuffles;
    }
    if (returned == size) return;
    if (!has_shuffled) release(0, size, At::barrier);
  }
}

// A fresh start of block.body.
inline void prepare(Fiber& fiber) {
  if (!fiber.stack) fiber.stack.reset(new char[stack_size]);
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = stack_size;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, fiber_main, 0);
  fiber.at = At::running;
}

// kernel<<<blocks, threads, bytes>>>(arguments...), block after block.
template <class... Parameters>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, int64_t bytes, bool is_descending,
            const Parameters&... arguments) {
  if (threads % 32 != 0 || threads > 1024 || bytes > 227 * 1024) fail("no such launch is possible", threads, 0);
  const std::unique_ptr<float[]> shared(new float[bytes / sizeof(float)]);
  block.shared = shared.get();
  block.is_descending = is_descending;
  block.body = [&] { kernel(arguments...); };
  block.fibers.resize(threads);
  grid_size.x = static_cast<unsigned>(blocks);
  block_size.x = threads;
  for (int64_t i = 0; i < blocks; ++i) {
    block_index.x = static_cast<unsigned>(is_descending ? blocks - 1 - i : i);
    for (size_t j = 0; j < bytes / sizeof(float); ++j) shared[j] = std::numeric_limits<float>::quiet_NaN();
    for (Fiber& fiber : block.fibers) prepare(fiber);
    run_block();
  }
}

}  // namespace uqabench::emulation

#define threadIdx (uqabench::emulation::Index{uqabench::emulation::block.current})
#define blockIdx (uqabench::emulation::block_index)
#define gridDim (uqabench::emulation::grid_size)
#define blockDim (uqabench::emulation::block_size)

inline void __syncthreads(int line = __builtin_LINE()) {
  uqabench::emulation::leave(uqabench::emulation::At::barrier, line);
}

namespace uqabench::cuda {

// The upper half of a float.
struct Bfloat16 {
  uint16_t bits;
};

inline float power_of_two(float x) { return std::exp2(x); }
inline float log_of_two(float x) { return std::log2(x); }
inline float reciprocal(float x) { return 1.0f / x; }
inline float load(const float* from) { return *from; }
inline void store(float* to, float x) { *to = x; }

inline float load(const Bfloat16* from) {
  const uint32_t bits = uint32_t{from->bits} << 16;
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

// Rounded to the nearest, ties to even.
inline void store(Bfloat16* to, float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(x));
  if (x != x) {
    bits = 0x7fff0000u;
  } else {
    bits += 0x7fffu + (bits >> 16 & 1u);
  }
  to->bits = static_cast<uint16_t>(bits >> 16);
}

inline float shuffle_xor(float x, int lane_mask, int line = __builtin_LINE()) {
  using uqabench::emulation::block;
  emulation::Fiber& fiber = block.fibers[block.current];
  fiber.given = x;
  fiber.from = static_cast<int>(block.current % 32) ^ lane_mask;
  emulation::leave(emulation::At::shuffle, line);
  return block.fibers[block.current].taken;
}

}  // namespace uqabench::cuda
