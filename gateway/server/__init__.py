"""Listeners, signals, drain: the life of the process around the app."""

from gateway.server.client import Client
from gateway.server.clients import Clients
from gateway.server.listeners import CannotListen
from gateway.server.worker import App, Worker, run, serving

__all__ = ["App", "CannotListen", "Client", "Clients", "Worker", "run", "serving"]
