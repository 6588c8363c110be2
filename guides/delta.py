"""Point-mass posterior."""

from __future__ import annotations

from torch import Tensor, nn

from .family import Distribution, Family, LatentSite, Message, unconstrained


class Delta(Family):
    r"""All mass at one value a site: with a prior, the maximum a posteriori.

    .. math:: q(w) = \delta(w - \hat w)

    Values of constrained sites are optimised without constraint, and the density is that of the constrained site.
    """

    def setup(self, sites: dict[str, LatentSite]) -> None:
        self.names = {name: str(index) for index, name in enumerate(sites)}
        self.transforms = {name: unconstrained(name, site) for name, site in sites.items()}
        self.values = nn.ParameterDict(
            {self.names[name]: nn.Parameter(self.transforms[name].inv(site.value)) for name, site in sites.items()}
        )

    def posterior(self, name: str, prior: Distribution, msg: Message) -> tuple[Distribution | Tensor, Tensor | None]:
        return self.transforms[name](self.values[self.names[name]]), None
