"""See client.py."""
from .client import get_auth_user, get_model_list  # noqa: F401
