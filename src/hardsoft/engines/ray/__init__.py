"""Workers on a Ray cluster, each with the local engine."""

import os

SETTINGS = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # of what it writes to the terminal, whatever a driver asks
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a thread that still waits when this process has left a cluster would start one
    "RAY_USAGE_STATS_ENABLED": "0",
}
os.environ.update({name: value for name, value in SETTINGS.items() if name not in os.environ})  # read when Ray is imported
