#!/usr/bin/env python3
"""Stands for the user's browser, as $BROWSER may name one: opens a URL, follows it, prints where that ended."""

import sys
import urllib.request

browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
with browser.open(sys.argv[1], timeout=60) as page:
    page.read()
    print(page.geturl())
