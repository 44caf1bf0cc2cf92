#pragma once

#include "cpu/parallel.h"
#include "cpu/selective_scan.h"

namespace uqabench {

// Partial sums of gradients: each task has accumulators of its own, which are added in a fixed order afterwards.
struct ScanPartials {
  int64_t states;      // padded
  Scratch tokens;      // (groups, tokens, 2, states): the gradients of B and C over one group's channels
  Scratch parameters;  // (runs, groups, states + 2, scan_channels): the gradients of the rates, D and delta_bias

  ScanPartials(const ScanInputs& in, int64_t padded, int64_t runs)
      : states(padded),
        tokens(channel_groups(in) * in.tokens * 2 * padded),
        parameters(runs * channel_groups(in) * (padded + 2) * scan_channels) {}
};

}  // namespace uqabench
