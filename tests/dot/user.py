"""The user, without a browser: signs in at django-oauth-toolkit's pages and agrees.

    python user.py USERNAME PASSWORD AUTHORIZATION_URL

Prints where that ended.
"""

import sys
import urllib.request
from html.parser import HTMLParser
from http.cookiejar import CookieJar
from urllib.parse import urlencode

username, password, url = sys.argv[1:]
opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))


class Form(HTMLParser):
    """What a page's form has filled in already."""

    def __init__(self, page):
        super().__init__()
        self.fields = {}
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        field = dict(attrs)
        if tag == "input" and field.get("type") == "hidden":
            self.fields[field["name"]] = field.get("value") or ""


def visit(url, form=None):
    """The page at the end of all redirects, and its URL."""
    body = urlencode(form).encode() if form else None
    with opener.open(url, body, timeout=120) as page:
        return page.read().decode(), page.url


page, url = visit(url)
page, url = visit(url, {**Form(page).fields, "username": username, "password": password})
page, url = visit(url, {**Form(page).fields, "allow": "Authorize"})
print(url)
