"""Four vendors' APIs over the same records."""

from gateway.demo.vendors.agendize import Agendize
from gateway.demo.vendors.guidewire import Guidewire
from gateway.demo.vendors.sugarcrm import SugarCRM
from gateway.demo.vendors.truto import Truto

VENDORS = (SugarCRM, Guidewire, Agendize, Truto)
