"""The Laplace approximation."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Literal

import pyro
import torch
from torch import Tensor, nn

from ...models import BayesianModel, Categorical
from ...models.calling import eval_mode
from ...models.sites import TABLES
from ...priors.settings import SettingError, check, check_count, check_option, check_positive, choice_name, keep_tuple
from ..data import Data, take
from ..driver import Families
from ..errors import InferenceError
from ..monitor import Monitor
from ..posterior import Posterior
from ..prediction import slices
from ..starting import PostHoc, trained
from . import output_hessian
from .diagonal import DiagonalCurvature
from .evidence import fitted_precisions, grouped, log_evidence
from .full import FullCurvature
from .functions import MOST_NUMBERS, Functions
from .kronecker import KroneckerCurvature
from .posterior import LaplacePosterior
from .structure import Curvature
from .weights import chosen, last_layer, normal_prior

BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Laplace(PostHoc):
    r"""A normal distribution around a trained net, with the curvature of its log-joint density as its precision.

    .. math:: q(\theta) = \mathcal N(\theta^*, T P^{-1}), \qquad
        P = \sum_n J_n^\top \Lambda_n J_n + \mathrm{diag}(\lambda)

    with the Jacobians :math:`J_n` of the net's outputs, the Hessians :math:`\Lambda_n` of the negative log-likelihood
    in these outputs (a generalised Gauss-Newton matrix), and the precisions :math:`\lambda` of normal priors.

    Args:
        start: How the net is trained: ``map`` (default) or ``ml``, with their settings. Its ``device`` and ``dtype``
            are used.
        structure: What is kept of the curvature: ``kronecker`` (default; a pair of factors for the weight of every
            affine map and one for its bias, the diagonal for other weights), ``diagonal`` or ``full``.
        subset: The random weights that it is over: ``all`` (default), ``last_layer`` (the net's last linear layer), a
            glob, or a list of these. The others stay where training leaves them.
        hessian: ``ggn`` (default): the output Hessian itself, by as many backward passes as there are classes (with
            outputs per token: times their number); ``fisher``: its estimate from sampled observations.
        fisher_samples: Observations sampled for an example with ``fisher``, at least 1, default 1.
        tokens: How Kronecker factors add up the tokens of an example: ``expand`` (default; as if each were an example)
            or ``reduce`` (as their sum). Other structures need no such choice.
        prior_precision: ``prior`` (default): that of the model's prior; ``marginal_likelihood``: maximises the
            evidence around the trained net, which stays, whatever the scale of the prior.
        precision_by: What shares one fitted precision: the ``net`` (default), each ``layer``, or each ``site``.
        temperature: :math:`T > 0`, default 1. The evidence is that of 1.
        prediction: ``linearized`` (default): the functions :math:`f(x; \theta^*) + J(x) (\theta - \theta^*)`, for
            which the approximation is consistent; ``sampled``: the net itself with drawn weights.
        link: How class probabilities of linearised nets are averaged: ``monte_carlo`` (default), over draws; or
            ``probit``, in closed form by :math:`\mathrm{softmax}\big(f / (1 + \pi v / 8)^{1/2}\big)` with the
            variances :math:`v` of the logits.
        max_size: The largest matrix that is decomposed, in rows, at least 1, default 3000: of all weights for ``full``,
            of one factor for ``kronecker``. Larger ones are refused.
        device, dtype: Those of ``start`` are used; these must be left at their defaults.

    Raises:
        SettingError: A setting is out of range, or ``start`` is no point estimate.

    Reference:
        MacKay, 1992; Ritter et al., 2018 (Kronecker factors); Daxberger et al., 2021, "Laplace redux"; Immer et al.,
        2021, "Improving predictions of Bayesian neural nets via local linearization" and "Scalable marginal likelihood
        estimation for model selection in deep learning".
    """

    structure: Literal["kronecker", "diagonal", "full"] = "kronecker"
    subset: str | tuple[str, ...] = "all"
    hessian: Literal["ggn", "fisher"] = "ggn"
    fisher_samples: int = 1
    tokens: Literal["expand", "reduce"] = "expand"
    prior_precision: Literal["prior", "marginal_likelihood"] = "prior"
    precision_by: Literal["net", "layer", "site"] = "net"
    temperature: float = 1.0
    prediction: Literal["linearized", "sampled"] = "linearized"
    link: Literal["monte_carlo", "probit"] = "monte_carlo"
    max_size: int = 3000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option(self, "structure", ("kronecker", "diagonal", "full"))
        keep_tuple(self, "subset")
        globs = (self.subset,) if isinstance(self.subset, str) else self.subset
        named = bool(globs) and all(isinstance(glob, str) and glob for glob in globs)
        check(self, "subset", named, "all, last_layer, a glob over weights, or a list of these")
        check_option(self, "hessian", ("ggn", "fisher"))
        check_option(self, "tokens", ("expand", "reduce"))
        check_option(self, "prior_precision", ("prior", "marginal_likelihood"))
        check_option(self, "precision_by", ("net", "layer", "site"))
        check_option(self, "prediction", ("linearized", "sampled"))
        check_option(self, "link", ("monte_carlo", "probit"))
        check_count(self, "fisher_samples", "max_size")
        check_positive(self, "temperature")
        exact = self.link == "monte_carlo" or self.prediction == "linearized"
        check(self, "link", exact, "monte_carlo with prediction sampled; probit needs linearized")
        used = {
            "precision_by": (self.prior_precision == "marginal_likelihood", "prior_precision marginal_likelihood"),
            "tokens": (self.structure == "kronecker", "structure kronecker"),
            "fisher_samples": (self.hessian == "fisher", "hessian fisher"),
            "max_size": (self.structure != "diagonal", "structure kronecker or full"),
        }
        for key, (matters, where) in used.items():
            standard = type(self).__dataclass_fields__[key].default
            check(self, key, matters or getattr(self, key) == standard, f"nothing here: it belongs to {where}")

    @property
    def treatment(self) -> str:
        return "laplace"

    def refusal(self, model: BayesianModel) -> str | None:
        if model.rows:
            return f"softmax attention: laplace has no curvature of the random rows {model.rows[0]}"
        if reason := super().refusal(model):
            return reason
        if not output_hessian.knows(model.likelihood):
            return f"a categorical or gaussian likelihood, not {choice_name(type(model.likelihood))}"
        if own := next(iter(model.likelihood.initial_values()), None):
            return f"a likelihood without random sites: {own} can be fixed or learned"
        if self.link == "probit" and not isinstance(model.likelihood, Categorical):
            return "link monte_carlo: probit is for classes"
        if not model.sites:
            return "a model with at least one random weight"
        net = model._modules["net"]
        assert net is not None
        if recurrent := next((n for n, part in net.named_modules() if isinstance(part, nn.RNNBase)), None):
            return f"a net without recurrent layers, which have no derivatives example by example: {recurrent}"
        try:
            return self._refusal_of(model, chosen(model, self.subset))
        except ValueError as error:
            return str(error)

    def _refusal_of(self, model: BayesianModel, names: list[str]) -> str | None:
        """Why the approximation cannot be over these weights, or None when it can.

        Raises:
            ValueError: A prior is neither normal nor flat.
        """
        precision = normal_prior(model, names).precision
        flat = next((name for name, value in precision.items() if bool((value == 0).any())), None)
        if flat and self.prior_precision == "prior":
            head = set(chosen(model, last)) if (last := last_layer(model)) else set()
            # classes are told by differences of logits, and deeper weights can make up for each other
            if isinstance(model.likelihood, Categorical) or not set(names) <= head:
                return (
                    f"priors that are not flat, or prior_precision marginal_likelihood: without one on {flat} "
                    "the posterior has directions of infinite variance"
                )
        size = sum(value.numel() for value in precision.values())
        if self.structure == "full" and size > self.max_size:
            return f"structure kronecker or diagonal, or a subset: full is for max_size = {self.max_size}, not {size}"
        if self.structure == "kronecker":
            owners = dict(model.named_modules())
            for name, value in precision.items():
                if self.prior_precision == "prior" and len(value.unique()) > 1:
                    return f"structure diagonal or full: with kronecker {name} needs one prior scale for all entries"
                table = isinstance(owners[f"net.{name}".rpartition(".")[0]], TABLES)
                if value.dim() == 2 and not table and max(value.shape) > self.max_size:
                    shape = tuple(value.shape)
                    return f"structure diagonal, or a subset: {name} has shape {shape} and max_size is {self.max_size}"
        return None

    def _run(self, model: BayesianModel, guide: Families | None, data: Data, seed: int, monitor: Monitor) -> Posterior:
        self._try(model, data)
        model, start = trained(self.start, model, data, seed, monitor)
        started, names = time.perf_counter(), chosen(model, self.subset)
        torch.manual_seed(seed)  # training may have been done elsewhere, and leaves another random state
        with torch.no_grad(), eval_mode(model), pyro.validation_enabled(False):
            curvature = self._curvature(model, names, data)
            with monitor.stage("curvature", len(data)):
                log_likelihood = self._gather(curvature, model, data, monitor)
            own = normal_prior(model, names)
            mode = curvature.functions.mode
            squares = {name: (value.double() - own.loc[name]).square() for name, value in mode.items()}
            prior, fitted = own.precision, None
            if self.prior_precision == "marginal_likelihood":
                fitted, prior = fitted_precisions(curvature, grouped(names, self.precision_by), prior, squares)
            normal = curvature.normal(prior)
            evidence = log_evidence(log_likelihood, normal, prior, squares)
        info: dict[str, Any] = {
            "temperature": self.temperature,
            "structure": self.structure,
            "weights": sum(value.numel() for value in mode.values()),
            "log_likelihood": log_likelihood,
            "log_evidence": evidence,
            "prior_precision": fitted,
            "start": start,
        }
        if isinstance(curvature, KroneckerCurvature):
            info["diagonal"] = [name for name in names if name not in curvature.names]
        info["seconds"] = round(time.perf_counter() - started, 2)
        return LaplacePosterior(
            model,
            normal,
            model.initial_values(),
            temperature=self.temperature,
            linearized=self.prediction == "linearized",
            probit=self.link == "probit",
            info=info,
        )

    def _curvature(self, model: BayesianModel, names: list[str], data: Data) -> Curvature:
        functions = Functions(model, names)
        if self.structure == "kronecker":
            return KroneckerCurvature(functions, data.example()[0], self.tokens)
        return {"diagonal": DiagonalCurvature, "full": FullCurvature}[self.structure](functions)

    def _gather(self, curvature: Curvature, model: BayesianModel, data: Data, monitor: Monitor) -> float:
        """Add all data to the curvature; returns their log-likelihood at the mode."""
        functions, total = curvature.functions, 0.0
        numbers = functions(functions.mode, data.example()[0])[0].numel()
        for where in slices(len(data), max(1, min(BATCH, MOST_NUMBERS // numbers**2))):
            x, y = take(data.x, where), data.y[where]
            outputs = functions(functions.mode, x)
            total += float(log_likelihood_of(model, outputs, y))
            if not math.isfinite(total):
                raise InferenceError(f"the log-likelihood of the trained net is {total}")
            curvature.add(x, self._roots(model, outputs, y))
            monitor.step(advance=len(y))
        return total

    def _roots(self, model: BayesianModel, outputs: Tensor, y: Tensor) -> Tensor:
        """Square roots of the output Hessians, ``[K, B, ...]``."""
        if self.hessian == "ggn":
            return output_hessian.exact_roots(model.likelihood, outputs, y)
        return output_hessian.sampled_roots(model.likelihood, outputs, y, self.fisher_samples)

    def _try(self, model: BayesianModel, data: Data) -> None:
        """Take every kind of derivative once before training, to see whether the net has them.

        Raises:
            SettingError: It has not, or its outputs are too many for the exact Hessian.
        """
        x, y = data.example()[0], data.y[:2]
        with torch.no_grad(), eval_mode(model), pyro.validation_enabled(False), torch.random.fork_rng(devices=[]):
            try:
                functions = Functions(model, chosen(model, self.subset))
                outputs = functions(functions.mode, x)
                numbers = outputs[0].numel()
                if self.hessian == "ggn" and numbers**2 > MOST_NUMBERS:
                    expected = f"hessian fisher: that of {numbers} outputs an example is too large to be exact"
                    raise SettingError("driver", type(self).__name__, expected)
                functions.backward(x, self._roots(model, outputs, y)[:1])
                if self.prediction == "linearized":
                    functions.forward({name: value.unsqueeze(0) for name, value in functions.mode.items()}, x)
            except (RuntimeError, NotImplementedError) as error:
                reason = str(error).splitlines()[0]
                expected = f"a net whose derivatives torch.func can take one example at a time ({reason})"
                raise SettingError("driver", type(self).__name__, expected) from None


def log_likelihood_of(model: BayesianModel, outputs: Tensor, y: Tensor) -> Tensor:
    """The log-likelihood of a batch, in nats."""
    observed = y if y.is_floating_point() else y.clamp(min=0)  # tokens that are not observed have no label
    return model.likelihood.distribution(outputs, {}, y).log_prob(observed).double().sum()
