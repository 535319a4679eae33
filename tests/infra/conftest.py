"""The undisturbed run that a cluster's run is compared with, and another user."""

from tests.cluster.conftest import bench as bench
from tests.security.conftest import stranger as stranger
