"""The undisturbed run with which runs on clusters are compared, and another user."""

from tests.cluster.conftest import bench as bench
from tests.security.conftest import stranger as stranger
