"""The evidence lower bound in one forward pass, its parts apart."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer import ELBO
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import kl_divergence

from ..guides import Guide
from ..guides.estimators import Estimator, PerSequence, refuse_unused
from ..guides.guide import as_evaluated, vectorized
from ..models.likelihoods import Undrawn
from ..priors.settings import check_count, check_option, check_positive

Message = dict[str, Any]


@dataclass
class Terms:
    """The parts of the bound for one batch, scaled to the whole data set and averaged over particles.

    Args:
        log_likelihood: :math:`\\frac{N}{B} E_q \\sum_n \\log p(y_n \\mid \\cdot)`.
        kl: The KL of the global sites, counted once.
        local_kl: The KL of sites in the data plate (attention rows), times N/B and the rows' own weight.
        entropy: :math:`H[q]` of all latent sites with the same factors; None where it was not asked for.
        local_entropy: The part of it that sites in the data plate have.
        bound: What is maximised, where it is neither the ELBO nor a tempered one; None elsewhere.
    """

    log_likelihood: Tensor
    kl: Tensor
    local_kl: Tensor
    entropy: Tensor | None = None
    bound: Tensor | None = None
    local_entropy: Tensor | None = None

    @property
    def elbo(self) -> Tensor:
        """Log-likelihood less both KLs."""
        return self.log_likelihood - self.kl - self.local_kl

    def item(self) -> dict[str, float]:
        """The parts as numbers, for histories and progress bars."""
        parts = {
            "elbo": float(self.elbo.detach()),
            "log_likelihood": float(self.log_likelihood.detach()),
            "kl": float(self.kl.detach()),
            "row_kl": float(self.local_kl.detach()),
        }
        return parts if self.bound is None else {**parts, "bound": float(self.bound.detach())}


def _total(site: Message, values: Tensor) -> Tensor:
    return scale_and_mask(values, site["scale"], site["mask"]).sum()


class OnePassELBO(ELBO):
    r"""The evidence lower bound of a `Guide` and its model in one forward pass.

    .. math:: \mathcal L = \tfrac NB\, E_q[\log p(y \mid w, A)] + \beta\big(E_q[\log p(w, A)] + T\, H[q]\big)

    with closed forms of KL and entropy where torch or the family knows them and one draw elsewhere. At :math:`T = 1`
    and :math:`\beta = 1` it is the bound itself. It can be used with stock `pyro.infer.SVI` too.

    Args:
        temperature: :math:`T > 0`: the target is :math:`p(w, A \mid y)^{1/T}`, default 1. It lives here because Pyro
            ignores a ``poutine.scale`` around the model of a messenger guide.
        num_particles: Draws from the guide for one estimate, run together under one plate, default 1.
        estimator: What the sequences of a batch share, default ``shared``: the draw of all weights. With
            ``local_reparameterization`` and ``flipout`` they do not share it; see `PerSequence`.

    Raises:
        SettingError: A setting is out of range.
    """

    def __init__(self, *, temperature: float = 1.0, num_particles: int = 1, estimator: Estimator = "shared"):
        super().__init__(num_particles=num_particles, vectorize_particles=num_particles > 1)
        self.temperature = temperature
        self.estimator = estimator
        check_positive(self, "temperature")
        check_count(self, "num_particles")
        check_option(self, "estimator", Estimator)

    def sites(self, guide: Guide, *args: Any, **kwargs: Any) -> dict[str, Message]:
        """Run guide and model once, all particles together, and return the sample sites."""
        replacing = nullcontext() if self.estimator == "shared" else PerSequence(guide, self.estimator)
        return self._sites(guide, replacing, args, kwargs)

    def used(self, guide: Guide, *example: Any) -> dict[str, str]:
        """Which estimator serves each site other than by the shared draw, as one run on an example shows.

        Raises:
            SettingError: The estimator would change no weight matrix.
        """
        if self.estimator == "shared":
            return {}
        replacing = PerSequence(guide, self.estimator)
        quiet = (torch.no_grad(), torch.random.fork_rng(devices=[]), poutine.block(), as_evaluated(guide.model))
        with ExitStack() as stack:
            for context in (*quiet, Undrawn()):
                stack.enter_context(context)
            self._sites(guide, replacing, example, {})
        refuse_unused(self.estimator, replacing.used, guide.matrices)
        return replacing.used

    def _sites(
        self, guide: Guide, replacing: AbstractContextManager[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, Message]:
        particles = self.num_particles
        plate = pyro.plate("particles", particles, dim=-guide.plate_nesting - 1) if particles > 1 else nullcontext()
        with plate, guide, replacing:
            guide.model(*args, **kwargs)
        return {
            name: site
            for name, site in guide.trace.nodes.items()
            if site["type"] == "sample" and not site_is_subsample(site) and not site["infer"].get("_deterministic")
        }

    def terms(self, guide: Guide, *args: Any, **kwargs: Any) -> Terms:
        """Run guide and model once and return the parts of the bound."""
        particles, sites = self.num_particles, self.sites(guide, *args, **kwargs)
        with_entropy = self.temperature != 1
        kl: Tensor | float = 0.0
        entropy: Tensor | float = 0.0
        done: set[str] = set()
        for part in guide.contributions(sites):
            kl = kl - part.log_prior - part.entropy
            entropy = entropy + part.entropy
            done |= part.sites
        sampled: dict[str, Tensor | float] = dict.fromkeys(
            ("likelihood", "kl", "local_kl", "entropy", "local_entropy"), 0.0
        )
        for name, site in sites.items():
            if site["is_observed"]:
                sampled["likelihood"] += _total(site, site["fn"].log_prob(site["value"]))
            elif site["mask"] is False:
                continue  # a KL without weight: it would be computed and thrown away
            elif name not in done and ("prior" in site["infer"] or site["infer"].get("is_auxiliary")):
                site_kl, site_entropy = self._site(site, with_entropy)
                local = any(frame.name != "particles" for frame in vectorized(site))
                sampled["local_kl" if local else "kl"] += _total(site, site_kl)
                if with_entropy:
                    sampled["local_entropy" if local else "entropy"] += _total(site, site_entropy)
        mean = {key: torch.as_tensor(value / particles) for key, value in sampled.items()}
        return Terms(
            mean["likelihood"],
            mean["kl"] + kl,
            mean["local_kl"],
            mean["entropy"] + mean["local_entropy"] + entropy if with_entropy else None,
            local_entropy=mean["local_entropy"] if with_entropy else None,
        )

    @staticmethod
    def _site(site: Message, with_entropy: bool) -> tuple[Tensor, Tensor]:
        """KL to the prior and entropy of one site, exactly or by its draw."""
        q, value = site["fn"], site["value"]
        if site["infer"].get("is_auxiliary"):  # a family's own variable: q alone
            log_q = q.log_prob(value)
            return log_q, -log_q
        prior = site["infer"]["prior"]
        try:
            kl = kl_divergence(q, prior)
            return kl, q.entropy() if with_entropy else kl
        except NotImplementedError:
            log_q = q.log_prob(value)
            return log_q - prior.log_prob(value), -log_q

    def loss_of(self, terms: Terms, beta: float = 1.0, row_beta: float = 1.0) -> Tensor:
        """The quantity to minimise, :math:`-\\mathcal L`, from its parts.

        Args:
            terms: The parts.
            beta: :math:`\\beta`.
            row_beta: A factor on :math:`\\beta` for sites in the data plate alone, default 1.
        """
        regularizer = terms.kl + row_beta * terms.local_kl
        if terms.entropy is not None:
            assert terms.local_entropy is not None
            entropy = terms.entropy - (1 - row_beta) * terms.local_entropy
            regularizer = regularizer + (1 - self.temperature) * entropy
        return beta * regularizer - terms.log_likelihood

    def differentiable_loss(self, model: Any, guide: Guide, *args: Any, **kwargs: Any) -> Tensor:
        if not isinstance(guide, Guide):
            raise TypeError(f"the guide is a {type(guide).__name__}: expected a pyroformer.guides.Guide")
        with guide.stated():
            return self.loss_of(self.terms(guide, *args, **kwargs))

    def loss(self, model: Any, guide: Guide, *args: Any, **kwargs: Any) -> float:
        with torch.no_grad():
            return float(self.differentiable_loss(model, guide, *args, **kwargs))

    def loss_and_grads(self, model: Any, guide: Guide, *args: Any, **kwargs: Any) -> float:
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return loss.item()

    def _get_trace(self, *args: Any) -> Any:
        raise NotImplementedError("the bound is computed from the guide's own run")
