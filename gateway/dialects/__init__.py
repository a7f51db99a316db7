"""The bulk formats, one file each. A new one is a file here, a line below and its case folders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.batch import Dialect
from gateway.dialects.agendize import Agendize
from gateway.dialects.guidewire import Guidewire
from gateway.dialects.sugarcrm import SugarCRM
from gateway.dialects.truto import Truto

DIALECTS: Mapping[str, type[Dialect]] = {
    "sugarcrm": SugarCRM,
    "guidewire": Guidewire,
    "agendize": Agendize,
    "truto": Truto,
}
"""Name -> dataclass; its fields are the options an endpoint may set."""


def create(name: str, options: Mapping[str, Any]) -> Dialect:
    """The dialect with these options, which the settings have checked."""
    return DIALECTS[name](**options)
