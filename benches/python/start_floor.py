"""What every binding by ctypes pays."""

import ctypes  # noqa: F401
import json  # noqa: F401
