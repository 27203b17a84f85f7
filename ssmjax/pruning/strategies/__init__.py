"""How a token is judged: one file per idea, each with a `STRATEGIES` table that is found here.

A new file in this folder is a new choice of `PruneConfig.importance`; nothing else names it.
"""

import importlib
import pkgutil

from ssmjax.pruning.strategies.strategy import Strategy

STRATEGIES: dict[str, Strategy] = {
    name: strategy
    for module in pkgutil.iter_modules(__path__)
    if module.name != "strategy"
    for name, strategy in importlib.import_module(f"{__name__}.{module.name}").STRATEGIES.items()
}
