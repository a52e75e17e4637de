#!/usr/bin/env python3
"""Stands for the user's browser, as $BROWSER may name one: opens a URL, follows where it leads, prints where that was."""

import sys
import urllib.request

with urllib.request.urlopen(sys.argv[1], timeout=60) as page:
    page.read()
    print(page.geturl())
