// Runs the CUDA selective scan's kernels on the CPU: selective_scan (forward|backward) (ascending|descending) FILE.
//
// FILE holds int64 numbers: how many sizes, these, how many arrays, and for each its bytes (-1: null) and then the
// bytes themselves. The arrays are written back to it after the run. Prints the bytes of shared memory of each launch.
#include <cstdio>
#include <string>

#include "cuda/selective_scan_launch.cuh"

using namespace uqabench;

namespace {

using Bytes = std::unique_ptr<char[]>;

void require(bool holds, const char* what) {
  if (!holds) {
    std::fprintf(stderr, "selective_scan: %s\n", what);
    std::exit(2);
  }
}

struct Call {
  std::vector<int64_t> sizes, bytes;
  std::vector<Bytes> arrays;
  std::vector<void*> pointers;

  explicit Call(std::FILE* file) {
    const auto number = [file] {
      int64_t x = 0;
      require(std::fread(&x, sizeof(x), 1, file) == 1, "the file ends too early");
      return x;
    };
    sizes.resize(number());
    for (int64_t& size : sizes) size = number();
    bytes.resize(number());
    for (int64_t& count : bytes) {
      count = number();
      arrays.emplace_back(count < 0 ? nullptr : new char[count]);
      pointers.push_back(arrays.back().get());
      if (count > 0) require(std::fread(pointers.back(), count, 1, file) == 1, "the file ends too early");
    }
    require(sizes.size() == cuda::sizes_in_all && bytes.size() == cuda::pointers_in_all, "wrong numbers of arguments");
  }

  void write(std::FILE* file) const {
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (bytes[i] > 0) require(std::fwrite(pointers[i], bytes[i], 1, file) == 1, "the file cannot be written");
    }
  }
};

template <class T>
void run(const Call& call, bool is_forward, bool is_descending) {
  const auto scan = cuda::read_scan<T>(call.sizes.data(), call.pointers.data());
  const auto launch = [&](auto kernel, int64_t blocks, int threads, int64_t bytes, const cuda::Scan<T>& of) {
    std::printf("%lld\n", static_cast<long long>(bytes));
    if (blocks > 0) emulation::launch(kernel, blocks, threads, bytes, is_descending, of);
  };
  if (is_forward) {
    cuda::launch_forward(scan, launch);
  } else {
    cuda::launch_backward(scan, launch);
  }
}

}  // namespace

int main(int argc, char** argv) {
  require(argc == 4, "wrong numbers of arguments");
  std::FILE* file = std::fopen(argv[3], "rb");
  require(file, "no such file");
  const Call call(file);
  std::fclose(file);
  const bool is_forward = argv[1] == std::string("forward"), is_descending = argv[2] == std::string("descending");
  if (call.sizes[cuda::bfloat16_at]) {
    run<cuda::Bfloat16>(call, is_forward, is_descending);
  } else {
    run<float>(call, is_forward, is_descending);
  }
  file = std::fopen(argv[3], "wb");
  require(file, "the file cannot be written");
  call.write(file);
  require(std::fclose(file) == 0, "the file cannot be written");
}
