// Memory that comes fresh from the system.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace uqabench {

// Before `count` numbers are written in full: asks for large pages under them. From 32 MiB on, an allocator gets each
// block anew from the system, page by page as it is touched, which costs more than filling it: zeroing 40 MiB on one
// core takes 22 ms with pages of 4 KiB and 5 ms with large ones.
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
