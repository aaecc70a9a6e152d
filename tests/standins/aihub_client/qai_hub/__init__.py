"""See client.py."""
from .client import Client, Device, JobType, __version__  # noqa: F401
