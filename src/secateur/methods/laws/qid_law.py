"""How much a language model will lose by rounding, from its size, its training tokens and the bits.

Paper: Ouyang et al., Low-Bit Quantization Favors Undertrained LLMs: Scaling Laws for Quantized LLMs with 100T Training
    Tokens (arXiv 2411.17691, 2024)
Wing: laws
Shape: law
Applies to: language models rounded after training: a size, a number of training tokens and a number of bits; or a
    table of them
Use: secateur law qid-law --at "params=7B, tokens=2T, bits=3"

The longer a network was trained the less a rounding error may move it, and the smaller it is the more it is moved:
the rise of the loss is k tokens^beta / (params^alpha bits^gamma). Turned around it tells for how many tokens a network
may be trained before so many bits cost 0.2 nats (every token becomes 0.82 times as likely), which the paper takes as
the sign of a fully trained one.

Without a table the paper's constants are used: more than 1500 checkpoints of Pythia rounded by GPTQ. They know nothing
of how you round: with shares by damage, or smaller groups, less is lost. Parameters are those outside the embeddings.

Where we differ: the paper refines a fit in log space by least squares on the rise itself; ours stays in log space, with
Huber's loss, so that large rises do not decide alone. Kumar et al.'s exponential in the bits is fitted beside it.
"""

from __future__ import annotations

import math

from secateur.maths.formula import Values
from secateur.parts.laws import KUMAR, QID, Law, Published, counted

#: the paper's fit to all of its GPTQ checkpoints together
GPTQ = {"k": 0.017, "beta": 0.5251, "alpha": 0.2261, "gamma": 5.4967}
#: the rise that the paper measures training by, nats per token
FULL = 0.2


def rise(params: float, tokens: float, bits: float, values: Values = GPTQ) -> float:
    """Nats per token that a network of so many parameters loses by rounding after so many tokens."""
    return float(QID.at({"params": params, "tokens": tokens, "bits": bits}, values))


def tokens(params: float, bits: float, rise: float = FULL, values: Values = GPTQ) -> float:
    """After how many training tokens so many bits cost this much."""
    k, beta, alpha, gamma = (values[name] for name in QID.starts)
    return (rise * params**alpha * bits**gamma / k) ** (1 / beta)


def _more(at: Values, values: Values) -> dict[str, float]:
    return {"perplexity times": math.exp(min(rise(**at, values=values), 700.0))}


def _told(at: Values, value: float, more: Values) -> str:
    cost = f"{at['bits']:g} bits are predicted to cost {value:.3g} nats per token"
    whom = f"of {counted(at['params'])} parameters after {counted(at['tokens'])} tokens"
    verdict = f"too trained for them (more than {FULL:g})" if value > FULL else f"not too trained (less than {FULL:g})"
    return f"{cost} (perplexity times {more['perplexity times']:.3g}) {whom}: {verdict}"


laws: tuple[Law, ...] = (
    Law(
        QID,
        beside=(KUMAR,),
        published=Published(
            GPTQ,
            "GPTQ on checkpoints of Pythia, 160M to 12B",
            {"params": (8.5e7, 1.13e10), "tokens": (None, 3e11), "bits": (2.0, 4.0)},
        ),
        usual={"bits": (2.0, 3.0, 4.0)},
        target=FULL,
        more=_more,
        told=_told,
    ),
)
