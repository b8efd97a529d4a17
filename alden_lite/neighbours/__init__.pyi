from .filters import (
    FILTERS as FILTERS,
    bm3d as bm3d,
    nlm as nlm,
    tv as tv,
)
from .wgan import WassersteinPlan as WassersteinPlan, WassersteinTraining as WassersteinTraining
from .dugan import DualDomainPlan as DualDomainPlan, DualDomainTraining as DualDomainTraining
from .ascon import AsconPlan as AsconPlan, AsconTraining as AsconTraining
