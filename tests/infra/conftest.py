"""The undisturbed run that a cluster's run is compared with."""

from tests.cluster.conftest import bench as bench
