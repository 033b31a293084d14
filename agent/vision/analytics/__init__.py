"""Rules over tracks, one module each: found by name, imported on demand."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

from agent.vision.analytics._contract import Places, Rule, RuleConfig, Spec
from agent.vision.analytics._ground import Ground

__all__ = ["Ground", "Places", "Rule", "RuleConfig", "Spec", "kinds", "rule"]


def kinds() -> Mapping[str, Callable[[], type]]:
    """Give every kind of rule with a loader of its `Config`; imports none of them."""
    return {
        item.name: partial(_config, item.name)
        for item in pkgutil.iter_modules(__path__)
        if not item.name.startswith("_")
    }


def rule(kind: str) -> Rule:
    """Give the module of a kind that the configuration has accepted."""
    return cast("Rule", importlib.import_module(f"{__name__}.{kind}"))


def _config(kind: str) -> type:
    return rule(kind).Config
