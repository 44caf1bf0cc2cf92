#pragma once

#include <cstdint>

namespace uqabench {

// The recurrence of one GRU layer over packed sequences. The gates come in the order reset, update, new. The results do
// not depend on `threads`.
struct GruLayer {
  const float* weight;  // (3 hidden, hidden), rows `weight_stride` floats apart
  int64_t weight_stride;
  const float* h0;  // (sequences, hidden), rows `h0_stride` floats apart; null: zeros
  int64_t h0_stride;
  const int64_t* offsets;  // (sequences + 1)
  int64_t sequences, hidden;
  int threads;
};

struct GruForward {
  const float* inputs;  // (tokens, 3 hidden), rows `inputs_stride` floats apart: the input projections of the gates
  int64_t inputs_stride;
  const float* bias;  // (3 hidden), added to the recurrent product; null: zeros
  float* out;         // (tokens, hidden)
  float* state;       // (sequences, hidden), after each sequence's last token; null if not wanted
  // What the backward pass needs, both null if there will be none: the activated gates (tokens, 3 hidden), and the new
  // gate's recurrent product (tokens, hidden).
  float* gates;
  float* recurrent_new;
};

struct GruBackward {
  const float* grad_out;  // (tokens, hidden); null: zeros
  const float *out, *gates, *recurrent_new;
  float* d_inputs;     // (tokens, 3 hidden)
  float* d_recurrent;  // (tokens, 3 hidden): gradient of the recurrent product and its bias
  float* previous;     // (tokens, hidden), the state before each token: d_recurrent^T previous is the weight's gradient
  float* d_state;      // (sequences, hidden): the final states' gradient; replaced by h0's if `to_h0`, else scratch
  bool to_h0;
};

void gru_forward(const GruLayer& layer, const GruForward& pass);
void gru_backward(const GruLayer& layer, const GruBackward& pass);

}  // namespace uqabench
