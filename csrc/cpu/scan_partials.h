#pragma once

#include "cpu/parallel.h"
#include "cpu/selective_scan.h"

namespace uqabench {

// Sums that tasks share, each in its own place, to be added in order.
struct ScanPartials {
  int64_t states;      // padded
  Scratch tokens;      // (groups, tokens, 2, states): gradients of B and C from one group's channels
  Scratch parameters;  // (runs, groups, states + 2, scan_channels): gradients of the rates, D and delta_bias

  ScanPartials(const ScanInputs& in, int64_t padded, int64_t runs)
      : states(padded),
        tokens(channel_groups(in) * in.tokens * 2 * padded),
        parameters(runs * channel_groups(in) * (padded + 2) * scan_channels) {}
};

}  // namespace uqabench
