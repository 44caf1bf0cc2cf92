// Views of rows, and how rows are divided into tasks.
#pragma once

#include <algorithm>
#include <cstdint>

namespace uqabench {

// Rows of contiguous elements, `stride` elements apart. With stride 0 every row is the same one; null data: absent.
template <class T>
struct RowView {
  const T* data;
  int64_t stride;

  const T* at(int64_t row) const { return data + row * stride; }
};

// Rows [begin, end).
struct RowRange {
  int64_t begin, end;
};

// Divides rows into tasks of about 64 KiB of floats each. The division does not depend on the number of threads, so
// neither do sums over a task.
struct RowTasks {
  int64_t rows, width, size;

  RowTasks(int64_t rows, int64_t width)
      : rows(rows), width(width), size(std::clamp<int64_t>(16384 / std::max<int64_t>(width, 1), 8, 1024)) {}
  int64_t count() const { return (rows + size - 1) / size; }
  // How many of the `available` threads have enough work to be worth waking.
  int threads(int available) const {
    return static_cast<int>(std::min<int64_t>(available, 1 + rows * width / 32768));
  }
  RowRange operator[](int64_t task) const { return {task * size, std::min(rows, (task + 1) * size)}; }
};

}  // namespace uqabench
