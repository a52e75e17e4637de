import ctypes, json
