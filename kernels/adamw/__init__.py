"""AdamW (Loshchilov & Hutter 2019, decoupled weight decay) for embedding tables: its cost follows the rows touched.

Dense AdamW is the specification for a row that is touched at every step. A row that is touched at step t, and was last
at step s, first catches up with steps s + 1 .. t - 1 as if they had brought it gradients of zero, save that it does
not move along its momentum: with k = t - 1 - s,

    m *= beta1^k,  v *= beta2^k,  p *= product of (1 - lr_i weight_decay) over the missed steps i

(exact for any schedule of lr; the betas are those of step t), and then takes the ordinary step t, with the bias
corrections of step t. `flush_sparse_adamw_` does the catching up for all rows, so that a table which is evaluated or
saved is up to date.
"""

from .operator import flush_sparse_adamw_, sparse_adamw_
from .optimizer import AdamW

__all__ = ["AdamW", "flush_sparse_adamw_", "sparse_adamw_"]
