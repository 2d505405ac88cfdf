"""How sure a policy is: self-certainty, entropy, log-probabilities.

In: logits, hidden states, or a model with token ids. Out: nats for each token or completion,
computed in chunks and with each prompt computed once. Uses: nothing of the library.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
