// Large blocks of memory that are about to be written for the first time.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace uqabench {

// Asks the system for large pages under `count` elements that will all be written. From 32 MiB on, the allocator takes
// each block from the system anew, and mapping it in pages of 4 KiB as they are touched costs more than filling it.
template <class T>
void expect_writes(T* data, int64_t count) {
#ifdef __linux__
  constexpr uintptr_t page = 4096;
  constexpr size_t fresh = size_t{32} << 20;
  const size_t bytes = static_cast<size_t>(count) * sizeof(T);
  if (bytes < fresh) return;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // a hint: refusing it harms nothing
#else
  (void)data;
  (void)count;
#endif
}

}  // namespace uqabench
